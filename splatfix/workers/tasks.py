"""The protocol of workers, and the outcome of a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from splatfix.workers.failures import FailureKind

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
        kind: of the failure of the last attempt, if it failed.
    """

    task: T
    result: Any = None
    error: str | None = None
    attempts: int = 1
    traceback: str | None = None
    node: str | None = None
    kind: FailureKind | None = None
