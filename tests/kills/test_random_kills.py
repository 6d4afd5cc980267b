"""Each process of each command is killed at random moments: every run ends, and what it made is whole.

``SPLATFIX_KILLS`` is the number of kills over all commands; ``make kills`` takes 50. Without it, `QUICK` commands are
killed once, and the others are skipped, since each start of Ray takes its time. The seed is printed;
``SPLATFIX_KILLS_SEED`` repeats the same choices (not the same moments of the killed work).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT
from tests.kills.jobs import Job, list_files, make_job

NUM_KILLS = int(os.environ.get("SPLATFIX_KILLS", 0))
QUICK = ("generate", "loop")
SHARES = {"generate": 0.3, "train": 0.2, "sweep": 0.2, "loop": 0.14, "compare": 0.16}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600 + 60 * NUM_KILLS), pytest.mark.starts_ray]
KILLS = {command: max(1, round(share * NUM_KILLS)) for command, share in SHARES.items()}
KINDS = {  # the processes of a command on this machine, and how often each is chosen
    "driver": 2,
    "worker": 5,
    "raylet": 2,
    "gcs_server": 2,
    "DashboardAgent": 1,
    "RuntimeEnvAgent": 1,
    "TrainController": 1,
    "log_monitor.py": 1,
}
OTHERS = ("IDLE", "Agent", "TrainController")  # processes of Ray that are no workers, though they have such a name
SURVIVED = ("worker", "log_monitor.py")  # kinds without which a run goes on
LONGEST_PAUSE = 16.0  # seconds before the first kill of a run, or less where a run is shorter
LONGEST_END = 90.0  # seconds that a command may take to end, when what it needs is dead
LONGEST_LEFT = 60.0  # seconds that a process may outlive its driver, but Ray's agents, which look for it less often
# The last words of Ray where a process of it dies while a command connects to it, since it ends the command itself.
DIED_WHILE_STARTING = ("Failed to register worker to Raylet", "Failed to connect to GCS")

ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


class RunningCommand:
    """A splatfix command that runs as a subprocess, with its log file."""

    def __init__(self, words: tuple[str, ...], out: Path) -> None:
        self.command, self.log = words[0], out.with_suffix(".log")
        argv = [sys.executable, "-m", "splatfix", *words, "--out", str(out)]
        with self.log.open("w") as file:
            self.process = subprocess.Popen(argv, cwd=ROOT, stdout=file, stderr=file, env=os.environ | ENVIRONMENT)
        self.family = {self.process.pid: psutil.Process(self.process.pid)}

    def of_kind(self, kind: str) -> list[psutil.Process]:
        """List its processes of a kind."""
        found = []
        for each in self.look():
            try:
                line = " ".join(each.cmdline())
            except psutil.Error:
                continue
            is_worker = line.startswith("ray::") and not any(name in line for name in OTHERS)
            if is_worker if kind == "worker" else kind in line.split(" --")[0]:
                found.append(each)
        return [self.family[self.process.pid]] if kind == "driver" else found

    def look(self) -> list[psutil.Process]:
        """List the processes below the driver."""
        try:
            below = self.family[self.process.pid].children(recursive=True)
        except psutil.Error:
            return []
        self.family |= {each.pid: each for each in below}
        return below

    def check_end(self, killed: list[str]) -> int:
        """Check how the command ended after these kinds were killed; returns its exit code."""
        code, said = self.process.returncode, self.log.read_text()
        assert "Traceback" not in said, said
        if killed[-1:] == ["driver"]:
            assert code == -9, said
        else:
            assert code in (0, 1), said
        if code == 1:
            assert set(killed) - set(SURVIVED), said
            message = said.rfind(f"splatfix {self.command}: ")
            is_ray_last = any(words in said for words in DIED_WHILE_STARTING)
            assert is_ray_last if message < 0 else said[message:].count("\n") <= 3, said
        return code


def _is_left(process: psutil.Process) -> bool:
    """Whether a process runs that is no agent of Ray."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and "Agent" not in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _kill(victim: psutil.Process, driver: subprocess.Popen[bytes] | None) -> bool:
    """Kill a process. False if it ended by itself first, for the ``driver`` by its exit code."""
    try:
        victim.kill()
    except psutil.NoSuchProcess:
        return False
    return driver is None or driver.wait(60) == -signal.SIGKILL


def run_and_kill(
    job: Job, out: Path, chance: random.Random, num: int, family: list[psutil.Process], pause: float = 0.0
) -> tuple[list[str], int]:
    """Run a command until it ends, and kill up to ``num`` of its processes; returns their kinds and the exit code.

    The first is killed within ``pause`` seconds. All processes of the run are added to ``family``.
    """
    run = RunningCommand(job.words, out)
    killed: list[str] = []
    while len(killed) < num and not set(killed) - set(SURVIVED):
        until = time.monotonic() + chance.uniform(0.5, max(pause / 3 if killed else pause, 0.5))
        while run.process.poll() is None and time.monotonic() < until:
            run.look()
            time.sleep(0.1)
        if run.process.poll() is not None:
            break
        victims = {kind: found for kind in KINDS if (found := run.of_kind(kind))}
        kind = chance.choices(list(victims), [KINDS[kind] for kind in victims])[0]
        if _kill(chance.choice(victims[kind]), run.process if kind == "driver" else None):
            killed.append(kind)
    try:
        run.process.wait(timeout=LONGEST_END if set(killed) - set(SURVIVED) else 300)
    except subprocess.TimeoutExpired:
        run.process.kill()
        raise AssertionError(f"after {killed} it did not end: {run.log.read_text()}") from None
    finally:
        family += run.family.values()
    return killed, run.check_end(killed)


@pytest.mark.parametrize("command", list(KILLS))
def test_a_run_that_is_killed_at_random_ends_like_one_that_is_not(command: str, tmp_path: Path) -> None:
    if not NUM_KILLS and command not in QUICK:
        pytest.skip("takes minutes: make kills")
    seed = int(os.environ.get("SPLATFIX_KILLS_SEED", random.randrange(10**6)))
    print(f"SPLATFIX_KILLS_SEED={seed}")
    chance, job = random.Random(seed), make_job(command, tmp_path)
    family: list[psutil.Process] = []
    start = time.monotonic()
    assert run_and_kill(job, tmp_path / "whole", chance, 0, family) == ([], 0)
    pause = min(LONGEST_PAUSE, 0.9 * (time.monotonic() - start))
    expected, files = job.result(tmp_path / "whole"), list_files(tmp_path / "whole")
    out, killed, num_runs = tmp_path / "killed", Counter[str](), 0
    while killed.total() < KILLS[command]:
        kinds, code = run_and_kill(job, out, chance, KILLS[command] - killed.total(), family, pause)
        killed.update(kinds)
        num_runs += 1
        if code == 0:
            assert (job.result(out), list_files(out)) == (expected, files)
            shutil.rmtree(out)
        assert num_runs < 10 + 4 * KILLS[command], f"it is done too soon to be killed: {killed}"
    assert run_and_kill(job, out, chance, 0, family) == ([], 0)
    print(dict(killed), "in", num_runs, "runs")
    assert (job.result(out), list_files(out)) == (expected, files)
    deadline = time.monotonic() + LONGEST_LEFT
    while left := [each for each in family if _is_left(each)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
