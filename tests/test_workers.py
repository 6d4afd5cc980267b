"""Leased work: every task ends once, in its order of dependence, whatever becomes of the workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numba
import pytest
import torch

from splatfix.workers import DiskFull, Outcome, RunAborted, WorkersConfig, run_tasks


class Echo:
    """Answers with the task; some tasks are trouble."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, task: str, upcoming: str | None) -> tuple[str, str | None, int]:
        with (self.folder / task).open("a") as file:
            file.write("x")
        tried = len((self.folder / task).read_text())
        if task.startswith("never"):
            raise ValueError("cannot work")
        if task.startswith("always"):
            raise RuntimeError("fails each time")
        if task.startswith("once") and tried == 1:
            raise RuntimeError("fails the first time")
        if task.startswith("full"):
            raise OSError(28, "No space left on device", "/there")
        if task.startswith("hopeless"):
            raise RunAborted("not for anyone")
        if task.startswith("dies") and tried == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if task.startswith("slow"):
            time.sleep(0.3)
        return task, upcoming, os.getpid()


def finish(tasks: list[str], folder: Path, num: int, **more) -> tuple[dict[str, Outcome], list[str]]:
    """All outcomes by task, in the order in which they came, and the tasks that were repeated."""
    repeated: list[str] = []
    outcomes: dict[str, Outcome] = {}
    config = WorkersConfig(num=num, attempts=3)
    on_retry = lambda task, _reason: repeated.append(task)  # noqa: E731
    for outcome in run_tasks(tasks, partial(Echo, folder), config, name=str, on_retry=on_retry, **more):
        assert outcome.task not in outcomes
        outcomes[outcome.task] = outcome
    return outcomes, repeated


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """Ray on two cores, for the tests of this file; workers find the tests' own modules."""
    import ray

    root = str(Path(__file__).resolve().parents[1])
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": root}},
    )
    yield
    ray.shutdown()


TASKS = ["a", "never", "b", "once", "always", "slow", "c", "d"]


def check(outcomes: dict[str, Outcome], repeated: list[str]) -> None:
    assert sorted(outcomes) == sorted(TASKS)
    for task in ("a", "b", "c", "d", "slow", "once"):
        assert outcomes[task].error is None and outcomes[task].result[0] == task
    assert outcomes["never"].error == "cannot work" and outcomes["never"].attempts == 1
    assert outcomes["always"].error == "RuntimeError: fails each time" and outcomes["always"].attempts == 3
    assert outcomes["once"].attempts == 2
    assert sorted(repeated) == ["always", "always", "once"]


def test_in_this_process(tmp_path: Path) -> None:
    outcomes, repeated = finish(TASKS, tmp_path, 0)
    check(outcomes, repeated)
    assert outcomes["a"].result == ("a", "never", os.getpid())


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize("num", [1, 2])
def test_on_actors(tmp_path: Path, num: int) -> None:
    outcomes, repeated = finish(TASKS, tmp_path, num)
    check(outcomes, repeated)
    assert os.getpid() not in {outcomes[task].result[2] for task in "abcd"}


@pytest.mark.usefixtures("ray_here")
def test_a_worker_that_dies_costs_one_attempt(tmp_path: Path) -> None:
    outcomes, repeated = finish(["slow1", "dies", "slow2", "a", "b"], tmp_path, 2)
    assert all(outcome.error is None for outcome in outcomes.values())
    assert sorted(outcomes) == ["a", "b", "dies", "slow1", "slow2"]
    assert outcomes["dies"].attempts == 2 and repeated == ["dies"]
    assert (tmp_path / "a").read_text() == "x"  # what was only kept for it is not done twice


@pytest.mark.parametrize("num", [0, 2])
def test_a_task_waits_for_the_one_it_needs(tmp_path: Path, num: int, request) -> None:
    if num:
        request.getfixturevalue("ray_here")
    needs = {"b": "slow", "c": "slow", "e": "never", "f": "not among the tasks"}
    outcomes, _ = finish(["slow", "b", "c", "never", "e", "f", "d"], tmp_path, num, after=needs.get)
    order = list(outcomes)
    assert sorted(order) == ["b", "c", "d", "e", "f", "never", "slow"]
    assert order.index("slow") < min(order.index("b"), order.index("c"))
    assert order.index("never") < order.index("e")  # it ended, though badly: whoever needs it finds out


@pytest.mark.parametrize("num", [0, 2])
def test_a_full_disk_stops_everything(tmp_path: Path, num: int, request) -> None:
    if num:
        request.getfixturevalue("ray_here")
    with pytest.raises(DiskFull, match="/there"):
        finish(["a", "full", "b", "c", "d", "e"], tmp_path, num)


@pytest.mark.parametrize("num", [0, 2])
def test_what_is_hopeless_stops_everything(tmp_path: Path, num: int, request) -> None:
    if num:
        request.getfixturevalue("ray_here")
    with pytest.raises(RunAborted, match=r"^not for anyone$"):
        finish(["a", "hopeless", "b", "c", "d", "e"], tmp_path, num)


def test_work_in_this_process_takes_the_threads_of_a_worker() -> None:
    seen = []

    class Counts:
        def run(self, _task: str, _upcoming: str | None) -> None:
            seen.append((torch.get_num_threads(), numba.get_num_threads()))

    before = torch.get_num_threads(), numba.get_num_threads()
    list(run_tasks(["a", "b"], Counts, WorkersConfig(num=0, cpus=1), name=str))
    assert seen == [(1, 1), (1, 1)]
    assert (torch.get_num_threads(), numba.get_num_threads()) == before


@pytest.mark.usefixtures("ray_here")
def test_workers_that_cannot_be_made_are_an_error() -> None:
    def broken() -> Echo:
        raise ValueError("no such device")

    with pytest.raises(ValueError, match=r"^no such device$"):
        list(run_tasks(["a"], broken, WorkersConfig(num=1), name=str))


def test_tasks_are_read_as_they_are_needed_and_forgotten() -> None:
    class Nothing:
        def run(self, task: str, upcoming: str | None) -> None:  # noqa: ARG002
            return None

    read = 0

    def stream() -> Iterator[str]:
        nonlocal read
        for number in range(1000):
            read += 1
            yield f"task{number}"

    for done, _ in enumerate(run_tasks(stream(), Nothing, WorkersConfig(num=0), name=str), start=1):
        assert read <= done + 2
