"""The journal in a run's folder, to which every record is written before it is sent."""

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

from splatfix.files import parse_json
from splatfix.tracking.limits import MAX_PER_CALL

log = logging.getLogger(__name__)

JOURNAL = "tracking.jsonl"
GATHER_SECONDS = 1.0  # between two batches, and between tries to write
MAX_UNWRITTEN = 100_000  # records that wait in memory while the disk is full


class Journal:
    """Records, one JSON line each, appended whole. While the disk is full, they wait in memory."""

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
        """Write waiting records, if possible, and close the file; a later record opens it again."""
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
                log.warning("tracking: %s: %s; records wait in memory", self.path, error.strerror)
            self._has_failed = True
        else:
            self._end += len(data)
            self._unwritten.clear()
            self._has_failed = False


def batches(path: Path, offset: int) -> Iterator[tuple[str, list[dict[str, Any]], int]]:
    """Yield the records of a journal in order, in batches: (kind, records, offset of their end). Skips torn lines."""
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
                record = parse_json(line, str(path))
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


def end_status(folder: Path) -> str | None:
    """The status with which a run ended; None where its end is not the last record of the journal."""
    last = None
    for _, records, _ in batches(Path(folder) / JOURNAL, 0):
        last = records[-1]
    return last["status"] if last is not None and last["kind"] == "end" else None


def tracked_values(folder: Path, name: str) -> dict[int, float]:
    """The values of a metric by step, of the journal in a run's folder; the last one where a step was repeated."""
    values = {}
    for kind, records, _ in batches(Path(folder) / JOURNAL, 0):
        if kind == "metrics":
            values.update({record["step"]: record["values"][name] for record in records if name in record["values"]})
    return dict(sorted(values.items()))


def _cut_torn_line(path: Path) -> int:
    """Cut an unfinished line off the end of a journal, as a crash leaves it; returns the size that remains."""
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
