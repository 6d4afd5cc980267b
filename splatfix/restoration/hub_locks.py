"""Waits for other processes that download the same file of the Hugging Face Hub: said, and bounded."""

from __future__ import annotations

import logging
import re
import time
from functools import lru_cache

log = logging.getLogger(__name__)

LOGGER = "huggingface_hub.utils._fixes"  # says every 10 s that its client waits for a lock; silent as long as at INFO
WAITING = re.compile(r"waiting to acquire lock on (?P<file>.+) \(elapsed: (?P<seconds>[\d.]+) seconds\)")
WAIT_SECONDS = 10_800.0  # for one file; the largest, of some 24 GB, takes three hours at 2 MB/s
NOTICE_SECONDS = 9.0  # between messages: each of several threads waits


class HubLockError(OSError):
    """Another process has held the lock of a file of the Hub for `WAIT_SECONDS`."""


@lru_cache(maxsize=1)
def watch_hub_locks() -> None:
    """Show the waits of the Hub's client from now on, and end those of more than `WAIT_SECONDS` by a HubLockError.

    The client has no limit that could be set. It reports each wait to a logger, and an error of a logger's filter ends
    the wait.
    """
    logger = logging.getLogger(LOGGER)
    logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
    logger.addFilter(_Watch())


class _Watch(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._noticed = -NOTICE_SECONDS

    def filter(self, record: logging.LogRecord) -> bool:
        match = WAITING.search(record.getMessage())
        if match is None:
            return record.levelno > logging.INFO
        file, seconds = match["file"], float(match["seconds"])
        if seconds > WAIT_SECONDS:
            raise HubLockError(
                f"another process has downloaded the same file for {seconds:.0f} s; is it stopped? End it, or delete "
                f"its lock {file} if nothing downloads"
            )
        if time.monotonic() - self._noticed >= NOTICE_SECONDS:
            self._noticed = time.monotonic()
            log.info(
                "waiting for another process that downloads the same file of the Hugging Face Hub: %.0f s of up to "
                "%.0f s (lock %s)",
                *(seconds, WAIT_SECONDS, file),
            )
        return False
