"""Captures: folders of posed photos in the formats that people have.

Each format is a module with ``find`` (None means "not mine"), ``read`` (a `ValueError` means "mine but broken") and
``WANTS`` (what it looks for, in words). A new format is one more line in `FORMATS`; where a folder could be several,
the first one wins: files that name their images and poses outright come before COLMAP's and LLFF's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from splatfix.captures import blender, colmap, llff, splat, transforms
from splatfix.captures.capture import Capture, Photo, Points, View

__all__ = ["FORMATS", "Capture", "Photo", "Points", "View", "open_capture"]

FORMATS = {"transforms": transforms, "blender": blender, "colmap": colmap, "llff": llff, "splat": splat}


def open_capture(path: Path | str, *, longest_side_px: int | None = 320) -> Capture:
    """Open a capture of any known format: exact pinhole cameras, photos loaded on demand.

    Args:
        path: the capture's folder, or the file that marks it (``transforms.json``, ``poses_bounds.npy``, a ``.ply``).
        longest_side_px: cameras and photos are scaled down to this size at most; None keeps the files' size.

    Raises:
        ValueError: no capture, or a broken one; one line with the file, the field, what was seen and wanted.
    """
    path = Path(path)
    if longest_side_px is not None and longest_side_px < 1:
        raise ValueError(f"longest_side_px is {longest_side_px}; wanted at least 1, or None for the files' size")
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; wanted a capture")
    for kind in FORMATS.values():
        found = kind.find(path)
        if found is not None:
            return replace(kind.read(*found, longest_side_px), path=path)
    raise ValueError(_unknown(path))


def _unknown(path: Path) -> str:
    wanted = "; ".join(kind.WANTS for kind in FORMATS.values())
    if path.is_file():
        return f"{path}: a file of no known capture; wanted a folder with, or the file itself: {wanted}"
    entries = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir())
    inside = [entry for entry in sorted(path.iterdir()) if entry.is_dir()][:50]
    captures = [entry.name for entry in inside if any(kind.find(entry) for kind in FORMATS.values())]
    hint = f" ({captures[0]}/ is a capture: give that folder)" if captures else ""
    found = ", ".join(entries[:8]) + (", ..." if len(entries) > 8 else "") or "nothing"
    return f"{path}: no capture found{hint}; it holds {found}; wanted one of: {wanted}"
