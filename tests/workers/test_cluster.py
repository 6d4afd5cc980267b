"""What a cluster offers: workers per node, labels, options of actors, and which Ray is joined."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from splatfix.config import build_config
from splatfix.errors import DiskFull, MachineError, RunAborted
from splatfix.shared_folder import describe_machine
from splatfix.workers import WorkersConfig, connect_ray, watch, workers_for_device
from splatfix.workers import cluster as view
from splatfix.workers.host import WorkerHost, host_class, take_gpu_share
from tests.waiting import wait_for

pytestmark = pytest.mark.starts_ray

EIGHT_GPUS = {"CPU": 64.0, "GPU": 8.0, "memory": 512e9, "accelerator_type:A100": 1.0}


@pytest.mark.parametrize(
    ("gpus", "settings", "num"),
    [
        (0.3, {}, 24),  # three on each GPU, not 26
        (0.25, {}, 32),
        (1 / 3, {}, 24),
        (1.0, {}, 8),
        (2.0, {}, 4),
        (0.25, {"cpus": 4}, 16),
        (0.0, {}, 64),
        (0.0, {"memory_gb": 100}, 5),
        (1.0, {"accelerator": "A100"}, 8),
        (1.0, {"accelerator": "H100"}, 0),
        (1.0, {"labels": {"market": "spot"}}, 8),
        (1.0, {"labels": {"market": "!spot"}}, 0),
        (1.0, {"labels": {"market": "in(spot, on-demand)"}}, 8),
        (1.0, {"labels": {"zone": "!in(a, b)"}}, 8),
        (1.0, {"labels": {"zone": "a"}}, 0),
    ],
)
def test_workers_that_fit_on_a_node(gpus: float, settings: dict[str, Any], num: int) -> None:
    config = WorkersConfig(**settings)
    assert view.node_capacity(EIGHT_GPUS, {"market": "spot"}, config, gpus) == num


def test_workers_are_counted_per_node(fake) -> None:
    for name in "abc":
        fake.add_node(name, cpus=6, gpus=1)
    assert view.resolve_workers(fake, WorkersConfig(gpus=0.6)) == (3, 0.6)
    assert view.resolve_workers(fake, WorkersConfig(cpus=4, gpus=0)) == (3, 0)  # not 18 // 4
    assert view.resolve_workers(fake, WorkersConfig()) == (3, 1.0)
    assert view.resolve_workers(fake, WorkersConfig(num=7)) == (7, 1.0)


def test_the_options_of_an_actor() -> None:
    config = WorkersConfig(cpus=2, memory_gb=1.5, accelerator="L4")
    options = view.worker_options(config, 0.5)
    assert options["memory"] == 1_500_000_000 and options["accelerator_type"] == "L4"
    assert "CUDA_VISIBLE_DEVICES" not in options["runtime_env"]["env_vars"]
    options = view.worker_options(WorkersConfig(), 0.0)
    assert options["runtime_env"]["env_vars"]["CUDA_VISIBLE_DEVICES"] == ""  # Ray alone would show all GPUs
    assert view.select_nodes({"market": "spot"}, ["b", "a"]) == {"market": "spot", "ray.io/node-id": "!in(a, b)"}
    assert view.select_nodes({}, []) == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gpus": 1.5}, "workers.gpus = 1.5: wanted 0 or more, above 1 a whole number"),
        ({"memory_gb": 0}, "workers.memory_gb = 0.0: wanted above 0"),
        ({"accelerator": "NVIDIA A100"}, "workers.accelerator = 'NVIDIA A100': wanted a type that Ray knows"),
        ({"accelerator": "A100", "gpus": 0}, "wanted null where workers.gpus is 0"),
        ({"labels": {"market": "not spot"}}, "workers.labels.market = 'not spot': wanted a value, !value, in"),
        ({"labels": {"a b": "c"}}, "workers.labels = 'a b': wanted a label's name"),
        ({"wait_minutes": 0}, "workers.wait_minutes = 0.0: wanted above 0"),
        ({"task_minutes": 0}, "workers.task_minutes = 0.0: wanted above 0"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build_config(WorkersConfig, settings, source="workers.yaml")


@pytest.mark.parametrize(
    ("given", "environment", "joined"),
    [(None, None, "local"), (None, "10.0.0.1:6379", "10.0.0.1:6379"), ("auto", None, "auto")],
)
def test_only_a_cluster_that_is_named_is_joined(monkeypatch, given, environment, joined) -> None:
    """Beside a Ray that runs on this machine, ``ray.init()`` would join it, and refuse the number of cores."""
    import ray

    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: calls.append(options))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if environment is not None:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    with connect_ray(given, num_cpus=2):
        pass
    assert calls[0]["address"] == joined and ("num_cpus" in calls[0]) == (joined == "local")


def test_a_token_that_is_missing_is_an_error_of_one_line(monkeypatch) -> None:
    import ray

    def init(**_: Any) -> None:
        raise ray.exceptions.AuthenticationError("RAY_AUTH_TOKEN_PATH is set but file cannot be opened:\n /no/token")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    wanted = r"^10\.0\.0\.1:6379: RAY_AUTH_TOKEN_PATH is set but file cannot be opened: /no/token"
    with pytest.raises(ValueError, match=wanted), connect_ray("10.0.0.1:6379", num_cpus=2):
        pass


def test_a_ray_that_does_not_start_is_one_line(monkeypatch) -> None:
    import ray

    def init(**_: Any) -> None:
        raise Exception("The current node timed out during startup.\nThis could happen ...")  # as Ray does

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    wanted = r"^Ray could not be started on this machine \(The current node timed out during startup\. This could"
    with pytest.raises(RunAborted, match=wanted), connect_ray(None, num_cpus=2):
        pass


@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
def test_a_cluster_that_does_not_answer_is_reported(monkeypatch, caplog, address: str | None) -> None:
    import ray

    def init(**_: Any) -> None:
        wait_for(lambda: bool(caplog.messages) or address is None, seconds=10)

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "cluster_resources", dict)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(view, "JOIN_NOTICE_SECONDS", 0.05)
    monkeypatch.setenv(view.RECONNECT[0], "")  # restored at the end
    monkeypatch.delenv(view.RECONNECT[0])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with connect_ray(address, num_cpus=2):
        assert os.environ.get(view.RECONNECT[0]) == (None if address is None else "120")
    said = [message for message in caplog.messages if message.startswith("10.0.0.1:6379: no answer yet;")]
    assert len(said) == (0 if address is None else 1)


def test_a_ray_that_does_not_end_is_left(monkeypatch) -> None:
    import ray

    reasons: list[str] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "cluster_resources", dict)
    monkeypatch.setattr(ray, "shutdown", lambda: wait_for(lambda: bool(reasons), seconds=10))
    monkeypatch.setattr(view, "SHUTDOWN_SECONDS", 0.05)
    monkeypatch.setattr(view, "abort_command", reasons.append)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with connect_ray(None, num_cpus=2):
        assert not reasons
    assert len(reasons) == 1 and reasons[0].startswith("Ray did not end within")


def _says_nothing() -> list[dict[str, bool]]:
    raise RuntimeError("the central service is away")


@pytest.mark.parametrize("answer", ["none", "error", "blocks"])
def test_a_command_ends_where_ray_has_no_node_left(monkeypatch, answer: str) -> None:
    is_over = threading.Event()
    answers = {"none": list, "error": _says_nothing, "blocks": lambda: [is_over.wait(30)][1:]}
    num_asked = 0

    def nodes() -> list[dict[str, bool]]:
        nonlocal num_asked
        num_asked += 1
        return [{"Alive": True}, {"Alive": False}] if num_asked in (1, 2, 4) else answers[answer]()

    reasons: list[str] = []
    monkeypatch.setattr(watch, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(watch, "NODELESS_SECONDS", 0.5)
    monkeypatch.setattr(watch, "abort_command", reasons.append)
    connected, closing = threading.Event(), threading.Event()
    connected.set()
    watch._watch_ray(SimpleNamespace(nodes=nodes), False, connected, closing, [])
    closing.set()
    is_over.set()
    wanted = "Ray has had no node for 0 s: it was killed, or this machine ran out of memory; finished work is kept"
    if answer == "blocks":
        wanted = "Ray has not answered for 0 s: its head node was lost, or cannot be reached; finished work is kept"
    assert len(reasons) == 1 and reasons[0].startswith(wanted)
    assert num_asked == 3 if answer == "blocks" else num_asked > 4  # one moment without a node ends nothing


@pytest.mark.parametrize("is_connected", [True, False])
def test_a_command_ends_when_a_process_of_its_own_ray_dies(monkeypatch, tmp_path: Path, is_connected: bool) -> None:
    raylet = shutil.copy(shutil.which("sleep") or "", tmp_path / "raylet")
    reasons: list[str] = []
    monkeypatch.setattr(watch, "LOCAL_WATCH_SECONDS", 0.01)
    monkeypatch.setattr(watch, "abort_command", reasons.append)
    ray = SimpleNamespace(nodes=lambda: [{"Alive": True}])  # it notices only later
    with watch.ending_without_ray(ray, starts=True) as connected, subprocess.Popen([raylet, "60"]) as process:
        wait_for(lambda: bool(watch._local_processes()), seconds=10)
        if is_connected:
            connected.set()
        time.sleep(0.2)
        assert not reasons
        process.kill()
        wait_for(lambda: bool(reasons), seconds=10)
    assert reasons[0].startswith("Ray's process raylet has died: it was killed")


class _QuietWorker:
    """Fails as the task says."""

    def run(self, task: Any, upcoming: Any | None) -> Any:  # noqa: ARG002 - of the protocol
        if isinstance(task, Exception):
            raise task
        return task


def test_a_share_of_a_gpu_without_cuda_is_an_error_that_names_the_node(monkeypatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    wanted = re.escape(f"{describe_machine()}: this worker holds 0.25 of a GPU, but torch")
    with pytest.raises(MachineError, match=wanted):
        take_gpu_share(0.25)
    with pytest.raises(MachineError, match=wanted):
        WorkerHost(_QuietWorker, 0.25).check_ready()


def test_a_worker_keeps_to_its_share_of_the_memory_of_a_gpu(monkeypatch) -> None:
    import torch

    shares: list[float] = []
    monkeypatch.setattr("splatfix.cuda_setup.find_obstacle", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    take_gpu_share(0.25)
    take_gpu_share(1.0)
    assert shares == [0.25]


def test_a_worker_without_a_gpu_sees_none(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    take_gpu_share(0.0)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_tasks_on_the_cpu_reserve_no_gpu() -> None:
    workers = WorkersConfig(gpus=0.5, accelerator="A100", cpus=3)
    assert workers_for_device(workers, "cpu") == WorkersConfig(gpus=0.0, cpus=3)
    assert workers_for_device(workers, "auto") == workers_for_device(workers, "cuda") == workers


def test_a_full_folder_of_the_node_is_no_full_output(tmp_path) -> None:
    from splatfix.workers.failures import NodeDiskFullError, classify_failure

    host = WorkerHost(_QuietWorker, 0.0)
    with pytest.raises(NodeDiskFullError, match="no space is left"):
        host.run(OSError(28, "No space left on device", str(tmp_path / "download")), None)
    with pytest.raises(OSError, match="No space") as raised:
        host.run(OSError(28, "No space left on device", "/shared/pairs/a.tar"), None)
    with pytest.raises(DiskFull, match=r"^the disk is full \(/shared/pairs/a\.tar\); finished work is kept"):
        classify_failure(raised.value)


def test_actors_have_the_name_of_their_worker() -> None:
    from functools import partial

    assert host_class(partial(_QuietWorker)).__name__ == "QuietWorker"
    assert repr(host_class(_QuietWorker)(_QuietWorker, 0.0)).startswith("QuietWorker(")


def test_ray_is_put_in_a_short_folder_where_the_usual_one_is_too_long_for_sockets(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(view, "SHORT_PLACE", tmp_path)
    for usual in (None, "/tmp", "/scratch/me"):
        if usual is not None:
            monkeypatch.setenv("TMPDIR", usual)
        else:
            monkeypatch.delenv("TMPDIR", raising=False)
        assert view.short_folder() is None
    monkeypatch.setenv("TMPDIR", "/scratch/projects/reconstruction/me/temporary")
    folder = view.short_folder()
    assert folder is not None and folder.parent == tmp_path and folder.is_dir()
    (tmp_path / "file").touch()
    monkeypatch.setattr(view, "SHORT_PLACE", tmp_path / "file")
    with pytest.raises(ValueError, match=r"TMPDIR = /scratch.*too long .*set RAY_TMPDIR to a folder of at most 3"):
        view.short_folder()
