"""Follow the log of a job until it ends; in a terminal, progress bars stay one line each."""

from __future__ import annotations

import asyncio
import logging
import queue
import re
import sys
import threading
import time
from typing import Any

from splatfix.submission.cluster import Cluster, JobInfo

log = logging.getLogger(__name__)

PROGRESS = re.compile(r"[^|]*\d+%\|.*\|\s*\d+\S*/\d+\S* \[.*\].*|[^|]*: \d+\S*(it)? \[\d\d:\d\d.*\].*")  # of tqdm
QUIET_SECONDS = 10.0  # without a line of the log, after which the job's status is asked for
RECONNECT_SECONDS = 300.0  # without an answer, after which following is given up
PAUSE_SECONDS = 3.0  # before the next attempt to connect
PENDING_SECONDS = 60.0  # between two messages that a job has not started


class LogPrinter:
    """Prints a log to a text stream: every line, but in a terminal the lines of a progress bar replace each other."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._rest = ""  # of a line whose end has not come yet
        self._bar = ""

    def write(self, text: str) -> None:
        """Print a piece of the log."""
        *lines, self._rest = (self._rest + text).replace("\r", "\n").split("\n")
        for line in lines:
            self._print(line)
        self._stream.flush()

    def close(self) -> None:
        """Print the rest, and leave the last progress bar."""
        if self._rest:
            self._print(self._rest)
        if self._bar:
            self._stream.write("\n")
        self._rest = self._bar = ""
        self._stream.flush()

    def _print(self, line: str) -> None:
        if not self._terminal:
            if line.strip():
                self._stream.write(f"{line}\n")
        elif PROGRESS.fullmatch(line):
            self._bar = line
            self._stream.write(f"\r\x1b[2K{line}")
        elif line.strip():
            self._stream.write(f"\r\x1b[2K{line}\n{self._bar}")


def follow_job(cluster: Cluster, job_id: str, stream: Any = None) -> JobInfo:
    """Print the log of a job from its start until it ends. A lost connection is opened again.

    Ray itself gives up a job that does not start (after 15 minutes, RAY_JOB_START_TIMEOUT_SECONDS on the cluster).

    Raises:
        ConnectionError: no answer for `RECONNECT_SECONDS`.
        KeyboardInterrupt: Ctrl-C; the job continues.
    """
    printer = LogPrinter(stream or sys.stdout)
    try:
        return _follow(cluster, job_id, printer)
    finally:
        printer.close()


def _follow(cluster: Cluster, job_id: str, printer: LogPrinter) -> JobInfo:
    num_printed, lost_at, waiting = 0, None, _Waiting()
    info = cluster.job(job_id)
    while True:
        reader = _Reader(cluster, job_id, skip=num_printed)
        reader.start()
        while (piece := reader.next_piece(cluster, job_id, waiting)) is not None:
            printer.write(piece)
            num_printed += len(piece)
            lost_at = None
        try:
            info = cluster.job(job_id)
            if info.has_ended:
                if reader.is_broken:
                    printer.write(_read_rest(cluster, job_id, num_printed))
                return info
            waiting.notice(info)
            waiting.notice_log(info, reader.reason)
            lost_at = None
        except ConnectionError:
            if lost_at is None:
                lost_at = time.monotonic()
                log.warning("%s: the connection is lost; trying again", cluster.address)
            if time.monotonic() - lost_at > RECONNECT_SECONDS:
                raise
        time.sleep(PAUSE_SECONDS)


def _read_rest(cluster: Cluster, job_id: str, num_printed: int) -> str:
    """What the log of an ended job has after so many characters; nothing where its node is gone."""
    try:
        return cluster.log(job_id)[num_printed:]
    except ConnectionError as error:
        log.warning("%s: the end of its log cannot be read (%s)", job_id, error)
        return ""


class _Waiting:
    """Says each `PENDING_SECONDS` that a job has not started, or that its log cannot be read, and why."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._last_unread = -PENDING_SECONDS

    def notice(self, info: JobInfo) -> None:
        if info.status == "PENDING" and time.monotonic() - self._last >= PENDING_SECONDS:
            self._last = time.monotonic()
            log.info("%s: still PENDING: %s", info.id, " ".join(info.message.split())[:300] or "no reason is known")

    def notice_log(self, info: JobInfo, reason: str | None) -> None:
        if reason is not None and time.monotonic() - self._last_unread >= PENDING_SECONDS:
            self._last_unread = time.monotonic()
            log.warning("%s: is %s, but its log cannot be read (%s); trying again", info.id, info.status, reason)


class _Reader(threading.Thread):
    """Reads the log of a job into a queue, without the ``skip`` characters that are known.

    Attributes:
        is_broken: whether the connection was lost before the end of the log.
        reason: why it was.
    """

    def __init__(self, cluster: Cluster, job_id: str, *, skip: int) -> None:
        super().__init__(daemon=True)
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._cluster, self._job_id, self._skip = cluster, job_id, skip
        self.is_broken = True
        self.reason: str | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._read())
            self.is_broken = False
        except Exception as error:  # of aiohttp, Ray, or the network: it is opened again
            self.reason = " ".join(str(error).split())[:200] or type(error).__name__
        self._pieces.put(None)

    def next_piece(self, cluster: Cluster, job_id: str, waiting: _Waiting) -> str | None:
        """The next piece of the log; None at its end, or where the connection is lost."""
        has_ended = False
        while True:
            try:
                return self._pieces.get(timeout=QUIET_SECONDS)
            except queue.Empty:
                if has_ended:
                    return None
            try:
                info = cluster.job(job_id)
            except ConnectionError:
                return None
            has_ended = info.has_ended  # once more around: the last lines may be under way
            waiting.notice(info)

    async def _read(self) -> None:
        async for piece in self._cluster.tail_log(self._job_id):
            known = min(self._skip, len(piece))
            self._skip -= known
            if len(piece) > known:
                self._pieces.put(piece[known:])
