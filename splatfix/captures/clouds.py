"""Read point clouds from PLY files beside a capture, such as nerfstudio's ``sparse_pc.ply``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from splatfix.captures.capture import Points
from splatfix.ply import find_sound_rows, read_vertices


def has_colors(path: Path) -> bool:
    """Whether the points of a PLY file have colors."""
    return {"red", "green", "blue"} <= set(read_vertices(path).dtype.names or ())


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
    if {"red", "green", "blue"} <= set(names):
        values = np.stack([vertex[channel] for channel in ("red", "green", "blue")], axis=1)
        groups["red", "green", "blue"] = values
        is_integer = np.issubdtype(values.dtype, np.integer)
        colors = np.clip(values.astype(np.float32) / (np.iinfo(values.dtype).max if is_integer else 1.0), 0, 1)
    sound, notes = find_sound_rows(path, groups)
    return Points(positions[sound], colors[sound]), notes
