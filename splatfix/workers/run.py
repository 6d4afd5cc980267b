"""Run all tasks, on Ray actors or in this process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Iterator
from typing import TypeVar

from splatfix.errors import RunAborted
from splatfix.process import using_threads
from splatfix.workers.cluster import connect_ray, num_local_cpus
from splatfix.workers.config import WorkersConfig, runs_in_process
from splatfix.workers.cuda_errors import CUDA_IS_BROKEN, breaks_cuda, retry_with_free_memory
from splatfix.workers.failures import Failure, classify_failure
from splatfix.workers.pool import ActorPool
from splatfix.workers.queue import TaskQueue
from splatfix.workers.tasks import Outcome, Worker

T = TypeVar("T")


def run_tasks(
    tasks: Iterable[T],
    worker: Callable[[], Worker],
    config: WorkersConfig,
    *,
    name: Callable[[T], str],
    after: Callable[[T], str | None] = lambda _: None,
    group: Callable[[T], Hashable] = lambda _: None,
    on_retry: Callable[[T, Failure], object] = lambda _task, _failure: None,
    on_busy: Callable[[int, int], object] = lambda _busy, _ready: None,
) -> Generator[Outcome[T], None, None]:
    """Run all tasks, and yield the outcome of each as it ends.

    Args:
        tasks: the tasks; they are read one at a time, when a worker is free.
        worker: creates a worker, once in each process; it must be picklable.
        config: number of workers, and the resources of each.
        name: returns the name of a task, which is unique.
        after: returns the name of the task that has to end before a task starts, or None. That task must come earlier
            in ``tasks``; a name that is not among them is ignored.
        group: returns what tasks share that is slow to set up, such as the capture: a worker first takes a task of the
            group that it had last, then one of a group that no other worker has.
        on_retry: called with the task and the failure when an attempt has failed and another follows.
        on_busy: called with the number of workers that have a task, and of all that are ready.

    Raises:
        ValueError: a worker cannot be created with these settings.
        RunAborted: no other task can succeed (DiskFull: no space is left), or workers cannot be started.
    """
    queue = TaskQueue(iter(tasks), after, name, group)
    if runs_in_process(config):
        yield from _run_in_process(queue, worker, config, on_retry)
        return
    with connect_ray(config.address, num_cpus=num_local_cpus(config), gpus=config.gpus or 0) as ray:
        yield from ActorPool(ray, queue, worker, config, on_retry, on_busy).run()


def _run_in_process(
    queue: TaskQueue[T], create: Callable[[], Worker], config: WorkersConfig, on_retry: Callable[[T, Failure], object]
) -> Iterator[Outcome[T]]:
    worker: Worker | None = None
    upcoming = queue.next()
    while (task := upcoming) is not None:
        worker = create() if worker is None else worker
        upcoming = queue.next()
        outcome = _try_task(task, upcoming, worker, config, on_retry)
        queue.finish(task)
        upcoming = queue.next() if upcoming is None else upcoming
        yield outcome


def _try_task(
    task: T, upcoming: T | None, worker: Worker, config: WorkersConfig, on_retry: Callable[[T, Failure], object]
) -> Outcome[T]:
    attempt = 1
    while True:
        try:
            with using_threads(config.cpus):
                return Outcome(task, retry_with_free_memory(lambda: worker.run(task, upcoming)), None, attempt)
        except Exception as error:
            failure = classify_failure(error)
            if breaks_cuda(error):
                raise RunAborted(f"{failure.reason}: {CUDA_IS_BROKEN}") from error
            if failure.kind == "content" or attempt == config.attempts:
                return Outcome(task, None, failure.reason, attempt, failure.traceback, kind=failure.kind)
            on_retry(task, failure)
        attempt += 1
