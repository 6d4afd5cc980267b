"""Open captures and read their photos ahead of time, in threads."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from splatfix.captures import Capture, PhotoOptions
from splatfix.captures.capture_files import CaptureFiles
from splatfix.captures.photos import PhotoFile
from splatfix.captures.reading import keep_photos
from splatfix.captures.splat_photos import SplatPhoto
from splatfix.errors import MachineError
from splatfix.folder_cache import HEADER_BYTES
from splatfix.pairs.sources import Source
from splatfix.process import log

OPEN_SECONDS = 3600.0  # that a task waits for a capture to be opened and its photos to be read
MESSAGE_SECONDS = 60.0  # between two messages of that wait
MAX_OPEN_CAPTURES = 2  # the one of the current task, and the next
FINGERPRINT_BYTES = HEADER_BYTES  # of each file: there without the rest where a capture is on an object store


class CapturePrefetcher:
    """Opens captures in threads, and keeps the most recent ones open."""

    def __init__(self) -> None:
        self._captures: OrderedDict[tuple[Source, int, PhotoOptions], PrefetchedCapture] = OrderedDict()

    def open(self, source: Source, size_px: int, options: PhotoOptions) -> PrefetchedCapture:
        """Start to open a capture unless it is open already, and close the least recently used one beyond the limit."""
        key = (source, size_px, options)
        if key not in self._captures:
            self._captures[key] = PrefetchedCapture(source, size_px, options)
        self._captures.move_to_end(key)
        while len(self._captures) > MAX_OPEN_CAPTURES:
            self._captures.popitem(last=False)
        return self._captures[key]

    def close(self, capture: PrefetchedCapture) -> None:
        """Close a capture, so that the next call of `open` opens it anew."""
        self._captures = OrderedDict((key, value) for key, value in self._captures.items() if value is not capture)


@dataclass
class PrefetchedCapture:
    """A capture that a thread opens and whose photos it reads."""

    source: Source
    size_px: int
    options: PhotoOptions
    fingerprint: str = ""
    _capture: Capture | None = None
    _error: BaseException | None = None
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._open, daemon=True)
        self._thread.start()

    def wait(self) -> Capture:
        """Return the capture when it is open; raise the error if it could not be opened.

        Raises:
            MachineError: it was not open after `OPEN_SECONDS`, as when its disk does not answer.
        """
        for seconds in count(MESSAGE_SECONDS, MESSAGE_SECONDS):
            self._thread.join(MESSAGE_SECONDS)
            if not self._thread.is_alive():
                break
            if seconds >= OPEN_SECONDS:
                raise MachineError(
                    f"{self.source.url}: its photos could not be read in {OPEN_SECONDS:g} s; check that the disk or "
                    "store answers, and run the same command again"
                )
            log.info("waiting for the photos of %s for %g s (at most %g s)", self.source.url, seconds, OPEN_SECONDS)
        if self._error is not None:
            raise self._error
        assert self._capture is not None
        return self._capture

    def _open(self) -> None:
        try:
            capture = self.source.open(self.size_px, self.options)
            self.fingerprint = fingerprint_capture(capture)
            if capture.splat is None:  # the views of a splat are rendered by the thread that fits
                capture = replace(capture, views=keep_photos(capture.views, quiet=True))
            self._capture = capture
        except BaseException as error:  # raised again by `wait`
            self._error = error


def fingerprint_capture(capture: Capture) -> str:
    """Compute a hash of the photos that does not depend on their names: the least of the hashes of the files."""
    files: dict[Path, CaptureFiles] = {}
    for view in capture.views:
        if isinstance(view.load, PhotoFile | SplatPhoto):
            files[view.load.paths[0]] = view.load.files
    return min((_hash_start(path, among) for path, among in files.items()), default="")


def _hash_start(path: Path, files: CaptureFiles) -> str:
    files.fetch([path], headers=True)
    with path.open("rb") as stream:
        start = stream.read(FINGERPRINT_BYTES)
    return hashlib.sha256(str(files.size(path)).encode() + start).hexdigest()[:16]
