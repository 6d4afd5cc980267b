"""The journal in a run's folder: every record, before anything is sent."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

from splatfix.tracking.limits import MAX_PER_CALL

log = logging.getLogger(__name__)

JOURNAL = "tracking.jsonl"
GATHER_SECONDS = 1.0  # between two batches, and between tries to write
MAX_UNWRITTEN = 100_000  # records that wait in memory for room on the disk


class Journal:
    """Records, one JSON line each, appended whole. What finds no room on the disk waits in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: FileIO | None = None
        self._end = 0
        self._unwritten: deque[bytes] = deque(maxlen=MAX_UNWRITTEN)
        self._has_failed, self._tried = False, 0.0
        self._lock = threading.Lock()

    @property
    def num_unwritten(self) -> int:
        return len(self._unwritten)

    def append(self, record: dict[str, Any]) -> None:
        with self._lock:
            self._unwritten.append(json.dumps(record).encode() + b"\n")
            if not self._has_failed or time.monotonic() - self._tried > GATHER_SECONDS:
                self._write()

    def close(self) -> None:
        """Write what waits, if it can be; the file is opened again for what comes after."""
        with self._lock:
            if self._unwritten:
                self._write()
            if self._file is not None:
                self._file.close()
                self._file = None

    def _write(self) -> None:
        self._tried = time.monotonic()
        try:
            if self._file is None:
                file = self.path.open("ab", buffering=0)
                self._end = _cut_torn_line(self.path)
                self._file = file
            elif self._has_failed:
                self._file.truncate(self._end)
            data = b"".join(self._unwritten)
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if not self._has_failed:
                log.warning("tracking: %s: %s; what is noted waits in memory", self.path, error.strerror)
            self._has_failed = True
        else:
            self._end += len(data)
            self._unwritten.clear()
            self._has_failed = False


def batches(path: Path, offset: int) -> Iterator[tuple[str, list[dict[str, Any]], int]]:
    """Records of a journal in order: their kind, some that go together, and where they end. Torn lines are left out."""
    kind, num, end = "", 0, offset
    records: list[dict[str, Any]] = []
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if isinstance(record, dict) and "kind" in record:
                size = len(record.get("values", ()))
                if records and (record["kind"] != kind or num + size > MAX_PER_CALL.get(kind, -1)):
                    yield kind, records, end
                    records, num = [], 0
                kind = record["kind"]
                records.append(record)
                num += size
            end += len(line)
    if records:
        yield kind, records, end


def ended_as(folder: Path) -> str | None:
    """The status that was noted last, where nothing came after it: all that there is to say was said; else None."""
    last = None
    for _, records, _ in batches(Path(folder) / JOURNAL, 0):
        last = records[-1]
    return last["status"] if last is not None and last["kind"] == "end" else None


def _cut_torn_line(path: Path) -> int:
    """Cut what a crash left of a line at the end of a journal; the size that remains."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            end = start + newline + 1
            if newline >= 0:
                break
        file.truncate(end)
    return end
