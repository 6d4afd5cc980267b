"""Open captures: folders of posed photos in any of the common formats.

Each format is a module with ``find`` (None means "not this format"), ``read`` (a `ValueError` means "this format, but
broken") and ``EXPECTED_FILES`` (the files that it looks for, for error texts). A new format is one more entry in
`FORMATS`. Where a folder matches several, the first one is used: files that list images with their poses come before
COLMAP's and LLFF's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from splatfix.captures import blender, colmap, llff, splat, transforms
from splatfix.captures.capture import Capture, Photo, Points, View

__all__ = ["FORMATS", "Capture", "Photo", "Points", "View", "open_capture"]

FORMATS = {"transforms": transforms, "blender": blender, "colmap": colmap, "llff": llff, "splat": splat}


def open_capture(path: Path | str, *, longest_side_px: int | None = 320) -> Capture:
    """Open a capture of any known format, with exact pinhole cameras and photos that are loaded on demand.

    Args:
        path: folder of the capture, or its main file (``transforms.json``, ``poses_bounds.npy``, a ``.ply``).
        longest_side_px: cameras and photos are scaled down to this longest side; None keeps the size of the files.

    Raises:
        ValueError: no capture, or a broken one. One line with the file, the field, the value seen and the value wanted.
    """
    path = Path(path)
    if longest_side_px is not None and longest_side_px < 1:
        raise ValueError(f"longest_side_px is {longest_side_px}; wanted at least 1, or None for the files' size")
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; wanted a capture")
    for reader in FORMATS.values():
        found = reader.find(path)
        if found is not None:
            return replace(reader.read(*found, longest_side_px), path=path)
    raise ValueError(_describe_unknown(path))


def _describe_unknown(path: Path) -> str:
    wanted = "; ".join(reader.EXPECTED_FILES for reader in FORMATS.values())
    if path.is_file():
        return f"{path}: a file of no known capture; wanted a folder with, or the file itself: {wanted}"
    entries = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir())
    folders = [entry for entry in sorted(path.iterdir()) if entry.is_dir()][:50]
    captures = [folder.name for folder in folders if any(reader.find(folder) for reader in FORMATS.values())]
    hint = f" ({captures[0]}/ is a capture: pass that folder)" if captures else ""
    contents = ", ".join(entries[:8]) + (", ..." if len(entries) > 8 else "") or "nothing"
    return f"{path}: no capture found{hint}; it contains {contents}; wanted one of: {wanted}"
