"""Read the photos of many views: fetch, check, or keep them in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from splatfix.captures.capture import Capture, Photo, View
from splatfix.captures.photos import PhotoFile
from splatfix.process import progress

QUIET_PHOTOS = 50  # below which photos are read or checked without a progress bar
MAX_KEPT_BYTES = 2**28  # of photos of a capture in memory; further ones are read when they are needed


def fetch_photos(views: Iterable[View]) -> None:
    """Fetch the photos of views together, which is faster than one by one where a capture is on an object store."""
    loads = [view.load for view in views if isinstance(view.load, PhotoFile)]
    if loads:
        loads[0].files.fetch([path for load in loads for path in load.paths])


def check_photos(views: Sequence[View]) -> None:
    """Decode the photos and masks of views without keeping them, so that a broken file is found before a long run.

    Raises:
        ValueError: a file is missing, truncated or not an image, or a mask ignores every pixel.
    """
    fetch_photos(views)
    files = [view.load for view in views if isinstance(view.load, PhotoFile)]
    with progress(total=len(files), description="photos checked", quiet=len(files) < QUIET_PHOTOS) as bar:
        for file in files:
            file.check()
            bar.update()


@dataclass(frozen=True)
class PhotoInMemory:
    """The ``load`` of a view whose photo is in memory."""

    photo: Photo

    def __call__(self) -> Photo:
        return self.photo


def keep_photos(views: Sequence[View], *, quiet: bool = False) -> tuple[View, ...]:
    """Read the photo files of views into memory up to `MAX_KEPT_BYTES`; the other views still read theirs on demand.

    Raises:
        ValueError: a file is broken, or a mask ignores every pixel.
    """
    num, remaining_bytes = 0, MAX_KEPT_BYTES
    for view in views:
        remaining_bytes -= view.camera.width_px * view.camera.height_px * 16
        num += remaining_bytes >= 0
    fetch_photos(views[:num])
    kept = []
    with progress(total=num, description="photos read", quiet=quiet or num < QUIET_PHOTOS) as bar:
        for view in views[:num]:
            is_file = isinstance(view.load, PhotoFile)
            kept.append(View(view.camera, PhotoInMemory(view.load())) if is_file else view)
            bar.update()
    return *kept, *views[num:]


def read_ahead(capture: Capture, names: Sequence[str]) -> Capture:
    """Read the named photos before a long run that needs them at its end, and keep them up to `MAX_KEPT_BYTES`.

    Raises:
        ValueError: a file is missing, truncated or not an image, or a mask ignores every pixel.
    """
    kept = keep_photos([capture.view(name) for name in names])
    check_photos(kept)  # those beyond the limit
    by_name = {view.name: view for view in kept}
    return replace(capture, views=tuple(by_name.get(view.name, view) for view in capture.views))
