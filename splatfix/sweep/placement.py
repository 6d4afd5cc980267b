"""Which nodes of a cluster a trial keeps away from, and how long trials wait for a node. Nothing here imports Ray."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from splatfix.errors import RunAborted
from splatfix.workers import WorkersConfig
from splatfix.workers.cluster import node_capacity

log = logging.getLogger(__name__)

NOTICE_SECONDS = 60.0  # without a trial that runs, before a message


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
        self._has_warned = False

    def check(self, *, num_waiting: int, num_running: int) -> None:
        """Note how many trials wait and run now. RunAborted if none has run for too long."""
        now = self._clock()
        if num_running or not num_waiting:
            self._since, self._has_warned = None, False
            return
        self._since = now if self._since is None else self._since
        waited = now - self._since
        if waited > 60 * self._minutes:
            raise RunAborted(
                f"for {waited / 60:.0f} minutes no node had room for a trial ({self._needs}): nodes are lost, busy, or "
                "failed it; ended trials are kept, and the same command resumes (workers.wait_minutes)"
            )
        if waited > NOTICE_SECONDS and not self._has_warned:
            self._has_warned = True
            log.warning("no trial runs: waiting up to %g minutes for a node with %s", self._minutes, self._needs)
