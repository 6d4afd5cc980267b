"""The same training by plain Python, torchrun and Ray Train, also if a process dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from splatfix.pairs import write_shards
from splatfix.restoration.nafnet.checkpoint import load_checkpoint
from splatfix.training.launch import POLL_INTERVAL
from tests.restoration.scenery import pair
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.starts_ray]
ROOT = Path(__file__).resolve().parents[2]
SETTINGS = """
network: {width: 8, enc_blocks: [1, 1], mid_blocks: 1, dec_blocks: [1, 1]}
data: {batch_size: 4, patch_px: 24, shuffle_buffer: 8, samples_per_visit: 4, validation_pairs: 3}
steps: 24
segment_steps: 3
validate_every: 4
warmup_steps: 2
ema_decay: 0.9
device: cpu
tracking: {enabled: false}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with shards, settings, and the run of one process."""
    folder = tmp_path_factory.mktemp("launch")
    write_shards([pair(i, scene) for scene in ("a", "b", "c", "d") for i in range(5)], folder / "shards")
    (folder / "train.yaml").write_text(SETTINGS)
    done = start(folder, "alone", sys.executable).wait(timeout=120)
    assert done == 0
    return folder


def start(folder: Path, out: str, *launcher: str, more: tuple[str, ...] = ()) -> subprocess.Popen:
    command = [
        *launcher,
        "-m",
        "splatfix",
        "train",
        "--shards",
        "shards",
        "--out",
        out,
        "--config",
        "train.yaml",
        *more,
    ]
    with (folder / f"{out}.log").open("w") as log:
        settings = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), POLL_INTERVAL: "0.1"}
        return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | settings, cwd=folder)


def check_equal(folder: Path, out: str) -> None:
    """The same losses and weights as those of one process, to rounding."""
    losses = [[r["loss"] for r in json.loads((folder / n / "history.json").read_text())] for n in ("alone", out)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    kept = [load_checkpoint(folder / name)[0].state_dict() for name in ("alone", out)]
    for name, value in kept[0].items():
        torch.testing.assert_close(kept[1][name], value, atol=1e-4, rtol=1e-3)
    assert [p.name for p in (folder / out / "previews").iterdir()]


@pytest.mark.parametrize("num", [2, 3], ids=["even", "uneven"])  # a batch has 4 crops
def test_torchrun_with_several_processes(folder: Path, num: int) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(num)]
    running = start(folder, f"torchrun{num}", *torchrun)
    assert running.wait(timeout=180) == 0, (folder / f"torchrun{num}.log").read_text()
    check_equal(folder, f"torchrun{num}")


def test_another_number_of_processes_goes_on_with_the_same_batches(folder: Path) -> None:
    running = start(folder, "moved", sys.executable)
    deadline = time.monotonic() + 120
    while running.poll() is None and _step(folder / "moved") < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    running.kill()
    assert running.wait(timeout=30) == -signal.SIGKILL, "it was done before it was killed"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    assert start(folder, "moved", *torchrun).wait(timeout=180) == 0, (folder / "moved.log").read_text()
    assert "resuming after step" in (folder / "moved.log").read_text()
    check_equal(folder, "moved")


def test_ray_train_goes_on_when_a_process_is_killed(folder: Path) -> None:
    running = start(folder, "ray", sys.executable, more=("--workers.num", "2"))
    killed = None
    try:
        deadline = time.monotonic() + 200
        while running.poll() is None and time.monotonic() < deadline:
            if killed is None and _step(folder / "ray") >= 3:
                killed = _ranks(running.pid)[-1]
                killed.send_signal(signal.SIGKILL)
            time.sleep(0.02)
        assert running.poll() == 0, (folder / "ray.log").read_text()[-4000:]
    finally:
        if running.poll() is None:
            running.terminate()
            running.wait(timeout=30)
    assert killed is not None
    assert "resuming after step" in (folder / "ray.log").read_text()
    check_equal(folder, "ray")
    assert not (folder / "ray" / "ray").exists()


def test_ray_train_with_a_storage_of_its_own(folder: Path) -> None:
    more = ("--workers.num", "2", "--workers.storage", "kept")
    assert start(folder, "stored", sys.executable, more=(*more, "--steps", "12")).wait(timeout=200) == 0
    shutil.rmtree(folder / "stored")  # as on a node that has not seen it
    running = start(folder, "stored", sys.executable, more=more)
    assert running.wait(timeout=200) == 0, (folder / "stored.log").read_text()[-4000:]
    assert "copying the state after step 12" in (folder / "stored.log").read_text()
    history = json.loads((folder / "stored" / "history.json").read_text())
    assert [record["step"] for record in history] == list(range(3, 25, 3))
    assert load_checkpoint(folder / "stored")[1].provenance["step"] in (12, 24)  # where it is validated


def test_ctrl_c_ends_ray_train_as_everything_else(folder: Path) -> None:
    running = start(folder, "stopped", sys.executable, more=("--workers.num", "2", "--steps", "100000"))
    deadline = time.monotonic() + 150
    while running.poll() is None and _step(folder / "stopped") < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=60) == 130, (folder / "stopped.log").read_text()[-3000:]
    assert "interrupted; finished work is kept" in (folder / "stopped.log").read_text()


def test_what_is_wrong_is_said_before_ray_starts(folder: Path) -> None:
    running = start(folder, "odd", sys.executable, more=("--workers.num", "5"))
    assert running.wait(timeout=60) == 2
    assert "data.batch_size = 4: wanted at least 5" in (folder / "odd.log").read_text().splitlines()[-1]


@pytest.fixture(scope="module")
def busy() -> Iterator[str]:
    """The address of a Ray whose two cores another job holds."""
    import ray

    found = ray.init(num_cpus=2, include_dashboard=True, dashboard_port=0, log_to_driver=False, logging_level="ERROR")
    try:
        held = ray.util.placement_group([{"CPU": 2}])
        assert held.wait(60)
        yield found.address_info["gcs_address"]
    finally:
        ray.shutdown()


def _waiting_groups() -> list[str]:
    """The states of the placement groups that are neither there nor removed, in the Ray of this process."""
    import ray

    states = [group["state"] for group in ray.util.placement_group_table().values()]
    assert states.count("CREATED") == 1  # the other job's
    return [state for state in states if state not in ("CREATED", "REMOVED")]


def _start_waiting(folder: Path, out: str, address: str, minutes: str) -> subprocess.Popen:
    """Start a training for which there is no room; returns when it has said so."""
    more = ("--workers.num", "2", "--workers.address", address, "--workers.wait-minutes", minutes)
    running = start(folder, out, sys.executable, more=more)
    log = folder / f"{out}.log"
    wait_for(lambda: "waiting for room: training wants 2 workers" in log.read_text() or running.poll() is not None)
    assert running.poll() is None, log.read_text()[-3000:]
    return running


def test_room_that_other_jobs_hold_is_waited_for_once(folder: Path, busy: str) -> None:
    running = _start_waiting(folder, "crowded", busy, "0.3")
    assert _waiting_groups()
    assert running.wait(timeout=90) == 1, (folder / "crowded.log").read_text()[-3000:]
    last = (folder / "crowded.log").read_text().splitlines()[-1]
    assert last.startswith("splatfix train: workers.num = 2: waited 0.3 minutes (workers.wait_minutes) for room: ")
    wait_for(lambda: not _waiting_groups(), seconds=30)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_ends_the_wait_for_room(folder: Path, busy: str, number: signal.Signals, code: int) -> None:
    out = f"crowded-{code}"
    running = _start_waiting(folder, out, busy, "10")
    running.send_signal(number)
    assert running.wait(timeout=60) == code, (folder / f"{out}.log").read_text()[-3000:]
    wait_for(lambda: not _waiting_groups(), seconds=30)


def _step(out: Path) -> int:
    try:
        return json.loads((out / "history.json").read_text())[-1]["step"]
    except (OSError, ValueError):
        return 0


def _ranks(driver: int) -> list[psutil.Process]:
    """The training processes of the Ray that this driver started."""
    everyone = psutil.Process(driver).children(recursive=True)
    return [process for process in everyone if "RayTrainWorker" in " ".join(process.cmdline())]
