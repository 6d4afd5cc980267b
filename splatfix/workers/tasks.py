"""The protocol of workers, the outcome of a task, and the queue that orders the tasks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


@runtime_checkable
class Worker(Protocol):
    """Does tasks, one after another. Each process creates its worker once."""

    def run(self, task: Any, upcoming: Any | None) -> Any:
        """Do a task; ``upcoming`` is most likely the next one, and may be prepared meanwhile."""
        ...


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """The outcome of a task: its result, or the error of its last attempt.

    Attributes:
        error: the reason in one line; None if the task succeeded.
        attempts: number of attempts, including the last.
        traceback: of the last attempt, if it failed.
        node: the name or address of the node of the last attempt; None in this process.
    """

    task: T
    result: Any = None
    error: str | None = None
    attempts: int = 1
    traceback: str | None = None
    node: str | None = None


@dataclass
class TaskQueue(Generic[T]):
    """Pending tasks in order, plus tasks blocked on another. Finished tasks are forgotten.

    Attributes:
        unread: tasks that have not been requested; they are read one at a time.
        after: returns the name of the task that has to finish before a task starts, or None.
        name: returns the name of a task.
        unfinished: names of the tasks that were read and have not finished.
        returned: tasks that are next: they were blocked, failed an attempt, or were reserved for an actor that died.
        blocked: tasks by the name of the task that they wait for.
    """

    unread: Iterator[T]
    after: Callable[[T], str | None]
    name: Callable[[T], str]
    unfinished: set[str] = field(default_factory=set)
    returned: deque[T] = field(default_factory=deque)
    blocked: dict[str, list[T]] = field(default_factory=dict)

    def next(self) -> T | None:
        """Return a task that can start; None if there is none at the moment."""
        if self.returned:
            return self.returned.popleft()
        for task in self.unread:
            self.unfinished.add(self.name(task))
            required = self.after(task)
            if required is None or required not in self.unfinished:
                return task
            self.blocked.setdefault(required, []).append(task)
        return None

    def finish(self, task: T) -> None:
        """Forget a task that succeeded or failed for good, and release the tasks that were blocked on it."""
        name = self.name(task)
        self.unfinished.discard(name)
        self.returned.extend(self.blocked.pop(name, []))
