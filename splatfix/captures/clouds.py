"""Read point clouds from PLY files beside a capture, such as nerfstudio's ``sparse_pc.ply``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from splatfix.captures.capture import Points
from splatfix.ply import find_sound_rows, read_vertices
from splatfix.shapes import Bool, Float, Shaped

COLORS = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))
MAX_DISTANCE = 1e6  # of a point from the middle of the scene, in medians over all points


def find_plausible(positions: Float[np.ndarray, "N 3"]) -> Bool[np.ndarray, " N"]:
    """Find the points that can belong to a scene: finite, and not millions of times as far from its middle as most.

    Mountains and clouds are thousands of times as far as the subject; what is farther comes from a broken file or from
    rays that are parallel to within rounding, and would set the depth range of the scene.
    """
    finite = np.asarray(np.isfinite(positions).all(axis=1))
    if not finite.any():
        return finite
    with np.errstate(over="ignore"):
        distances = np.abs(positions - np.median(positions[finite], axis=0)).max(axis=1)
    apart = distances[finite & (distances > 0)]  # a file that is padded has many points in one place
    return finite & (distances <= MAX_DISTANCE * np.median(apart)) if len(apart) else finite


def has_colors(path: Path) -> bool:
    """Whether the points of a PLY file have colors."""
    return _find_color_names(read_vertices(path).dtype.names or ()) is not None


def _find_color_names(names: Sequence[str]) -> tuple[str, str, str] | None:
    return next((channels for channels in COLORS if set(channels) <= set(names)), None)


def _scale_colors(values: Shaped[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    """Scale colors to [0, 1]: numbers of 8 or 16 bits in any type, or floats up to 1."""
    largest = float(np.nanmax(values, initial=0))
    is_float = np.issubdtype(values.dtype, np.floating) and largest <= 1
    white = 1.0 if is_float else 255.0 if largest <= 255 else 65535.0
    return np.clip(values.astype(np.float32) / np.float32(white), 0, 1)


def read_points(path: Path) -> tuple[Points, list[str]]:
    """Read positions and colors from the vertices of a PLY file (gray if it has no colors). PLY files have no tracks.

    Points that are not finite, or zero throughout, are left out; also returns notes on them.

    Raises:
        ValueError: not a PLY, truncated, without x, y, z, or more than a tenth of the points is left out.
    """
    vertex = read_vertices(path)
    names = vertex.dtype.names or ()
    if not {"x", "y", "z"} <= set(names):
        raise ValueError(f"{path}: vertex properties {', '.join(names)}; wanted x, y, z")
    positions = np.stack([np.asarray(vertex[axis], np.float64) for axis in "xyz"], axis=1)
    groups: dict[tuple[str, ...], np.ndarray] = {("x", "y", "z"): positions}
    colors = np.full((len(positions), 3), 0.5, np.float32)
    if (channels := _find_color_names(names)) is not None:
        values = np.stack([vertex[channel] for channel in channels], axis=1)
        groups[channels] = values
        colors = _scale_colors(values)
    sound, notes = find_sound_rows(path, groups)
    plausible = np.ones(len(sound), bool)
    plausible[sound] = find_plausible(positions[sound])
    if not plausible.all():
        num = int((~plausible).sum())
        notes.append(f"{path.name}: {num} of {len(plausible)} points are impossibly far from the others: left out")
    keep = sound & plausible
    return Points(positions[keep], colors[keep]), notes
