"""A pool of Ray actors: each creates a worker, which does the tasks that are leased to the actor."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from splatfix.workers.cluster import resolve_workers
from splatfix.workers.config import WorkersConfig
from splatfix.workers.failures import RunAborted, classify_failure
from splatfix.workers.tasks import Outcome, TaskQueue, Worker

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
MAX_FAILED_STARTS = 5  # in a row, of actors that died before they were ready
PATIENCE_SECONDS = 60.0  # before a warning that no worker is ready
T = TypeVar("T")


class _WorkerHost:
    """The class of the actors: creates the worker when the actor starts, then forwards tasks to it."""

    def __init__(self, create: Callable[[], Worker]) -> None:
        self._worker: Worker | None = None
        self._error: Exception | None = None
        try:
            self._worker = create()
        except Exception as error:  # raised by `check_ready`: Ray would only report that the actor died
            self._error = error

    def check_ready(self) -> None:
        if self._error is not None:
            raise self._error

    def run(self, task: Any, upcoming: Any | None) -> Any:
        assert self._worker is not None
        return self._worker.run(task, upcoming)


@dataclass
class _Actor(Generic[T]):
    """An actor, the task that is leased to it, and the upcoming task that is reserved for it."""

    handle: Any
    is_ready: bool = False
    task: T | None = None
    upcoming: T | None = None


class ActorPool(Generic[T]):
    """Leases the tasks of a queue to Ray actors, retries failed attempts, and replaces actors that die.

    ``ray`` is the connected module; the other arguments are those of `run_tasks`.
    """

    def __init__(
        self,
        ray: Any,
        queue: TaskQueue[T],
        worker: Callable[[], Worker],
        config: WorkersConfig,
        on_retry: Callable[[T, str], object],
        on_busy: Callable[[int, int], object],
    ) -> None:
        self._ray, self._queue, self._worker, self._config = ray, queue, worker, config
        self._on_retry, self._on_busy = on_retry, on_busy
        self._num, self._gpus = resolve_workers(ray, config)
        threads = {key: str(config.cpus) for key in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS")}
        self._actor_class = ray.remote(_WorkerHost).options(
            num_cpus=config.cpus,
            num_gpus=self._gpus,
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": threads | {"OMP_WAIT_POLICY": "PASSIVE"}},
        )
        self._waiting: dict[Any, _Actor[T]] = {}  # by the reference to its next answer
        self._idle: list[_Actor[T]] = []
        self._failed_attempts: dict[str, int] = {}  # of unfinished tasks
        self._failed_starts = 0
        self._start_time = time.monotonic()
        self._has_warned = False

    def run(self) -> Generator[Outcome[T], None, None]:
        """Run all tasks, and yield the outcome of each as it ends. Errors as `run_tasks`."""
        try:
            for _ in range(self._num):
                self._start_actor()
            while True:
                self._idle = [actor for actor in self._idle if not self._lease(actor)]
                busy = sum(actor.task is not None for actor in self._waiting.values())
                ready = len(self._idle) + sum(actor.is_ready for actor in self._waiting.values())
                self._on_busy(busy, ready)
                if busy == 0 and self._idle and not self._queue.returned:
                    return  # no task remains, so that actors that are still starting are not needed
                self._warn_if_none_ready()
                answers, _ = self._ray.wait(list(self._waiting), num_returns=1, timeout=POLL_SECONDS)
                for answer in answers:
                    outcome = self._take_answer(answer)
                    if outcome is not None:
                        yield outcome
        finally:
            for actor in [*self._waiting.values(), *self._idle]:
                self._ray.kill(actor.handle)

    def _start_actor(self) -> None:
        actor: _Actor[T] = _Actor(self._actor_class.remote(self._worker))
        self._waiting[actor.handle.check_ready.remote()] = actor

    def _lease(self, actor: _Actor[T]) -> bool:
        """Lease the next task to an actor, and reserve the one after it; False if there is no task."""
        if actor.upcoming is not None:
            actor.task, actor.upcoming = actor.upcoming, None
        else:
            actor.task = self._next_task()
        if actor.task is None:
            return False
        actor.upcoming = self._queue.next()
        self._waiting[actor.handle.run.remote(actor.task, actor.upcoming)] = actor
        return True

    def _next_task(self) -> T | None:
        task = self._queue.next()
        if task is None:  # take a task that is reserved for a busy actor
            for other in self._waiting.values():
                if other.upcoming is not None:
                    task, other.upcoming = other.upcoming, None
                    break
        return task

    def _take_answer(self, answer: Any) -> Outcome[T] | None:
        """Handle the answer of an actor; return the outcome of its task if that has ended."""
        actor = self._waiting.pop(answer)
        try:
            result = self._ray.get(answer)
        except self._ray.exceptions.RayTaskError as error:
            return self._handle_exception(actor, error.cause if isinstance(error.cause, BaseException) else error)
        except self._ray.exceptions.RayError as error:  # node death, kill, out of memory, a lost answer
            return self._handle_death(actor, error)
        if not actor.is_ready:
            actor.is_ready, self._failed_starts = True, 0
            self._idle.append(actor)
            return None
        task = actor.task
        assert task is not None
        actor.task = None
        self._queue.finish(task)
        if not self._lease(actor):  # so that the actor works while the caller handles the outcome
            self._idle.append(actor)
        return Outcome(task, result, None, self._failed_attempts.pop(self._queue.name(task), 0) + 1)

    def _handle_exception(self, actor: _Actor[T], error: BaseException) -> Outcome[T] | None:
        """Count a failed attempt of an actor that is still alive; raise if its worker could not be created."""
        if not actor.is_ready:
            if isinstance(error, ValueError):
                raise ValueError(str(error)) from None
            raise RunAborted(f"a worker cannot be created: {type(error).__name__}: {error}") from None
        outcome = self._count_failure(actor, error)
        self._idle.append(actor)
        return outcome

    def _handle_death(self, actor: _Actor[T], error: BaseException) -> Outcome[T] | None:
        """Count a failed attempt of an actor that died, return its reserved task, and start another actor."""
        if not actor.is_ready:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise RunAborted(f"workers die before they are ready: {classify_failure(error).reason}") from None
        if actor.upcoming is not None:
            self._queue.returned.appendleft(actor.upcoming)
            actor.upcoming = None
        outcome = self._count_failure(actor, error)
        self._ray.kill(actor.handle)
        self._start_actor()
        return outcome

    def _count_failure(self, actor: _Actor[T], error: BaseException) -> Outcome[T] | None:
        """Return the task to the queue for another attempt, or return its outcome after the last attempt."""
        task, actor.task = actor.task, None
        if task is None:
            return None
        name = self._queue.name(task)
        attempts = self._failed_attempts[name] = self._failed_attempts.get(name, 0) + 1
        failure = classify_failure(error)
        if failure.kind == "content" or attempts >= self._config.attempts:
            self._queue.finish(task)
            return Outcome(task, None, failure.reason, self._failed_attempts.pop(name), failure.traceback)
        self._on_retry(task, failure.reason)
        self._queue.returned.append(task)
        return None

    def _warn_if_none_ready(self) -> None:
        if self._has_warned or time.monotonic() - self._start_time <= PATIENCE_SECONDS:
            return
        if any(actor.is_ready for actor in self._waiting.values()):
            return
        resources = self._ray.cluster_resources()
        log.warning(
            "no worker is ready yet: each needs %d CPUs and %g GPUs; the whole cluster has %g CPUs and %g GPUs",
            *(self._config.cpus, self._gpus, resources.get("CPU", 0), resources.get("GPU", 0)),
        )
        self._has_warned = True
