"""Draw the photos of a reference splat: on the device of the run, in batches, and each once.

Photos that were drawn are kept in memory, up to `MAX_KEPT_BYTES` in a process, also for the next run that opens the
same splat. Where one is drawn again, it is the same on the CPU; on another device it differs by float noise.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from splatfix.cameras import Camera
from splatfix.captures.capture import Capture, Photo, View
from splatfix.captures.capture_files import LOCAL, CaptureFiles
from splatfix.captures.photos import WHITE
from splatfix.gaussians import SPLAT_FILE, Splat, make_splat, read_ply_with_notes
from splatfix.images import resize
from splatfix.similarity import IDENTITY, Similarity

MAX_KEPT_BYTES = 2**28  # of photos that were drawn, in memory
BATCH_PX = 2**22  # pixels that are drawn in one call
PHOTO_BYTES = 16  # of a pixel in memory: color and alpha


@dataclass(frozen=True, eq=False)
class SplatPhoto:
    """Draws one photo of a reference splat.

    It is rendered at the camera's original size, or at twice the requested size if that is smaller, and resized down as
    a photo is. ``device`` is where, as torch names it.
    """

    ply: Path
    camera: Camera
    original_size: tuple[int, int]
    files: CaptureFiles = LOCAL  # keeps the copy of a splat on an object store
    file_from_world: Similarity = IDENTITY
    device: str = "cpu"

    @property
    def paths(self) -> list[Path]:
        """The files that are read."""
        return [self.ply]

    @property
    def render_camera(self) -> Camera:
        """The camera at the size that is rendered."""
        width, height = self.camera.width_px, self.camera.height_px
        return self.camera.resize(
            *(self.original_size if self.original_size[0] <= 2 * width else (2 * width, 2 * height))
        )

    def __call__(self) -> Photo:
        """Return the photo, drawn now or earlier. ValueError if the splat can no longer be read."""
        [photo] = draw([self])
        return photo


def draw_on(capture: Capture, device: object, names: Sequence[str] = ()) -> Capture:
    """Have the photos of a reference splat drawn on a device, and draw the named ones at once, in batches.

    ``device`` is a ``torch.device`` or its name. Captures of real photos are returned as they are.

    Raises:
        ValueError: the splat can no longer be read.
    """
    if capture.splat is None:
        return capture
    views = [
        View(view.camera, replace(view.load, device=str(device))) if isinstance(view.load, SplatPhoto) else view
        for view in capture.views
    ]
    capture = replace(capture, views=tuple(views))
    num = MAX_KEPT_BYTES // max(PHOTO_BYTES * view.camera.width_px * view.camera.height_px for view in views)
    loads = [load for name in names if isinstance(load := capture.view(name).load, SplatPhoto)]
    draw(loads[:num])  # the others when they are needed
    return capture


def draw(photos: Sequence[SplatPhoto]) -> list[Photo]:
    """Draw photos of the same splat on the same device, except those that are in memory; returns all of them."""
    keys = [_key(photo) for photo in photos]
    found = {key: drawn for key in keys if (drawn := _DRAWN.get(key)) is not None}
    groups: dict[tuple[int, int], dict[Hashable, SplatPhoto]] = defaultdict(dict)
    for key, photo in zip(keys, photos, strict=True):
        if key not in found:
            camera = photo.render_camera
            groups[camera.width_px, camera.height_px][key] = photo
    for (width, height), missing in groups.items():
        num = max(1, BATCH_PX // (width * height))
        for first in range(0, len(missing), num):
            batch = dict([*missing.items()][first : first + num])
            found.update(zip(batch, _draw_batch([*batch.values()]), strict=True))
    for key, drawn in found.items():
        _DRAWN.keep(key, drawn)
    return [found[key] for key in keys]


def _draw_batch(photos: Sequence[SplatPhoto]) -> list[Photo]:
    """Draw photos that are rendered at the same size. The splat is on the device only meanwhile."""
    import torch

    from splatfix.rendering import render

    first = photos[0]
    splat, _ = read_latest(first.ply, first.file_from_world)
    with torch.no_grad():
        rendering = render(splat.to(first.device), [photo.render_camera for photo in photos], with_depth=False)
        rgb = rendering.rgb.clamp(0, 1).float().cpu().numpy()
        alpha = rendering.alpha.clamp(0, 1).float().cpu().numpy()
    sizes = [(photo.camera.width_px, photo.camera.height_px) for photo in photos]
    return [
        Photo(resize(color, *size), resize(coverage, *size))
        for color, coverage, size in zip(rgb, alpha, sizes, strict=True)
    ]


class _DrawnPhotos:
    """Photos that were drawn, the most recent ones. Threads may share it."""

    def __init__(self) -> None:
        self._photos: OrderedDict[Hashable, Photo] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Photo | None:
        """Return a photo that was drawn; None where it is not in memory."""
        with self._lock:
            return self._photos.get(key)

    def keep(self, key: Hashable, photo: Photo) -> None:
        """Keep a photo, and forget the least recent ones beyond `MAX_KEPT_BYTES`."""
        with self._lock:
            self._num_bytes += 0 if key in self._photos else _count_bytes(photo)
            self._photos[key] = photo
            self._photos.move_to_end(key)
            while self._num_bytes > MAX_KEPT_BYTES:
                self._num_bytes -= _count_bytes(self._photos.popitem(last=False)[1])


_DRAWN = _DrawnPhotos()


def _count_bytes(photo: Photo) -> int:
    return photo.rgb.nbytes + (0 if photo.mask is None else photo.mask.nbytes)


def _key(photo: SplatPhoto) -> Hashable:
    camera = photo.camera
    pose = (camera.camera_from_world.tobytes(), camera.intrinsics.tobytes(), camera.width_px, camera.height_px)
    world = repr(photo.file_from_world)
    return (photo.ply, _file_times(photo.ply), world, pose, photo.original_size, photo.device)


def read_latest(ply: Path, file_from_world: Similarity = IDENTITY) -> tuple[Splat, tuple[str, ...]]:
    """Read a splat and notes on it, cached until its files change; one splat is in memory at a time."""
    return _read_cached(ply, file_from_world, _file_times(ply))


def _file_times(ply: Path) -> tuple[int, ...]:
    files = (ply, ply.parent / SPLAT_FILE)
    return tuple(file.stat().st_mtime_ns if file.is_file() else 0 for file in files)


@lru_cache(maxsize=1)
def _read_cached(
    ply: Path,
    file_from_world: Similarity,
    mtimes_ns: tuple[int, ...],  # noqa: ARG001 (part of the cache key)
) -> tuple[Splat, tuple[str, ...]]:
    gaussians, notes = read_ply_with_notes(ply, file_from_world=file_from_world)
    return make_splat(ply, gaussians, background=WHITE), notes
