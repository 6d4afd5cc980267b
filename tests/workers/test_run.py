"""Tasks on workers: each ends once, after the task that it needs, even if workers fail or die."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numba
import pytest
import torch

from splatfix.shared_folder import describe_machine
from splatfix.workers import DiskFull, MachineError, Outcome, RunAborted, WorkersConfig, classify_failure, run_tasks
from splatfix.workers.queue import TaskQueue

pytestmark = pytest.mark.starts_ray


class Echo:
    """Returns the task, the upcoming one and the process; the names of some tasks make them fail."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, task: str, upcoming: str | None) -> tuple[str, str | None, int]:
        with (self.folder / task).open("a") as file:
            file.write("x")
        num_attempts = len((self.folder / task).read_text())
        if task.startswith("never"):
            raise ValueError("cannot work")
        if task.startswith("always"):
            raise RuntimeError("fails each time")
        if task.startswith("once") and num_attempts == 1:
            raise RuntimeError("fails the first time")
        if task.startswith("full"):
            raise OSError(28, "No space left on device", "/full")
        if task.startswith("abort"):
            raise RunAborted("no task can work")
        if task.startswith("dies") and num_attempts == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if task.startswith("slow"):
            time.sleep(0.3)
        return task, upcoming, os.getpid()


def run_echo(tasks: list[str], folder: Path, num: int, **more) -> tuple[dict[str, Outcome], list[str]]:
    """Run the tasks; return the outcomes by task, in the order of their ends, and the tasks that were retried."""
    retried: list[str] = []
    outcomes: dict[str, Outcome] = {}
    config = WorkersConfig(num=num, attempts=3)
    on_retry = lambda task, _reason: retried.append(task)  # noqa: E731
    for outcome in run_tasks(tasks, partial(Echo, folder), config, name=str, on_retry=on_retry, **more):
        assert outcome.task not in outcomes
        outcomes[outcome.task] = outcome
    return outcomes, retried


TASKS = ["a", "never", "b", "once", "always", "slow", "c", "d"]


def check_outcomes(outcomes: dict[str, Outcome], retried: list[str]) -> None:
    assert sorted(outcomes) == sorted(TASKS)
    for task in ("a", "b", "c", "d", "slow", "once"):
        assert outcomes[task].error is None and outcomes[task].result[0] == task
    assert outcomes["never"].error == "cannot work" and outcomes["never"].attempts == 1
    reason = "RuntimeError: fails each time"  # the last attempt may be the second instant failure of its actor
    assert outcomes["always"].error in (reason, f"{reason}; a worker of {describe_machine()} is replaced")
    assert outcomes["always"].attempts == 3
    assert outcomes["once"].attempts == 2
    assert sorted(retried) == ["always", "always", "once"]


def test_tasks_run_in_this_process(tmp_path: Path) -> None:
    outcomes, retried = run_echo(TASKS, tmp_path, 0)
    check_outcomes(outcomes, retried)
    assert outcomes["a"].result == ("a", "never", os.getpid())


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("num", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_tasks_run_on_actors(tmp_path: Path, num: int) -> None:
    outcomes, retried = run_echo(TASKS, tmp_path, num)
    check_outcomes(outcomes, retried)
    assert os.getpid() not in {outcomes[task].result[2] for task in "abcd"}
    assert "in run" in (outcomes["never"].traceback or "") and outcomes["a"].node is not None


@pytest.mark.usefixtures("local_ray")
def test_the_death_of_a_worker_costs_one_attempt(tmp_path: Path) -> None:
    outcomes, retried = run_echo(["slow1", "dies", "slow2", "a", "b"], tmp_path, 2)
    assert all(outcome.error is None for outcome in outcomes.values())
    assert sorted(outcomes) == ["a", "b", "dies", "slow1", "slow2"]
    assert outcomes["dies"].attempts == 2 and retried == ["dies"]
    assert (tmp_path / "a").read_text() == "x"  # the task that was reserved for it runs once


@pytest.mark.parametrize("num", [0, 2])
def test_a_task_waits_for_the_task_it_needs(tmp_path: Path, num: int, request) -> None:
    if num:
        request.getfixturevalue("local_ray")
    needs = {"b": "slow", "c": "slow", "e": "never", "f": "not among the tasks"}
    outcomes, _ = run_echo(["slow", "b", "c", "never", "e", "f", "d"], tmp_path, num, after=needs.get)
    order = list(outcomes)
    assert sorted(order) == ["b", "c", "d", "e", "f", "never", "slow"]
    assert order.index("slow") < min(order.index("b"), order.index("c"))
    assert order.index("never") < order.index("e")  # a failed task releases those that need it


@pytest.mark.parametrize("num", [0, 2])
def test_a_full_disk_aborts_the_run(tmp_path: Path, num: int, request) -> None:
    if num:
        request.getfixturevalue("local_ray")
    with pytest.raises(DiskFull, match="/full"):
        run_echo(["a", "full", "b", "c", "d", "e"], tmp_path, num)


@pytest.mark.parametrize("num", [0, 2])
def test_run_aborted_ends_the_run(tmp_path: Path, num: int, request) -> None:
    if num:
        request.getfixturevalue("local_ray")
    with pytest.raises(RunAborted, match=r"^no task can work$"):
        run_echo(["a", "abort", "b", "c", "d", "e"], tmp_path, num)


def test_tasks_in_this_process_use_the_threads_of_a_worker() -> None:
    seen = []

    class CountThreads:
        def run(self, _task: str, _upcoming: str | None) -> None:
            seen.append((torch.get_num_threads(), numba.get_num_threads()))

    before = torch.get_num_threads(), numba.get_num_threads()
    list(run_tasks(["a", "b"], CountThreads, WorkersConfig(num=0, cpus=1), name=str))
    assert seen == [(1, 1), (1, 1)]
    assert (torch.get_num_threads(), numba.get_num_threads()) == before


@pytest.mark.usefixtures("local_ray")
def test_a_worker_that_cannot_be_created_is_an_error() -> None:
    def broken() -> Echo:
        raise ValueError("no such device")

    with pytest.raises(ValueError, match=r"^no such device$"):
        list(run_tasks(["a"], broken, WorkersConfig(num=1), name=str))


def test_tasks_are_read_one_at_a_time() -> None:
    class Idle:
        def run(self, task: str, upcoming: str | None) -> None:  # noqa: ARG002
            return None

    read = 0

    def stream() -> Iterator[str]:
        nonlocal read
        for number in range(1000):
            read += 1
            yield f"task{number}"

    for num_done, _ in enumerate(run_tasks(stream(), Idle, WorkersConfig(num=0), name=str), start=1):
        assert read <= num_done + 2


def test_a_queue_blocks_tasks_until_the_one_they_need_has_finished() -> None:
    queue = TaskQueue(iter(["a", "b", "c", "d"]), {"b": "a", "d": "unknown"}.get, str)
    assert [queue.next(), queue.next(), queue.next(), queue.next()] == ["a", "c", "d", None]
    queue.finish("a")
    assert queue.next() == "b" and queue.next() is None
    for task in ("b", "c", "d"):
        queue.finish(task)
    assert not queue.unfinished and not queue.blocked and not queue.returned


def describe(error: BaseException) -> tuple[str, str]:
    failure = classify_failure(error)
    return failure.reason, failure.kind


def test_failures_are_classified() -> None:
    assert describe(ValueError("a.png: no such file")) == ("a.png: no such file", "content")
    assert describe(RuntimeError("one\n\n  two")) == ("RuntimeError: one; two", "machine")
    assert describe(KeyError()) == ("KeyError: no message", "machine")
    assert describe(MachineError("node7: no CUDA device")) == ("node7: no CUDA device", "machine")
    assert describe(PermissionError(13, "Permission denied", "a"))[1] == "machine"
    assert len(describe(RuntimeError("x" * 5000))[0]) == 600
    with pytest.raises(DiskFull, match=r"^the disk is full \(out/a\.tar\); finished work is kept: free some space$"):
        classify_failure(OSError(errno.EDQUOT, "Disk quota exceeded", "out/a.tar"))
    with pytest.raises(RunAborted, match=r"^no$"):
        classify_failure(RunAborted("no"))


def test_a_failure_keeps_the_end_of_its_traceback(tmp_path: Path) -> None:
    outcomes, _ = run_echo(["never", "always"], tmp_path, 0)
    content, machine = outcomes["never"].traceback or "", outcomes["always"].traceback or ""
    assert "in run" in content and "ValueError: cannot work" in content
    assert "RuntimeError: fails each time" in machine
