"""Tasks that take long: each is reported once, and a worker that hangs does not keep its task for ever."""

from __future__ import annotations

import logging
from collections.abc import Hashable

log = logging.getLogger(__name__)

SLOW_SECONDS = 900.0  # that no task is slow before
SLOW_FACTOR = 4.0  # times the longest task so far, after which a task is slow


class SlowTasks:
    """Knows how long tasks took, and which of those that run take longer than they may.

    ``minutes`` is the limit, `WorkersConfig.task_minutes`.
    """

    def __init__(self, minutes: float) -> None:
        self._minutes = minutes
        self._longest = 0.0
        self._reported: set[Hashable] = set()

    def finish(self, key: Hashable, seconds: float) -> None:
        """Note that an attempt has ended, as its worker answered."""
        self._longest = max(self._longest, seconds)
        self._reported.discard(key)

    def is_over(self, key: Hashable, name: str, seconds: float) -> bool:
        """Whether an attempt that has run so long takes longer than it may; logs once that it is slow.

        Args:
            key: of the attempt.
            name: of its task and its node, for the message.
            seconds: since it started.
        """
        if seconds >= 60 * self._minutes:
            self._reported.discard(key)
            return True
        if seconds > max(SLOW_SECONDS, SLOW_FACTOR * self._longest) and key not in self._reported:
            self._reported.add(key)
            longest = f"the longest before took {self._longest / 60:.1f}" if self._longest else "none has ended so far"
            log.warning(
                "%s: at work for %.0f minutes, %s; after %g minutes its worker is ended, and it is tried again "
                "(workers.task_minutes)",
                *(name, seconds / 60, longest, self._minutes),
            )
        return False
