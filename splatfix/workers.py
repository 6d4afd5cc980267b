"""Long, unequal tasks on leased workers: Ray actors on a machine or a cluster, or this process.

A task is leased to an actor that has said that it is ready. An actor that dies (a node that went away, the
out-of-memory killer, pre-emption) costs its task one attempt; the task is leased again, and another actor is started. A
task whose attempts are used up, or that can never work (``ValueError``), ends as a failure, and the rest goes on.
Nothing is retried behind our back: Ray's own restarts and retries are off, since they hang or lose tasks when nodes
die.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from splatfix.config import require
from splatfix.process import keeping_handler, using_threads

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
MAX_FAILED_STARTS = 5  # in a row, of actors that never became ready
PATIENCE_SECONDS = 60.0  # without any worker, before that is told
MAX_REASON = 600  # characters
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class WorkersConfig:
    """Who does the work.

    Attributes:
        num: number of workers; 0 works in this process without Ray (on ``cpus`` threads too), None takes as many as
            the machine or cluster has room for (on one core: 0).
        cpus: CPU cores of a worker; its kernels use so many threads.
        gpus: share of a GPU of a worker (0.25: four on each); 0 for the CPU, None takes a whole one where there are
            any.
        address: of a Ray cluster; None joins the one that this process is in (RAY_ADDRESS, a Ray job), else starts Ray
            on this machine.
        attempts: how often a task is tried before it is given up.
    """

    num: int | None = None
    cpus: int = 1
    gpus: float | None = None
    address: str | None = None
    attempts: int = 3

    def __post_init__(self) -> None:
        require(self.num is None or self.num >= 0, "workers.num", self.num, "0 or more, or null")
        require(self.cpus >= 1, "workers.cpus", self.cpus, "at least 1")
        require(self.gpus is None or self.gpus >= 0, "workers.gpus", self.gpus, "a share of a GPU, or null")
        require(self.attempts >= 1, "workers.attempts", self.attempts, "at least 1")


class Worker(Protocol):
    """What a worker process holds: made once, then called for task after task."""

    def run(self, task: Any, upcoming: Any | None) -> Any:
        """Do a task; ``upcoming`` is probably the next one, for whoever wants to prepare it."""
        ...


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """How a task ended: with a result, or with an error after so many attempts."""

    task: T
    result: Any = None
    error: str | None = None
    attempts: int = 1


class RunAborted(Exception):  # noqa: N818 - a state, told to the user as such
    """No other task will work either: the run ends."""


class DiskFull(RunAborted):
    """No more room to write results to."""


@dataclass
class _Leases(Generic[T]):
    """Tasks that are left, in order, and those that wait for another to be done. Remembers nothing that has ended."""

    tasks: Iterator[T]
    after: Callable[[T], str | None]
    name: Callable[[T], str]
    begun: set[str] = field(default_factory=set)  # and not ended, or waiting
    again: deque[T] = field(default_factory=deque)
    parked: dict[str, list[T]] = field(default_factory=dict)

    def next(self) -> T | None:
        """A task that can be started; None where there is none now."""
        if self.again:
            return self.again.popleft()
        for task in self.tasks:
            self.begun.add(self.name(task))
            before = self.after(task)
            if before is None or before not in self.begun:
                return task
            self.parked.setdefault(before, []).append(task)
        return None

    def ended(self, task: T) -> None:
        """Free the tasks that waited for this one, whatever came of it."""
        name = self.name(task)
        self.begun.discard(name)
        self.again.extend(self.parked.pop(name, []))


def run_tasks(
    tasks: Iterable[T],
    worker: Callable[[], Worker],
    config: WorkersConfig,
    *,
    name: Callable[[T], str],
    after: Callable[[T], str | None] = lambda _: None,
    on_retry: Callable[[T, str], object] = lambda _task, _reason: None,
    on_busy: Callable[[int, int], object] = lambda _busy, _all: None,
) -> Generator[Outcome[T], None, None]:
    """Do all tasks; yields how each ended, as it ends.

    Args:
        tasks: read as they are needed.
        worker: makes a worker, once in each process; must be picklable.
        config: how many, and with what.
        name: of a task.
        after: name of the task that must have ended before, if it is among the tasks: then it comes earlier.
        on_retry: called when an attempt failed and another follows.
        on_busy: called with the number of workers that work, and of all that are ready.

    Raises:
        RunAborted: a worker found that all others would fail, too (DiskFull where it had no room to write), or workers
            cannot be started.
    """
    leases = _Leases(iter(tasks), after, name)
    if runs_in_process(config):
        yield from _in_this_process(leases, worker, config, on_retry)
        return
    with connect_ray(config.address, num_cpus=num_local_cpus(config), gpus=config.gpus or 0) as ray:
        yield from _on_actors(ray, leases, worker, config, on_retry, on_busy)


def runs_in_process(config: WorkersConfig) -> bool:
    """Whether the work is done in this process, without Ray."""
    is_small = (os.cpu_count() or 1) == 1 and "RAY_ADDRESS" not in os.environ
    return config.num == 0 or (config.num is None and config.address is None and is_small)


def _in_this_process(
    leases: _Leases[T], worker: Callable[[], Worker], config: WorkersConfig, on_retry: Callable[[T, str], object]
) -> Iterator[Outcome[T]]:
    made: Worker | None = None
    upcoming = leases.next()
    while (task := upcoming) is not None:
        made = worker() if made is None else made
        upcoming = leases.next()
        for attempt in range(1, config.attempts + 1):
            try:
                with using_threads(config.cpus):
                    outcome = Outcome(task, made.run(task, upcoming), None, attempt)
                break
            except Exception as error:
                reason, permanent = classify_failure(error)
                if permanent or attempt == config.attempts:
                    outcome = Outcome(task, None, reason, attempt)
                    break
                on_retry(task, reason)
        leases.ended(task)
        upcoming = leases.next() if upcoming is None else upcoming
        yield outcome


def classify_failure(error: BaseException) -> tuple[str, bool]:
    """The reason in words, and whether another attempt is in vain. Raises RunAborted where all other tasks are, too."""
    if isinstance(error, RunAborted):
        raise error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise DiskFull(str(error.filename or error)) from None
    if isinstance(error, ValueError):
        return str(error), True
    log.debug("%s", "".join(traceback.format_exception(error)))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    return f"{type(error).__name__}: {'; '.join(lines[:6])}"[:MAX_REASON], False


@contextmanager
def connect_ray(address: str | None, *, num_cpus: int, gpus: float = 0.0, log_to_driver: bool = False) -> Iterator[Any]:
    """Ray, joined or started; what was started here ends here.

    Args:
        address: of a cluster; None joins the one that this process is in, else starts Ray on this machine.
        num_cpus: cores that work is scheduled on, where Ray is started.
        gpus: that one worker needs: ValueError where Ray is started on a machine that has fewer.
        log_to_driver: whether what workers write appears here.
    """
    import ray

    ours = not ray.is_initialized()
    if ours:
        joins = address or os.environ.get("RAY_ADDRESS")
        alone: dict[str, Any] = {} if joins else {"include_dashboard": False, "num_cpus": num_cpus}
        quiet: dict[str, Any] = {"log_to_driver": log_to_driver, "logging_level": logging.ERROR}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
        with keeping_handler(signal.SIGTERM):  # Ray's own handler just exits
            ray.init(address=address, **quiet, **alone)
        if not joins and gpus > ray.cluster_resources().get("GPU", 0):
            seen = ray.cluster_resources().get("GPU", 0)
            ray.shutdown()
            raise ValueError(f"workers.gpus = {gpus:g}: this machine has {seen:g}; take 0 for the CPU")
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def num_local_cpus(config: WorkersConfig) -> int:
    """Cores that Ray schedules on, where it is started here."""
    cores = os.cpu_count() or 1
    return max(cores, config.cpus * (config.num or 1))


def resolve_workers(ray: Any, config: WorkersConfig) -> tuple[int, float]:
    """How many workers, and the share of a GPU of each, on the cluster that ``ray`` is connected to."""
    there = ray.cluster_resources()
    gpus = (1.0 if there.get("GPU", 0) >= 1 else 0.0) if config.gpus is None else config.gpus
    if config.num is not None:
        return config.num, gpus
    room = int(there.get("CPU", 1) // config.cpus)
    if gpus > 0:
        room = min(room, int(there.get("GPU", 0) / gpus + 1e-6))
    return max(room, 1), gpus


@dataclass
class _Actor(Generic[T]):
    """A worker on Ray, the task that it works on, and the one that is kept for it."""

    handle: Any
    ready: bool = False
    task: T | None = None
    upcoming: T | None = None


def _on_actors(
    ray: Any,
    leases: _Leases[T],
    worker: Callable[[], Worker],
    config: WorkersConfig,
    on_retry: Callable[[T, str], object],
    on_busy: Callable[[int, int], object],
) -> Iterator[Outcome[T]]:
    num, gpus = resolve_workers(ray, config)
    threads = {key: str(config.cpus) for key in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS")}
    options = {
        "num_cpus": config.cpus,
        "num_gpus": gpus,
        "max_restarts": 0,
        "max_task_retries": 0,
        "runtime_env": {"env_vars": threads | {"OMP_WAIT_POLICY": "PASSIVE"}},
    }
    kind = ray.remote(_Hosted).options(**options)
    waiting: dict[Any, _Actor[T]] = {}  # by what they will answer next
    idle: list[_Actor[T]] = []
    attempts: dict[str, int] = {}
    failed_starts, begun, told = 0, time.monotonic(), False

    def start() -> None:
        actor: _Actor[T] = _Actor(kind.remote(worker))
        waiting[actor.handle.ready.remote()] = actor

    def take() -> T | None:
        task = leases.next()
        if task is None:  # what is kept for a busy one
            for other in waiting.values():
                if other.upcoming is not None:
                    task, other.upcoming = other.upcoming, None
                    break
        return task

    def lease(actor: _Actor[T]) -> bool:
        if actor.upcoming is not None:
            actor.task, actor.upcoming = actor.upcoming, None
        else:
            actor.task = take()
        if actor.task is None:
            return False
        actor.upcoming = leases.next()
        waiting[actor.handle.run.remote(actor.task, actor.upcoming)] = actor
        return True

    try:
        for _ in range(num):
            start()
        while True:
            idle = [actor for actor in idle if not lease(actor)]
            busy = sum(actor.task is not None for actor in waiting.values())
            on_busy(busy, len(idle) + sum(actor.ready for actor in waiting.values()))
            if busy == 0 and idle and not leases.again:
                return  # nothing is left, and the rest of the actors need not start
            if not told and time.monotonic() - begun > PATIENCE_SECONDS and not any(a.ready for a in waiting.values()):
                there = [ray.cluster_resources().get(kind, 0) for kind in ("CPU", "GPU")]
                log.warning(
                    "no worker is ready yet: each wants %d CPUs and %g GPUs, the whole cluster has %g and %g",
                    *(config.cpus, gpus, *there),
                )
                told = True
            answers, _ = ray.wait(list(waiting), num_returns=1, timeout=POLL_SECONDS)
            for answer in answers:
                actor = waiting.pop(answer)
                try:
                    result = ray.get(answer)
                except ray.exceptions.RayTaskError as error:
                    cause = error.cause if isinstance(error.cause, BaseException) else error
                    if not actor.ready:
                        if isinstance(cause, ValueError):
                            raise ValueError(str(cause)) from None
                        raise RunAborted(f"a worker cannot be made: {type(cause).__name__}: {cause}") from None
                    yield from _ended(actor, leases, attempts, config, on_retry, error=cause)
                    idle.append(actor)
                except ray.exceptions.RayError as error:  # node death, kill, out of memory, a lost answer
                    if not actor.ready:
                        failed_starts += 1
                        if failed_starts >= MAX_FAILED_STARTS:
                            raise RunAborted(
                                f"workers die before they are ready: {classify_failure(error)[0]}"
                            ) from None
                    if actor.upcoming is not None:
                        leases.again.appendleft(actor.upcoming)
                        actor.upcoming = None
                    yield from _ended(actor, leases, attempts, config, on_retry, error=error)
                    ray.kill(actor.handle)
                    start()
                else:
                    if actor.ready:
                        task = actor.task
                        assert task is not None
                        actor.task = None
                        leases.ended(task)
                        # the actor goes on before whoever asked for this outcome looks at it
                        if not lease(actor):
                            idle.append(actor)
                        yield Outcome(task, result, None, attempts.pop(leases.name(task), 0) + 1)
                    else:
                        actor.ready, failed_starts = True, 0
                        idle.append(actor)
    finally:
        for actor in [*waiting.values(), *idle]:
            ray.kill(actor.handle)


def _ended(
    actor: _Actor[T],
    leases: _Leases[T],
    attempts: dict[str, int],
    config: WorkersConfig,
    on_retry: Callable[[T, str], object],
    *,
    error: BaseException,
) -> Iterator[Outcome[T]]:
    """An attempt of the actor's task failed: another follows, or that was the last."""
    task, actor.task = actor.task, None
    if task is None:
        return
    name = leases.name(task)
    attempts[name] = attempts.get(name, 0) + 1
    reason, permanent = classify_failure(error)
    if permanent or attempts[name] >= config.attempts:
        leases.ended(task)
        yield Outcome(task, None, reason, attempts.pop(name))
    else:
        on_retry(task, reason)
        leases.again.append(task)


class _Hosted:
    """The actor: makes the worker when it starts, and then does what it is told."""

    def __init__(self, worker: Callable[[], Worker]) -> None:
        self._worker: Worker | None = None
        self._error: Exception | None = None
        try:
            self._worker = worker()
        except Exception as error:  # told by `ready`: Ray would only say that the actor died
            self._error = error

    def ready(self) -> None:
        if self._error is not None:
            raise self._error

    def run(self, task: Any, upcoming: Any | None) -> Any:
        assert self._worker is not None
        return self._worker.run(task, upcoming)
