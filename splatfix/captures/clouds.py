"""Read point clouds from PLY files beside a capture, such as nerfstudio's ``sparse_pc.ply``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from plyfile import PlyData

from splatfix.captures.capture import Points


def read_points(path: Path) -> Points:
    """Read positions and colors from the vertices of a PLY file (gray if it has no colors). PLY files have no tracks.

    Raises:
        ValueError: not a PLY, truncated, without x, y, z, or with a position that is not a number.
    """
    try:
        vertex = PlyData.read(str(path), mmap="c")["vertex"].data
    except Exception as error:  # plyfile raises many kinds; each means that the file is not a whole PLY
        raise ValueError(f"{path}: cannot be read as PLY ({error}); is the file whole?") from error
    names = vertex.dtype.names or ()
    if not {"x", "y", "z"} <= set(names):
        raise ValueError(f"{path}: vertex properties {', '.join(names)}; wanted x, y, z")
    positions = np.stack([np.asarray(vertex[axis], np.float64) for axis in "xyz"], axis=1)
    bad = ~np.isfinite(positions).all(axis=1)
    if bad.any():
        raise ValueError(f"{path}: vertex {int(bad.argmax())} is {positions[bad][0].tolist()}; wanted finite numbers")
    colors = np.full((len(positions), 3), 0.5, np.float32)
    if {"red", "green", "blue"} <= set(names):
        values = np.stack([vertex[channel] for channel in ("red", "green", "blue")], axis=1)
        is_integer = np.issubdtype(values.dtype, np.integer)
        colors = np.clip(values.astype(np.float32) / (np.iinfo(values.dtype).max if is_integer else 1.0), 0, 1)
    return Points(positions, colors)
