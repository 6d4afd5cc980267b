"""What is known of the health of nodes, and of the failed attempts at tasks: who is at fault, the node or the task.

A node proves itself by a task that succeeds. A task that failed on one node is tried on another: if it succeeds there,
the first node is at fault; if a node that has proved itself fails, too, the task is. A worker whose last tasks all
failed waits for this judgement before it gets new tasks, and leaves the pool if its node is at fault.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass, field

from splatfix.workers.failures import Failure

MAX_STREAK = 3  # tasks that a worker or node fails in a row before it has to wait
MAX_FAILED_STARTS = 5  # in a row on each node, before no more workers are started if none is ready
START_PAUSES = (1.0, 60.0)  # seconds without new workers on a node, after its first failed start and at most
RETIREMENT_PAUSES = (60.0, 1800.0)  # as above, after workers of the node were retired or refused to work
MAX_PREEMPTIONS = 10  # of one task, that cost no attempt


@dataclass
class Streak:
    """Tasks that a worker or node has failed since its last success, except those that a sound node failed, too."""

    groups: dict[str, Hashable] = field(default_factory=dict)
    is_blamed: bool = False  # one of the tasks succeeded on another node
    reason: str = ""  # of the last failure

    def add(self, name: str, group: Hashable, reason: str) -> None:
        """Add a failed task; tasks of one group count once."""
        self.groups[name] = name if group is None else group
        self.reason = reason

    def clear(self) -> None:
        """Start again, after a success."""
        self.groups.clear()
        self.is_blamed = False

    @property
    def is_long(self) -> bool:
        """Whether new tasks have to wait for a judgement."""
        return len(set(self.groups.values())) >= MAX_STREAK


@dataclass
class NodeHealth:
    """The health of one node.

    Attributes:
        has_proved: whether a task has succeeded since workers of the node were last retired.
        num_failed_starts: in a row; workers that start at the same time count once.
        refusal: the error of the last worker that could not be created; None if it died or was created.
        reason: of the last failed start.
        num_retirements: how often workers were retired or refused to work.
    """

    name: str
    has_proved: bool = False
    streak: Streak = field(default_factory=Streak)
    paused_until: float = 0.0
    num_failed_starts: int = 0
    refusal: Exception | None = None
    reason: str = ""
    num_retirements: int = 0

    def count_failed_start(self, reason: str, now: float) -> float | None:
        """Count a worker that died before it was ready; return the seconds of the pause, None during a pause."""
        self.reason, self.refusal = reason, None
        if now < self.paused_until:
            return None
        seconds = min(START_PAUSES[0] * 2**self.num_failed_starts, START_PAUSES[1])
        self.num_failed_starts += 1
        self.paused_until = now + seconds
        return seconds

    def count_refusal(self, error: Exception, reason: str, now: float) -> float | None:
        """Count a worker that could not be created; return the seconds of the pause, None during a pause."""
        is_new = now >= self.paused_until or self.refusal is None
        self.reason, self.refusal = reason, error
        return self.retire(now) if is_new else None

    def retire(self, now: float) -> float:
        """Pause the node because its workers are of no use; return the seconds of the pause."""
        seconds = min(RETIREMENT_PAUSES[0] * 2**self.num_retirements, RETIREMENT_PAUSES[1])
        self.num_retirements += 1
        self.paused_until = now + seconds
        self.has_proved = False
        self.streak.clear()
        return seconds

    def count_start(self) -> None:
        """Count a worker that is ready."""
        self.num_failed_starts, self.refusal, self.reason = 0, None, ""

    def count_success(self) -> None:
        """Count a task that succeeded."""
        self.has_proved = True
        self.streak.clear()

    @property
    def is_useless(self) -> bool:
        """Whether no further worker needs to be tried if no other node has one that is ready."""
        return self.refusal is not None or self.num_failed_starts >= MAX_FAILED_STARTS

    @property
    def is_sound(self) -> bool:
        """Whether a task that fails here is most likely at fault itself."""
        return self.has_proved and not self.streak.is_long

    @property
    def is_doubtful(self) -> bool:
        """Whether the node has failed tasks, and has not proved itself since."""
        return not self.is_sound and bool(self.streak.groups)


@dataclass
class Attempts:
    """The failed attempts at a task that has not ended.

    Attributes:
        failures: node and failure of each attempt that counts.
        tried: nodes that failed the task, also in attempts that do not count.
        first_failed: time of the first failure.
    """

    failures: list[tuple[str, Failure]] = field(default_factory=list)
    tried: set[str] = field(default_factory=set)
    first_failed: float = 0.0
    num_preemptions: int = 0

    def forgive(self, node: str) -> None:
        """Do not count the attempts of a node that is at fault."""
        self.failures = [(where, failure) for where, failure in self.failures if where != node]

    def is_final(self, max_attempts: int, health: dict[str, NodeHealth], others: Collection[str]) -> bool:
        """Whether the last failure is final.

        That is the case if no attempt remains, or if two nodes (or the only one) say that the content is at fault. As
        long as only doubtful nodes have failed the task, it is tried on each node that is better, too. ``others`` are
        the nodes that have not tried it and can.
        """
        blamers = {node for node, failure in self.failures if failure.kind == "content"}
        agrees = len(blamers) > 1 or (blamers == self.tried and not others)
        if not agrees and len(self.failures) < max_attempts:
            return False
        return any(health[node].is_sound for node in self.tried) or not better_nodes(others, health)


def better_nodes(nodes: Iterable[str], health: dict[str, NodeHealth]) -> list[str]:
    """Return those of these nodes that are not doubtful."""
    return [node for node in nodes if not health[node].is_doubtful]
