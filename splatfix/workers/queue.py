"""The queue of tasks: which of them a worker takes next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

MAX_AHEAD = 4096  # tasks that are read ahead to find one of another group
T = TypeVar("T")


@dataclass
class TaskQueue(Generic[T]):
    """Pending tasks in order, plus tasks blocked on another. Finished tasks are forgotten.

    Attributes:
        unread: tasks that have not been requested; no more are read than are needed to find one that can start.
        after: returns the name of the task that has to finish before a task starts, or None.
        name: returns the name of a task.
        group: returns what the task shares with others; see `run_tasks`.
        unfinished: names of the tasks that were read and have not finished.
        returned: tasks that are next: they failed an attempt, or were reserved for an actor that died.
        ready: other tasks that can start, by group; no group is empty.
        blocked: tasks by the name of the task that they wait for.
    """

    unread: Iterator[T]
    after: Callable[[T], str | None]
    name: Callable[[T], str]
    group: Callable[[T], Hashable] = lambda _: None
    unfinished: set[str] = field(default_factory=set)
    returned: deque[T] = field(default_factory=deque)
    ready: dict[Hashable, deque[T]] = field(default_factory=dict)
    blocked: dict[str, list[T]] = field(default_factory=dict)
    _num_ready: int = 0
    _is_read: bool = False

    def next(
        self, last: Hashable = None, held: Container[Hashable] = (), is_allowed: Callable[[T], bool] = lambda _: True
    ) -> T | None:
        """Return a task that can start; None if there is none at the moment.

        Args:
            last: the group of the worker's last task, which it takes first.
            held: groups of other workers, which it takes last.
            is_allowed: whether this worker may take a task that was returned.
        """
        for position, task in enumerate(self.returned):
            if is_allowed(task):
                del self.returned[position]
                return task
        if last not in self.ready:
            while all(group in held for group in self.ready) and self._num_ready < MAX_AHEAD and self._read():
                pass
        if not self.ready:
            return None
        free = (group for group in self.ready if group not in held)
        group = last if last in self.ready else next(free, next(iter(self.ready)))
        self._num_ready -= 1
        task = self.ready[group].popleft()
        if not self.ready[group]:
            del self.ready[group]
        return task

    def count(self, limit: int) -> int:
        """Count the tasks that are waiting, blocked ones too; reads on until there are ``limit``."""
        while (num := self._num_waiting()) < limit and self._read():
            pass
        return num

    def is_empty(self) -> bool:
        """Whether no task is waiting, so that none remains for a worker that is idle."""
        return self.count(1) == 0

    def finish(self, task: T) -> None:
        """Forget a task that succeeded or failed for good, and release the tasks that were blocked on it."""
        name = self.name(task)
        self.unfinished.discard(name)
        for released in reversed(self.blocked.pop(name, [])):
            self.ready.setdefault(self.group(released), deque()).appendleft(released)
            self._num_ready += 1

    def _num_waiting(self) -> int:
        return len(self.returned) + self._num_ready + sum(map(len, self.blocked.values()))

    def _read(self) -> bool:
        """Read a task, whether it can start or not; False if none is left."""
        if self._is_read:
            return False
        for task in self.unread:
            self.unfinished.add(self.name(task))
            required = self.after(task)
            if required is not None and required in self.unfinished:
                self.blocked.setdefault(required, []).append(task)
            else:
                self.ready.setdefault(self.group(task), deque()).append(task)
                self._num_ready += 1
            return True
        self._is_read = True
        return False
