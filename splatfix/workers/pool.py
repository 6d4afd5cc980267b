"""A pool of Ray actors: leases the tasks of a queue to them, and judges whether a task or a node is at fault."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Generator, Hashable
from dataclasses import replace
from typing import Any, Generic, TypeVar

from splatfix.errors import DiskFull
from splatfix.workers.config import WorkersConfig
from splatfix.workers.failures import (
    BrokenProcessError,
    Failure,
    GpuMemoryError,
    NodeDiskFullError,
    SlowTaskError,
    classify_failure,
    describe_slow_task,
)
from splatfix.workers.health import MAX_PREEMPTIONS, Attempts, Streak, better_nodes
from splatfix.workers.host import Answer
from splatfix.workers.lone_tasks import LoneTasks
from splatfix.workers.members import PATIENCE_SECONDS, Member, Members
from splatfix.workers.queue import TaskQueue
from splatfix.workers.relay import WarningRelay
from splatfix.workers.slow_tasks import SlowTasks
from splatfix.workers.tasks import Outcome, Worker

POLL_SECONDS = 1.0
MAX_NAMES = 1000  # of tasks, in Ray's dashboard: Ray keeps about 34 kB for each in the driver
_COLORS = re.compile(r"\x1b\[[0-9;]*m")  # in Ray's tracebacks
T = TypeVar("T")


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
        on_retry: Callable[[T, Failure], object],
        on_busy: Callable[[int, int], object],
    ) -> None:
        self._ray, self._queue, self._config = ray, queue, config
        self._on_retry, self._on_busy = on_retry, on_busy
        self._members: Members[T] = Members(ray, worker, config)
        self._health = self._members.health
        self._waiting: dict[Any, Member[T]] = {}  # by the reference to its next answer
        self._idle: list[Member[T]] = []
        self._held: Counter[Hashable] = Counter()  # workers by the group of their last task
        self._attempts: dict[str, Attempts] = {}  # of unfinished tasks that have failed
        self._lone: LoneTasks[T] = LoneTasks()  # those that ran out of memory beside others
        self._relay = WarningRelay()
        self._slow = SlowTasks(config.task_minutes)
        self._num_named = 0

    def run(self) -> Generator[Outcome[T], None, None]:
        """Run all tasks, and yield the outcome of each as it ends. Errors as `run_tasks`."""
        try:
            while True:
                self._members.refresh()
                self._idle = [actor for actor in self._idle if not self._lease(actor)]
                busy = sum(actor.task is not None for actor in self._waiting.values())
                if busy == 0 and self._queue.is_empty() and not self._lone.is_waiting:
                    return
                self._fit_to_tasks(busy)
                self._members.check_start()
                self._on_busy(busy, len(self._idle) + sum(actor.is_ready for actor in self._waiting.values()))
                for answer in self._wait():
                    outcome = self._take_answer(answer)
                    if outcome is not None:
                        yield outcome
                yield from self._end_slow_tasks()
        finally:
            self._members.remove_all()

    def _wait(self) -> list[Any]:
        """Wait for the next answer, for at most `POLL_SECONDS`."""
        if not self._waiting:
            time.sleep(POLL_SECONDS)
            return []
        answers, _ = self._ray.wait(list(self._waiting), num_returns=1, timeout=POLL_SECONDS)
        return answers

    def _end_slow_tasks(self) -> list[Outcome[T]]:
        """End the workers whose tasks take longer than they may; returns the outcomes of tasks that are not retried."""
        outcomes, now = [], time.monotonic()
        for answer, actor in [*self._waiting.items()]:
            if actor.task is None:
                continue
            assert actor.node is not None
            name = f"{self._queue.name(actor.task)} on {self._health[actor.node].name}"
            if self._slow.is_over(actor, name, now - actor.leased):
                del self._waiting[answer]
                outcomes.append(self._handle_death(actor, SlowTaskError(describe_slow_task(self._config.task_minutes))))
        return [outcome for outcome in outcomes if outcome is not None]

    def _fit_to_tasks(self, busy: int) -> None:
        """Start actors while there are tasks for them, and end those for which no task remains."""
        members = self._members
        reserved = sum(actor.upcoming is not None for actor in self._waiting.values())
        if self._queue.is_empty():
            for actor in [actor for actor in self._idle if not self._lone.has_claimed(actor)]:
                self._remove(actor)
            self._idle = [actor for actor in self._idle if actor in self._members.actors]
            starting = [actor for actor in members.actors if not actor.is_ready]
            for actor in starting[: max(len(members.actors) - busy - reserved, 0)]:
                members.remove(actor)
        missing = members.target() - len(members.actors)
        if missing <= 0:
            return
        # actors that are still idle may not take any of the tasks that are waiting
        wanted = busy + reserved + self._queue.count(missing + len(members.actors)) + len(self._idle)
        returned = self._queue.returned
        first = self._attempts.get(self._queue.name(returned[0])) if returned and self._idle else None
        avoided = set() if first is None else first.tried
        self._waiting.update(members.start(wanted - len(members.actors), avoided))

    def _lease(self, actor: Member[T]) -> bool:
        """Lease the next task to an actor, and reserve the one after it; False if there is none for it."""
        if not self._may_work(actor):
            self._return_reserved(actor)
            return False
        if self._lone.keeps_out(actor):
            self._return_reserved(actor)
            return self._free_memory(actor)
        if actor.upcoming is not None:
            actor.task, actor.upcoming = actor.upcoming, None
        else:
            actor.task = self._next_task(actor)
        if actor.task is None:
            self._hold(actor)
            return False
        name = self._queue.name(actor.task)
        is_lone = name in self._lone
        if is_lone:
            self._lone.claim(actor)
            if not self._lone.is_alone(actor, self._members.actors):  # the others of its GPU free it
                actor.task, actor.upcoming = None, actor.task
                self._hold(actor)
                return False
        actor.group, actor.has_freed = self._queue.group(actor.task), False
        self._hold(actor)
        if not is_lone:
            actor.upcoming = self._queue.next(actor.group, self._held, lambda task: self._may_follow(task, actor))
            self._hold(actor)
        actor.leased = time.monotonic()
        method = actor.handle.run_alone if is_lone else actor.handle.run
        if self._num_named < MAX_NAMES:
            self._num_named += 1
            method = method.options(name=name)
        answer = method.remote(actor.task) if is_lone else method.remote(actor.task, actor.upcoming)
        self._waiting[answer] = actor
        return True

    def _free_memory(self, actor: Member[T]) -> bool:
        """Let an idle actor free what it has cached on its GPU; False if it has."""
        self._hold(actor)
        if actor.has_freed:
            return False
        self._waiting[actor.handle.free_memory.remote()] = actor
        return True

    def _next_task(self, actor: Member[T]) -> T | None:
        task = self._queue.next(actor.group, self._held, lambda task: self._is_allowed(task, actor))
        if task is None:  # take a task that is reserved for a busy actor
            for other in self._waiting.values():
                if other.upcoming is not None and self._is_allowed(other.upcoming, actor):
                    task, other.upcoming = other.upcoming, None
                    self._hold(other)
                    break
        return task

    def _hold(self, actor: Member[T]) -> None:
        """Note the groups of an actor's tasks, which other actors leave to it."""
        self._held.subtract(actor.held)
        actor.held = [self._queue.group(task) for task in (actor.task, actor.upcoming) if task is not None]
        self._held.update(actor.held)
        for group in [group for group, num in self._held.items() if num <= 0]:
            del self._held[group]

    def _return_reserved(self, actor: Member[T]) -> None:
        """Put the task that is reserved for an actor back into the queue, with its claim to a GPU."""
        self._lone.release(actor)
        if actor.upcoming is not None:
            self._queue.returned.appendleft(actor.upcoming)
            actor.upcoming = None

    def _remove(self, actor: Member[T]) -> None:
        """End an actor that has no task."""
        self._return_reserved(actor)
        self._hold(actor)
        self._members.remove(actor)

    def _ready_nodes(self) -> set[str]:
        """Return the nodes with workers that take new tasks."""
        ready = {actor.node for actor in self._members.actors if actor.node is not None}
        fit = {node for node in ready if not self._health[node].streak.is_long and not self._is_draining(node)}
        return fit or ready

    def _is_draining(self, node: str) -> bool:
        found = self._members.nodes.get(node)
        return found is not None and found.is_draining

    def _may_work(self, actor: Member[T]) -> bool:
        """Whether an actor takes tasks: not while it waits for a judgement, or on a node that is about to go away."""
        assert actor.node is not None
        health = self._health[actor.node]
        waits = actor.streak.is_long or health.streak.is_long
        if not waits and not self._is_draining(actor.node):
            return True
        others = self._ready_nodes()
        if not waits:  # nodes that all go away wait for none of each other
            others = {node for node in others if not self._is_draining(node)}
        return not better_nodes((others | self._members.coming_nodes()) - {actor.node}, self._health)

    def _other_nodes(self, attempts: Attempts) -> set[str]:
        """Return the nodes that can take a failed task and have not tried it, or will soon have a worker for it."""
        nodes = self._ready_nodes()
        if time.monotonic() - attempts.first_failed < PATIENCE_SECONDS:
            nodes |= self._members.usable_nodes()
        return nodes - attempts.tried

    def _is_allowed(self, task: T, actor: Member[T]) -> bool:
        """Whether a task may run on an actor's node: if it failed before, another node comes first."""
        attempts = self._attempts.get(self._queue.name(task))
        if attempts is None:
            return True
        others = self._other_nodes(attempts)
        if actor.node in attempts.tried:
            return not others
        better = better_nodes(others, self._health)
        return not better or actor.node in better

    def _may_follow(self, task: T, actor: Member[T]) -> bool:
        """Whether a task may be reserved for an actor that is busy: one that has to run alone takes the next free."""
        return self._queue.name(task) not in self._lone and self._is_allowed(task, actor)

    def _take_answer(self, answer: Any) -> Outcome[T] | None:
        """Handle the answer of an actor; return the outcome of its task if that has ended."""
        actor = self._waiting.pop(answer)
        if actor not in self._members.actors:  # it was removed
            return None
        try:
            result = self._ray.get(answer)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, BaseException) else error
            return self._handle_exception(actor, cause, _COLORS.sub("", str(error)))
        except self._ray.exceptions.RayError as error:  # node death, kill, out of memory, a lost answer
            return self._handle_death(actor, error)
        if not actor.is_ready:
            self._members.count_ready(actor, result)
            self._idle.append(actor)
            return None
        if actor.task is None:
            actor.has_freed = True
            self._idle.append(actor)
            return None
        return self._handle_success(actor, result)

    def _handle_success(self, actor: Member[T], answer: Answer) -> Outcome[T]:
        task, node = actor.task, actor.node
        assert task is not None and node is not None
        actor.task = None
        self._lone.release(actor)
        self._slow.finish(actor, time.monotonic() - actor.leased)
        name = self._queue.name(task)
        self._relay.send(self._health[node].name, answer.warnings)
        attempts = self._attempts.pop(name, None)
        self._lone.discard(name)
        actor.streak.clear()
        self._health[node].count_success()
        if attempts is not None:
            for other in attempts.tried - {node}:
                self._blame(other, name)
        self._queue.finish(task)
        if not self._lease(actor):  # so that the actor works while the caller handles the outcome
            self._idle.append(actor)
        num_failures = 0 if attempts is None else len(attempts.failures)
        return Outcome(task, answer.result, None, num_failures + 1, None, self._health[node].name)

    def _handle_exception(self, actor: Member[T], error: BaseException, trace: str) -> Outcome[T] | None:
        """Count a failed attempt of an actor that is still alive, or one whose worker could not be created."""
        if not actor.is_ready:
            self._members.count_failed_start(actor, error, has_died=False)
            return None
        if actor.task is None:  # it could not free its memory
            self._remove(actor)
            return None
        outcome = self._count_failure(actor, error, trace)
        if actor not in self._members.actors:  # it was retired
            return outcome
        if isinstance(error, BrokenProcessError):
            self._remove(actor)  # another is started in its place
        else:
            self._idle.append(actor)
        return outcome

    def _handle_death(self, actor: Member[T], error: BaseException) -> Outcome[T] | None:
        """Count a failed attempt of an actor that died; another is started in its place."""
        if not actor.is_ready:
            self._members.count_failed_start(actor, error, has_died=True)
            return None
        assert actor.node is not None
        if actor.task is None:  # it was about to free its memory
            self._remove(actor)
            return None
        is_preempted = getattr(error, "preempted", False) or self._is_draining(actor.node)
        self._members.refresh(soon=True)
        outcome = self._count_failure(actor, error, is_preempted=is_preempted)
        self._remove(actor)
        return outcome

    def _count_failure(
        self, actor: Member[T], error: BaseException, trace: str | None = None, *, is_preempted: bool = False
    ) -> Outcome[T] | None:
        """Return the task to the queue for another attempt, or return its outcome if the failure is final."""
        task, actor.task, node = actor.task, None, actor.node
        assert task is not None and node is not None
        self._lone.release(actor)
        name = self._queue.name(task)
        failure = classify_failure(error, trace)
        if isinstance(error, NodeDiskFullError) and len(self._members.capable_nodes()) <= 1:
            raise DiskFull(f"{failure.reason}; finished work is kept: free some space") from None
        attempts = self._attempts.setdefault(name, Attempts(first_failed=time.monotonic()))
        if is_preempted and attempts.num_preemptions < MAX_PREEMPTIONS:
            attempts.num_preemptions += 1
            self._on_retry(task, replace(failure, reason=f"its node went away ({failure.reason})"))
            self._queue.returned.append(task)
            return None
        attempts.failures.append((node, failure))
        if isinstance(error, GpuMemoryError):  # the fault of those beside it, or of the task, but not of the node
            self._lone.add(name)
        else:
            self._judge(actor, task, attempts, failure)
        attempts.tried.add(node)
        if attempts.is_final(self._config.attempts, self._health, self._other_nodes(attempts)):
            del self._attempts[name]
            self._lone.discard(name)
            self._queue.finish(task)
            return self._failed(task, failure, len(attempts.failures), node)
        if name in self._lone:
            failure = replace(failure, reason=f"{failure.reason}; it waits until it is alone on a GPU")
        self._on_retry(task, failure)
        self._queue.returned.append(task)
        self._retire_if_blamed(node)
        return None

    def _failed(self, task: T, failure: Failure, num_attempts: int, node: str) -> Outcome[T]:
        return Outcome(
            task, None, failure.reason, num_attempts, failure.traceback, self._health[node].name, failure.kind
        )

    def _judge(self, actor: Member[T], task: T, attempts: Attempts, failure: Failure) -> None:
        """Count a failed task against its node, unless a sound node failed it: then the task is at fault."""
        assert actor.node is not None
        name, health = self._queue.name(task), self._health[actor.node]
        if attempts.tried - {actor.node} and health.is_sound:
            for node in attempts.tried:
                for streak in self._streaks(node):
                    streak.groups.pop(name, None)
            return
        if any(self._health[node].is_sound for node in attempts.tried - {actor.node}):
            return
        for streak in (actor.streak, health.streak):
            streak.add(name, self._queue.group(task), failure.reason)

    def _streaks(self, node: str) -> list[Streak]:
        actors = [actor.streak for actor in self._members.actors if actor.node == node]
        return [self._health[node].streak, *actors]

    def _blame(self, node: str, name: str) -> None:
        """Count it against a node that a task that failed there has succeeded on another."""
        for streak in self._streaks(node):
            streak.is_blamed |= name in streak.groups
        self._retire_if_blamed(node)

    def _retire_if_blamed(self, node: str) -> None:
        """End the workers of a node that fail what others can do, and do not count the attempts that it has used up."""
        guilty = [streak for streak in self._streaks(node) if streak.is_long and streak.is_blamed]
        if not guilty:
            return
        for attempts in self._attempts.values():
            attempts.forgive(node)
        for actor in self._members.retire(node, guilty[-1].reason):
            if actor.task is not None:
                self._queue.returned.append(actor.task)
                actor.task = None
            self._remove(actor)
        self._idle = [actor for actor in self._idle if actor in self._members.actors]
