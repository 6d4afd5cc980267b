"""Workers whose CUDA breaks, or whose GPU has no memory left. Errors are known by their text, so no GPU is needed."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
import torch

from splatfix.workers import RunAborted, WorkersConfig, run_tasks
from splatfix.workers.cuda_errors import breaks_cuda, retry_with_free_memory
from splatfix.workers.failures import BrokenProcessError
from splatfix.workers.host import WorkerHost

pytestmark = pytest.mark.starts_ray

ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported"


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "breaks"),
    [
        (RuntimeError(ILLEGAL), True),
        (RuntimeError("cuBLAS error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"), True),
        (caused(ValueError("restorer nafnet: failed"), RuntimeError(ILLEGAL)), True),
        (RuntimeError("CUDA error: out of memory"), False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), False),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), False),
        (RuntimeError("size mismatch"), False),
        (MemoryError(), False),
    ],
)
def test_errors_after_which_cuda_no_longer_works(error: Exception, breaks: bool) -> None:
    assert breaks_cuda(error) is breaks


def test_cuda_is_asked_whether_it_still_works(monkeypatch) -> None:
    def fails() -> None:
        raise RuntimeError("unspecified launch failure")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", fails)
    assert breaks_cuda(KeyError("whatever came first"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert not breaks_cuda(KeyError("x"))


@pytest.mark.parametrize("num_failures", [0, 1, 2])
def test_a_full_gpu_is_freed_and_tried_once_more(num_failures: int, caplog) -> None:
    calls: list[int] = []

    def call() -> str:
        calls.append(1)
        if len(calls) <= num_failures:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return "done"

    if num_failures == 2:
        with pytest.raises(torch.OutOfMemoryError):
            retry_with_free_memory(call)
    else:
        assert retry_with_free_memory(call) == "done"
    assert len(calls) == min(num_failures + 1, 2) and ("trying again" in caplog.text) == (num_failures > 0)


class Poisoned:
    """Breaks CUDA with one task; from then on, each task of this process fails at once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.broken = folder, False

    def run(self, task: str, upcoming: str | None) -> int:  # noqa: ARG002 - of the protocol
        marker = self.folder / task
        if task == "poison" and not marker.exists():
            marker.touch()
            self.broken = True
        if self.broken:
            raise RuntimeError(ILLEGAL)
        return os.getpid()


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_worker_with_broken_cuda_is_replaced_at_the_cost_of_one_attempt(tmp_path: Path) -> None:
    tasks = [*(f"task{i}" for i in range(20)), "poison", *(f"task{i}" for i in range(20, 60))]
    retried: list[tuple[str, str]] = []
    on_retry = lambda task, failure: retried.append((task, failure.kind))  # noqa: E731
    config = WorkersConfig(num=2, attempts=2)
    outcomes = {
        each.task: each for each in run_tasks(tasks, partial(Poisoned, tmp_path), config, name=str, on_retry=on_retry)
    }
    assert [each.error for each in outcomes.values() if each.error is not None] == []
    assert retried == [("poison", "machine")] and outcomes["poison"].attempts == 2
    assert len({each.result for each in outcomes.values()}) in (2, 3)  # the new process may get no task


def test_without_workers_the_run_ends(tmp_path: Path) -> None:
    tasks = ["a", "poison", "b"]
    done: list[str] = []
    with pytest.raises(RunAborted, match="CUDA no longer works in this process; finished work is kept, and the same"):
        done.extend(each.task for each in run_tasks(tasks, partial(Poisoned, tmp_path), WorkersConfig(num=0), name=str))


def test_two_instant_failures_in_a_row_replace_a_worker(monkeypatch) -> None:
    monkeypatch.setattr("splatfix.workers.host.current_node", lambda: "node")
    errors: list[Exception] = []

    class Failing:
        def run(self, task: str, upcoming: str | None) -> str:  # noqa: ARG002 - of the protocol
            if errors:
                raise errors.pop()
            return task

    host = WorkerHost(Failing, 0)
    for _ in range(3):  # faults of tasks, and failures between successes, are none of the process
        errors[:] = [ValueError("not a capture")]
        with pytest.raises(ValueError, match="not a capture"):
            host.run("a", None)
    for _ in range(3):
        errors[:] = [KeyError("x")]
        with pytest.raises(KeyError):
            host.run("a", None)
        assert host.run("a", None).result == "a"
    errors[:] = [KeyError("x"), KeyError("x")]
    with pytest.raises(KeyError):
        host.run("a", None)
    with pytest.raises(BrokenProcessError, match=r"KeyError: 'x'; a worker of .* is replaced"):
        host.run("b", None)


def test_a_fault_of_content_that_broke_cuda_replaces_the_worker(monkeypatch) -> None:
    monkeypatch.setattr("splatfix.workers.host.current_node", lambda: "node")

    class Failing:
        def run(self, task: str, upcoming: str | None) -> str:  # noqa: ARG002 - of the protocol
            raise caused(ValueError("restorer nafnet: failed"), RuntimeError(ILLEGAL))

    with pytest.raises(BrokenProcessError, match=r"restorer nafnet: failed; a worker of .* is replaced"):
        WorkerHost(Failing, 0).run("a", None)
