"""What a capture is, whatever format it came in.

A reader turns a folder into a `Capture`: views with exact pinhole cameras, and a way to load each photo. Nothing
above this package knows COLMAP from Blender.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy import ndarray

from splatfix.cameras import Camera
from splatfix.images import SUFFIXES
from splatfix.shapes import Float


@dataclass(frozen=True, eq=False)
class Photo:
    """One image of a capture, at the size of its camera.

    Attributes:
        rgb: float32 sRGB in [0, 1], ``[H, W, 3]``; where the capture has masks, already composited over the
            capture's background.
        mask: float32 in [0, 1], 1 on the object, ``[H, W]``; None where the capture has no mask for it.
    """

    rgb: Float[ndarray, "H W 3"]
    mask: Float[ndarray, "H W"] | None = None


@dataclass(frozen=True, eq=False)
class View:
    """A posed photo: its camera (name, size, pose) and how to load it."""

    camera: Camera
    load: Callable[[], Photo]

    @property
    def name(self) -> str:
        """Unique image name within the capture."""
        return self.camera.name


@dataclass(frozen=True, eq=False)
class Points:
    """Structure-from-motion points.

    Attributes:
        positions: world coordinates, float64 ``[P, 3]``.
        colors: float32 in [0, 1], ``[P, 3]``.
        tracks: for each point the names of the views that saw it; None where the format does not say (then no
            point is admissible for a sparse fit: any of them may come from other photos alone).
    """

    positions: Float[ndarray, "P 3"]
    colors: Float[ndarray, "P 3"]
    tracks: tuple[frozenset[str], ...] | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def admissible(self, names: Sequence[str], min_views: int = 2) -> Points:
        """The points that at least ``min_views`` of the named views saw: all that a fit from them may use."""
        chosen = frozenset(names)
        if self.tracks is None:
            keep = np.zeros(len(self), bool)
        else:
            keep = np.array([len(track & chosen) >= min_views for track in self.tracks], bool)
        tracks = None if self.tracks is None else tuple(t for t, k in zip(self.tracks, keep, strict=True) if k)
        return Points(self.positions[keep], self.colors[keep], tracks)


@dataclass(frozen=True, eq=False)
class Capture:
    """A posed capture.

    Attributes:
        name: folder name.
        path: what was opened: the folder, or the file that was given. Opening it again gives the same capture.
        format: ``colmap``, ``transforms``, ``blender``, ``llff`` or ``splat``.
        views: sorted by name.
        points: SfM points, if the format has any.
        background: what lies behind the object where the capture has masks or alpha (white), RGB; None for a
            capture without masks.
        notes: what the reader met and did (files skipped, sizes rescaled), for people to read.
        splat: the file of the splat whose renders the photos are; None for real photos.
    """

    name: str
    path: Path
    format: str
    views: tuple[View, ...]
    points: Points | None = None
    background: tuple[float, float, float] | None = None
    notes: tuple[str, ...] = ()
    splat: Path | None = None

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """Cameras of all views, in order."""
        return tuple(view.camera for view in self.views)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all views, in order."""
        return tuple(view.name for view in self.views)

    def resolve(self, name: str | int) -> str:
        """The full name of the view that ``name`` means.

        Published splits spell names in many ways. In this order, the first that fits: the name itself; the same path
        with another suffix or none (``0001`` for ``0001.jpg``); a path of which one is the end of the other
        (``images/0001.jpg`` or ``0001`` for ``left/0001.jpg``; the longest wins). A number is a position in the
        sorted views, as in ReconFusion's splits.

        Raises:
            ValueError: no view fits, or several do.
        """
        if isinstance(name, int):
            if not 0 <= name < len(self.views):
                raise ValueError(f"{self.path}: view number {name}; wanted 0 to {len(self.views) - 1}")
            return self.names[name]
        if name in self.names:
            return name
        asked = _path_parts(name)
        parts = {known: _path_parts(known) for known in self.names}
        fitting = [known for known, own in parts.items() if own == asked]
        if not fitting:
            shared = {known: _shared_end(own, asked) for known, own in parts.items()}
            fitting = [known for known, length in shared.items() if length > 0 and length == max(shared.values())]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise ValueError(f"{self.path}: {name!r} could be {', '.join(fitting[:4])}; wanted the full name")
        near = get_close_matches(name, self.names, n=3) or self.names[:8]
        raise ValueError(f"{self.path}: none of {len(self.views)} views is named {name!r}; there is {', '.join(near)}")

    def view(self, name: str | int) -> View:
        """The view of that name, in any spelling that `resolve` understands. ValueError with near names otherwise."""
        return self.views[self.names.index(self.resolve(name))]


def _path_parts(name: str) -> tuple[str, ...]:
    """Folders and stem of an image name."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if parts and Path(parts[-1]).suffix.lower() in SUFFIXES:
        parts[-1] = Path(parts[-1]).stem
    return tuple(parts)


def _shared_end(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """Length of the shorter path where it is the end of the longer one, else 0."""
    shorter = min(len(a), len(b))
    return shorter if a[-shorter:] == b[-shorter:] else 0
