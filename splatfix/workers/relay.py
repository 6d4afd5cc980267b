"""Warnings of workers, shown by the driver: each once, and not more than a few a minute."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

MAX_WARNINGS = 10  # in a minute
MAX_REMEMBERED = 1000  # messages, so that each is shown once
log = logging.getLogger(__name__)


class WarningRelay:
    """Logs the warnings that workers sent with their answers."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._minute, self._num_logged, self._num_dropped = 0.0, 0, 0

    def send(self, node: str, messages: Iterable[str]) -> None:
        """Log the messages of a worker that are new."""
        for message in messages:
            if message in self._seen:
                continue
            if time.monotonic() - self._minute >= 60:
                self._minute, self._num_logged = time.monotonic(), 0
                if self._num_dropped:
                    log.warning("%d more warnings are in the logs of the workers", self._num_dropped)
                    self._num_dropped = 0
            if self._num_logged >= MAX_WARNINGS:
                self._num_dropped += 1
                continue
            if len(self._seen) < MAX_REMEMBERED:
                self._seen.add(message)
            self._num_logged += 1
            log.warning("%s: %s", node, message)
