"""GPUs that are kept free for one task, which ran out of memory beside others.

Workers with a share of a GPU (``workers.gpus: 0.25``) compete for its memory. A task that does not fit into its share
is tried again alone: one worker claims the GPU, the others of that GPU finish their tasks, free what they have cached
and wait until it is done, and the task may use the memory of the whole GPU (`host.WorkerHost.run_alone`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Generic, TypeVar

from splatfix.workers.members import Member

T = TypeVar("T")


class LoneTasks(Generic[T]):
    """Which tasks have to run alone, and which workers have claimed their GPU for one."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._claims: set[Member[T]] = set()

    def add(self, name: str) -> None:
        """Note that a task has to run alone from now on."""
        self._names.add(name)

    def discard(self, name: str) -> None:
        """Forget a task that has ended."""
        self._names.discard(name)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def claim(self, actor: Member[T]) -> None:
        """Keep the GPU of an actor free for it."""
        self._claims.add(actor)

    def release(self, actor: Member[T]) -> None:
        """Give the GPU of an actor back to the others, if it had claimed it."""
        self._claims.discard(actor)

    def has_claimed(self, actor: Member[T]) -> bool:
        """Whether an actor waits for its GPU to be free, or runs a task alone on it."""
        return actor in self._claims

    @property
    def is_waiting(self) -> bool:
        """Whether an actor waits for its GPU to be free."""
        return any(actor.task is None for actor in self._claims)

    def keeps_out(self, actor: Member[T]) -> bool:
        """Whether another actor has claimed the GPU of this one, so that it takes no task."""
        return any(_share_gpu(actor, other) for other in self._claims)

    def is_alone(self, actor: Member[T], actors: Collection[Member[T]]) -> bool:
        """Whether no other of the actors has a task on the GPU of this one, or memory that it has yet to free."""
        return all(other.has_freed for other in actors if _share_gpu(actor, other))


def _share_gpu(actor: Member[T], other: Member[T]) -> bool:
    """Whether two different actors are known to be on the same GPU."""
    return actor is not other and actor.node == other.node and not actor.gpus.isdisjoint(other.gpus)
