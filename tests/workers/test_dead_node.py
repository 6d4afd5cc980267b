"""A process of the Ray on this machine dies: each command that runs on it ends with a message, and can be resumed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import IO

import psutil
import pytest

from splatfix.pairs.verify import verify
from splatfix.sample import sample_path
from tests.cluster.settings import config_path, write_pairs
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.starts_ray]
GENERATE = [
    *("generate", str(sample_path()), "--fits-per-capture", "40", "--device", "cpu", "--workers.num", "1"),
    *("--recipes.photos.size-px", "32", "--recipes.photos.steps", "300", "--recipes.photos.max-views", "2"),
]


def start(*words: str, log: IO[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "splatfix", *words], stdout=log, stderr=subprocess.STDOUT)


def kill_below(driver: subprocess.Popen[bytes], name: str) -> None:
    """Kill the only process of a name that a driver has started."""
    [victim] = [each for each in psutil.Process(driver.pid).children(recursive=True) if each.name() == name]
    victim.kill()


def last_message(said: str, command: str) -> str:
    """Return the text of a log from the command's last message on, without the output of Ray before it."""
    assert "Traceback" not in said, said
    begin = said.rfind(f"splatfix {command}: ")
    assert begin >= 0, said
    return said[begin:]


def dead(command: str, name: str) -> str:
    return f"splatfix {command}: Ray's process {name} has died: it was killed"


def test_a_generation_ends_when_its_only_node_dies(tmp_path: Path) -> None:
    out, log = tmp_path / "pairs", tmp_path / "log"
    with log.open("w") as file, start(*GENERATE, "--out", str(out), log=file) as driver:
        wait_for(lambda: driver.poll() is not None or any(out.glob("*.manifest.json")), seconds=200)
        kill_below(driver, "raylet")
        code = driver.wait(120)
    said = log.read_text()
    assert code == 1 and last_message(said, "generate").startswith(dead("generate", "raylet")), said
    assert verify(str(out)).problems == ()


SWEEP = """
loop:
  restorer: warp
  device: cpu
  views: {size_px: 32, num_train: 3, max_test: 4}
  initial: {num_random: 100}
  fit: {steps: 400, densify: {max_gaussians: 500}}
  choose: {enabled: false}
  repair: {rounds: 2, views: 3, steps: 5, siblings: 1}
space:
  repair.weight: {loguniform: [0.1, 2.0]}
search: {trials: 30, startup: 2, parallel: 1}
workers: {num: 1, gpus: 0}
tracking: {enabled: false}
"""


@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_sweep_ends_when_its_ray_dies(tmp_path: Path, name: str) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    out, log = tmp_path / "sweep", tmp_path / "log"
    words = ("sweep", "--config", str(tmp_path / "sweep.yaml"), "--captures", str(sample_path()), "--out", str(out))
    with log.open("w") as file, start(*words, log=file) as driver:
        wait_for(lambda: driver.poll() is not None or "trial 0 complete" in log.read_text(), seconds=200)
        kill_below(driver, name)
        code = driver.wait(120)
    said = log.read_text()
    assert code == 1 and last_message(said, "sweep").startswith(dead("sweep", name)), said


def test_a_training_ends_when_its_only_node_dies(tmp_path: Path) -> None:
    write_pairs(str(tmp_path / "pairs"))
    out, log = tmp_path / "restorer", tmp_path / "log"
    words = ("train", "--shards", str(tmp_path / "pairs"), "--config", str(config_path("train")), "--out", str(out))
    with log.open("w") as file, start(*words, "--steps", "100000", log=file) as driver:
        wait_for(lambda: driver.poll() is not None or (out / "state.pt").exists(), seconds=200)
        kill_below(driver, "raylet")
        code = driver.wait(120)
    said = log.read_text()
    assert code == 1 and last_message(said, "train").startswith(dead("train", "raylet")), said
    assert (out / "state.pt").exists()
