"""The types of an opened capture, the same for every format.

A reader turns a folder into a `Capture`: views with exact pinhole cameras and a function that loads each photo. No code
outside of this package depends on the format.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy import ndarray

from splatfix.cameras import Camera
from splatfix.images import SUFFIXES
from splatfix.shapes import Float
from splatfix.similarity import IDENTITY, Similarity


@dataclass(frozen=True, eq=False)
class Photo:
    """The image of a view, at the size of its camera.

    Attributes:
        rgb: float32 sRGB in [0, 1], ``[H, W, 3]``; if the capture has object masks, composited over its background.
            Ignored pixels have made-up colors, blended from those around them.
        mask: float32 in [0, 1], 1 on the object, ``[H, W]``; None if the capture has no object mask for it.
        validity: share of each pixel that is not ignored, float32 in [0, 1], ``[H, W]``; None if no pixel is ignored.
    """

    rgb: Float[ndarray, "H W 3"]
    mask: Float[ndarray, "H W"] | None = None
    validity: Float[ndarray, "H W"] | None = None


@dataclass(frozen=True, eq=False)
class View:
    """A posed photo: its camera (name, size, intrinsics, pose) and the function that loads it."""

    camera: Camera
    load: Callable[[], Photo]

    @property
    def name(self) -> str:
        """Name of the view, unique within the capture."""
        return self.camera.name


@dataclass(frozen=True, eq=False)
class Points:
    """Structure-from-motion points.

    Attributes:
        positions: world coordinates, float64 ``[P, 3]``.
        colors: float32 in [0, 1], ``[P, 3]``.
        tracks: for each point the names of the views that saw it; None if the format does not say. Then no point is
            admissible for a sparse fit, because it may come from photos that the fit must not use.
    """

    positions: Float[ndarray, "P 3"]
    colors: Float[ndarray, "P 3"]
    tracks: tuple[frozenset[str], ...] | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def admissible(self, names: Sequence[str], min_views: int = 2) -> Points:
        """Select the points that a fit from the named views may use: those that at least ``min_views`` of them saw."""
        chosen = frozenset(names)
        if self.tracks is None:
            keep = np.zeros(len(self), bool)
        else:
            keep = np.array([len(track & chosen) >= min_views for track in self.tracks], bool)
        tracks = None if self.tracks is None else tuple(t for t, k in zip(self.tracks, keep, strict=True) if k)
        return Points(self.positions[keep], self.colors[keep], tracks)


@dataclass(frozen=True, eq=False, repr=False)
class Capture:
    """A posed capture.

    Attributes:
        name: folder name.
        path: the path or URL that was opened, a folder or a file. Opening it again gives the same capture.
        format: ``colmap``, ``transforms``, ``blender``, ``llff``, ``splat`` or ``procedural``.
        views: sorted by name.
        points: SfM points, if the format has any.
        background: RGB behind the object (white) if the capture has object masks; None for a capture without.
        notes: messages about what the reader did (files skipped, sizes rescaled).
        splat: the `.ply` whose renders serve as photos; None for real photos.
        file_from_world: from the world of cameras and points to the coordinates of the capture's files; the identity
            unless these are far from the origin, or the scene is very large or small in them.
        license: license and author of the photos, if the format says so; None for files.
    """

    name: str
    path: Path | str
    format: str
    views: tuple[View, ...]
    points: Points | None = None
    background: tuple[float, float, float] | None = None
    notes: tuple[str, ...] = ()
    splat: Path | None = None
    file_from_world: Similarity = IDENTITY
    license: str | None = None

    def __repr__(self) -> str:
        return f"<Capture {self.name}: {len(self.views)} views, {self.format}, {self.path}>"

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """Cameras of all views, in order."""
        return tuple(view.camera for view in self.views)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all views, in order."""
        return tuple(view.name for view in self.views)

    def resolve(self, name: str | int) -> str:
        """Resolve a name or number from a split file to the full name of a view.

        Published splits spell names in many ways. The first of these that matches is used: the name itself; the same
        path with another suffix or none (``0001`` for ``0001.jpg``); a path that is the end of the other
        (``images/0001.jpg`` or ``0001`` for ``left/0001.jpg``; the longest match is used). A number is an index into
        the sorted views, as in ReconFusion's splits.

        Raises:
            ValueError: no view matches, or several do.
        """
        if isinstance(name, int):
            if not 0 <= name < len(self.views):
                raise ValueError(f"{self.path}: view number {name}; wanted 0 to {len(self.views) - 1}")
            return self.names[name]
        if name in self.names:
            return name
        parts = _path_parts(name)
        parts_of = {known: _path_parts(known) for known in self.names}
        matches = [known for known, known_parts in parts_of.items() if known_parts == parts]
        if not matches:
            lengths = {known: _common_end(known_parts, parts) for known, known_parts in parts_of.items()}
            matches = [known for known, length in lengths.items() if length > 0 and length == max(lengths.values())]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise ValueError(f"{self.path}: {name!r} could be {', '.join(matches[:4])}; wanted the full name")
        similar = get_close_matches(name, self.names, n=3) or self.names[:8]
        raise ValueError(
            f"{self.path}: none of {len(self.views)} views is named {name!r}; there is {', '.join(similar)}"
        )

    def view(self, name: str | int) -> View:
        """Look up a view by name, in any spelling that `resolve` accepts. ValueError if none matches."""
        return self.views[self.names.index(self.resolve(name))]


def _path_parts(name: str) -> tuple[str, ...]:
    """Split an image name, with its letters composed, into its folders and its stem."""
    parts = [part for part in unicodedata.normalize("NFC", name).replace("\\", "/").split("/") if part not in ("", ".")]
    if parts and Path(parts[-1]).suffix.lower() in SUFFIXES:
        parts[-1] = Path(parts[-1]).stem
    return tuple(parts)


def _common_end(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """Length of the shorter path if it is the end of the longer one, else 0."""
    shorter = min(len(a), len(b))
    return shorter if a[-shorter:] == b[-shorter:] else 0
