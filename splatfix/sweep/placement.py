"""Which nodes a trial keeps away from, how long trials wait for one, and how long a round may take. Imports no Ray."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from splatfix.errors import RunAborted
from splatfix.workers import WorkersConfig
from splatfix.workers.cluster import node_capacity
from splatfix.workers.slow_tasks import SlowTasks

log = logging.getLogger(__name__)

NOTICE_SECONDS = 60.0  # without a trial that runs, before a message
REPEAT_SECONDS = 600.0  # between two such messages


def avoidable_nodes(
    nodes: Sequence[Mapping[str, Any]], avoided: set[str], workers: WorkersConfig, gpus: float
) -> list[str]:
    """The living nodes to avoid; none where no other node can have a trial at all.

    Args:
        nodes: as `ray.nodes` describes them.
        avoided: their ids.
        workers: what a trial needs.
        gpus: GPUs of a trial.
    """
    fit = {
        node["NodeID"]
        for node in nodes
        if node["Alive"] and node_capacity(node["Resources"], node.get("Labels") or {}, workers, gpus) > 0
    }
    return sorted(avoided & fit) if fit - avoided else []


class BoundedWait:
    """Ends a sweep in which trials wait and none runs: no node has room, or the trials avoid all that have.

    Args:
        minutes: after which it does, as `WorkersConfig.wait_minutes`.
        resources: that a trial needs.
        clock: seconds.
    """

    def __init__(
        self, minutes: float, resources: Mapping[str, float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._minutes, self._clock = minutes, clock
        self._needs = ", ".join(f"{each:g} {name}" for name, each in resources.items() if each)
        self._since: float | None = None
        self._next_notice = NOTICE_SECONDS

    def check(self, *, num_waiting: int, num_running: int) -> None:
        """Note how many trials wait and run now. RunAborted if none has run for too long."""
        now = self._clock()
        if num_running or not num_waiting:
            self._since, self._next_notice = None, NOTICE_SECONDS
            return
        self._since = now if self._since is None else self._since
        waited = now - self._since
        if waited > 60 * self._minutes:
            raise RunAborted(
                f"for {waited / 60:.0f} minutes no node had room for a trial ({self._needs}): nodes are lost, busy, or "
                "failed it; ended trials are kept, and the same command resumes (workers.wait_minutes)"
            )
        if waited > self._next_notice:
            self._next_notice += REPEAT_SECONDS
            log.warning(
                "no trial has run for %.0f minutes: waiting up to %g minutes for a node with %s",
                *(waited / 60, self._minutes, self._needs),
            )


class SlowRounds:
    """Finds the trials that take longer for a round than they may.

    Attributes:
        ended: ids of those that were found.
    """

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._slow, self._clock = SlowTasks(minutes), clock
        self._started: dict[str, tuple[int, float]] = {}  # by id: the number of rounds, and since when it is that
        self.ended: set[str] = set()

    def is_over(self, trial_id: str, name: str, num_rounds: int | None) -> bool:
        """Note how many rounds a trial has had (None: it does not run); True, once, if the next one takes too long."""
        if num_rounds is None:
            self._started.pop(trial_id, None)
            return False
        now = self._clock()
        known, since = self._started.setdefault(trial_id, (num_rounds, now))
        if known != num_rounds:
            self._slow.finish(trial_id, now - since)
            self._started[trial_id] = num_rounds, now
            return False
        if trial_id in self.ended or not self._slow.is_over(trial_id, name, now - since):
            return False
        self.ended.add(trial_id)
        return True
