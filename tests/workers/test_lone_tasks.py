"""Tasks that run out of GPU memory beside others: tried again while no other task is on their GPU. No GPU is needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from splatfix.workers import WorkersConfig
from splatfix.workers.failures import Failure, GpuMemoryError
from splatfix.workers.host import WorkerHost
from tests.workers.fake_ray import DIES, FakeRay
from tests.workers.test_pool import TASKS, failed, run_pool

FULL = GpuMemoryError("node: CUDA out of memory. Tried to allocate 2.00 GiB")
SHARED = WorkersConfig(gpus=0.25)


def run_big(fake: FakeRay, *big: str) -> Any:
    """What tasks do: the big ones need the GPU for themselves, the others take different times."""
    return lambda _node, task: FULL if task in big and task not in fake.alone else 7.0 + int(task[4:]) % 5


def beside(fake: FakeRay, task: str) -> list[str]:
    """The tasks that ran on the same GPU during the last attempt at a task."""
    place, _, start, end = [attempt for attempt in fake.attempts if attempt[1] == task][-1]
    return [
        other
        for where, other, first, last in fake.attempts
        if where == place and other != task and first < end and last > start
    ]


def test_a_task_without_room_on_its_gpu_is_tried_again_alone(fake) -> None:
    fake.add_node("a", cpus=8, gpus=2)
    fake.run = run_big(fake, "task3", "task11")
    retries: list[tuple[str, Failure]] = []
    outcomes = run_pool(fake, TASKS, SHARED, retries=retries)
    assert not failed(outcomes) and fake.alone == ["task3", "task11"]
    for task in fake.alone:
        assert outcomes[task].attempts == 2 and beside(fake, task) == []
    assert {task for task, _ in retries} == {"task3", "task11"}
    assert retries[0][1].reason.endswith("Tried to allocate 2.00 GiB; it waits until it is alone on a GPU")
    assert {place for place, *_ in fake.attempts} == {"a 0", "a 1"}
    others = [attempt for attempt in fake.attempts if attempt[1] not in fake.alone]
    assert max(end for *_, end in others) < 60 and beside(fake, "task20")  # the others share the GPUs, as before


def test_the_last_task_is_alone_too(fake) -> None:
    """When the queue is empty, idle workers are ended; not the one that waits for its GPU."""
    fake.add_node("a", cpus=4, gpus=1)
    fake.run = run_big(fake, "task3")
    outcomes = run_pool(fake, TASKS[:4], SHARED)
    assert not failed(outcomes) and fake.alone == ["task3"] and beside(fake, "task3") == []


def test_the_others_free_what_they_have_cached_first(fake) -> None:
    fake.add_node("a", cpus=4, gpus=1)
    fake.run = run_big(fake, "task3")
    run_pool(fake, TASKS, SHARED)
    assert fake.freed == ["a 0"] * 3


def test_all_tasks_may_need_a_gpu_each(fake) -> None:
    fake.add_node("a", cpus=8, gpus=2)
    fake.run = run_big(fake, *TASKS[:8])
    outcomes = run_pool(fake, TASKS[:8], SHARED)
    assert not failed(outcomes) and sorted(fake.alone) == TASKS[:8]
    assert all(beside(fake, task) == [] for task in TASKS[:8])


def test_a_task_that_never_fits_uses_up_its_attempts_and_blames_no_node(fake, caplog) -> None:
    fake.add_node("a", cpus=4, gpus=1)
    fake.add_node("b", cpus=4, gpus=1)
    never = ("task2", "task5", "task8", "task9")
    fake.run = lambda _node, task: FULL if task in never else 10.0
    outcomes = run_pool(fake, TASKS, SHARED)
    assert sorted(failed(outcomes)) == sorted(never)
    assert all(outcomes[task].attempts == 3 and outcomes[task].kind == "machine" for task in never)
    assert "retired" not in caplog.text


def test_workers_that_die_while_one_waits_for_its_gpu_do_not_keep_it(fake) -> None:
    fake.add_node("a", cpus=4, gpus=1)
    died: list[str] = []

    def run(_node: str, task: str) -> Any:
        if task == "task3" and task not in fake.alone:
            return FULL
        if task in ("task1", "task3") and task not in died:
            died.append(task)
            return DIES
        return 10.0

    fake.run = run
    outcomes = run_pool(fake, TASKS, SHARED)
    assert not failed(outcomes) and fake.alone == ["task3", "task3"] and died == ["task1", "task3"]


def test_a_worker_alone_on_its_gpu_takes_all_of_its_memory(monkeypatch) -> None:
    shares: list[float] = []
    seen: list[tuple[str, float]] = []
    monkeypatch.setattr("splatfix.cuda_setup.find_obstacle", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)

    class Limited:
        def run(self, task: str, upcoming: str | None) -> str:
            assert upcoming is None
            seen.append((task, shares[-1]))
            if shares[-1] < 1 or task == "huge":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore of it")
            return task

    host = WorkerHost(Limited, 0.25)
    for _ in range(3):  # no failure of this kind, however quick, is the end of the process
        with pytest.raises(GpuMemoryError, match=r"CUDA out of memory. Tried to allocate 2.00 GiB$"):
            host.run("big", None)
    assert host.run_alone("big").result == "big"
    with pytest.raises(GpuMemoryError):
        host.run_alone("huge")
    assert seen == [*[("big", 0.25)] * 6, ("big", 1.0), *[("huge", 1.0)] * 2]  # each is tried once more at once
    assert shares == [0.25, 1.0, 0.25, 1.0, 0.25]
