"""Open captures: folders of posed photos in any of the common formats.

Each format is a module with ``find`` (None means "not this format"), ``read`` (a `ValueError` means "this format, but
broken") and ``EXPECTED_FILES`` (the files that it looks for, for error texts). Both look names up on disk, and fetch
the content of a file before they read it (`CaptureFiles`): that is how a capture on an object store is copied in part.
A new format is one more entry in `FORMATS`. Where a folder matches several, the first one is used: files that list
images with their poses come before COLMAP's and LLFF's.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

from splatfix.captures import blender, colmap, llff, splat, transforms
from splatfix.captures.capture import Capture, Photo, Points, View
from splatfix.captures.capture_files import LOCAL, CaptureFiles
from splatfix.captures.colmap_folders import describe_larger_model
from splatfix.captures.masks import apply_mask_choice
from splatfix.captures.options import DEFAULT_OPTIONS, PhotoOptions
from splatfix.captures.photos import find_image_folders
from splatfix.captures.procedural import open_procedural
from splatfix.captures.reading import check_photos, fetch_photos, read_ahead
from splatfix.captures.remote import open_remote_capture
from splatfix.captures.splat_photos import draw_on
from splatfix.captures.unknown import ARCHIVES, UNPACK, describe_unknown, has_other_poses, refuse_web_file
from splatfix.captures.world import move_to_cameras
from splatfix.procedural.names import is_procedural, parse_seed, scene_name

__all__ = [
    "ARCHIVES",
    "FORMATS",
    "UNPACK",
    "Capture",
    "Photo",
    "PhotoOptions",
    "Points",
    "View",
    "check_photos",
    "draw_on",
    "fetch_photos",
    "find_owner",
    "has_other_poses",
    "is_capture",
    "is_procedural",
    "is_remote",
    "name_capture",
    "open_capture",
    "read_ahead",
    "resolve_capture",
]

MAX_DEPTH, MAX_FOLDERS = 4, 50  # of the folders below one that is no capture, in which captures are looked for
FORMATS = {"transforms": transforms, "blender": blender, "colmap": colmap, "llff": llff, "splat": splat}


def open_capture(
    path: Path | str, *, longest_side_px: int | None = 320, options: PhotoOptions = DEFAULT_OPTIONS
) -> Capture:
    """Open a capture of any known format, with exact pinhole cameras and photos that are loaded on demand.

    Cameras and points have the coordinates of the files, unless these cannot be fitted in (`Capture.file_from_world`).

    Args:
        path: folder of the capture, or its main file (``transforms.json``, ``poses_bounds.npy``, a ``.ply``). It may
            be a URL of an object store (`splatfix.folder_cache` has its copy), or ``procedural:SEED``, a scene that
            splatfix makes itself.
        longest_side_px: cameras and photos are scaled down to this longest side; None keeps the size of the files.
        options: how photos are read.

    Raises:
        ValueError: no capture, or a broken one. One line with the file, the field, the value seen and the value wanted.
        OSError: the object store cannot be reached, or refuses access.
    """
    if longest_side_px is not None and longest_side_px < 1:
        raise ValueError(f"longest_side_px is {longest_side_px}; wanted at least 1, or None for the files' size")
    if is_procedural(path):
        return open_procedural(str(path), longest_side_px)
    if is_remote(path):
        refuse_web_file(str(path))
        return open_remote_capture(str(path), lambda path, files: _open(path, longest_side_px, files, options))
    return _open(Path(path), longest_side_px, LOCAL, options)


def is_capture(path: Path | str) -> bool:
    """Whether a file or folder of this machine is a capture of any known format; its files may be broken."""
    return any(reader.find(Path(path), LOCAL) is not None for reader in FORMATS.values())


def find_owner(path: Path | str) -> Path | None:
    """Find the capture whose folder of images a path is; None if it is of none."""
    path = Path(path).absolute()
    if path not in (*(find_image_folders(path.parent) if path.is_dir() else ()), path.parent / "input"):
        return None
    readers = [reader for name, reader in FORMATS.items() if name != "splat"]
    return path.parent if any(reader.find(path.parent, LOCAL) is not None for reader in readers) else None


def is_remote(path: Path | str) -> bool:
    """Whether the path of a capture is a URL or the name of procedural scenes, so not on a disk of this machine."""
    return "://" in str(path) or is_procedural(path)


def resolve_capture(path: Path | str) -> str:
    """Make the path of a capture absolute, with links followed; a URL or the name of procedural scenes is kept."""
    return str(path).rstrip("/") if is_remote(path) else str(Path(path).resolve())


def name_capture(path: Path | str) -> str:
    """Name a capture by its path alone: the last part of it, or the name of the procedural scene."""
    return scene_name(parse_seed(str(path))) if is_procedural(path) else PurePosixPath(resolve_capture(path)).name


def _open(path: Path, longest_side_px: int | None, files: CaptureFiles, options: PhotoOptions) -> Capture:
    if _printable(str(path)) != str(path):
        raise ValueError(f"{_printable(str(path))}: its name is not UTF-8; rename it")
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; wanted a capture")
    for reader in FORMATS.values():
        found = reader.find(path, files)
        if found is not None:
            capture = replace(reader.read(*found, longest_side_px, files, options), path=path)
            capture = apply_mask_choice(capture, options.masks)
            if reader is not colmap and path.is_dir():
                larger = describe_larger_model(path, len(capture.views), files)
                capture = replace(capture, notes=(*capture.notes, *larger))
            capture = replace(capture, notes=tuple(map(_printable, capture.notes)))
            return capture if capture.format == "splat" else move_to_cameras(capture)  # a splat is moved by its reader
    captures = _find_below(path, files) if path.is_dir() else []
    if not captures and (owner := find_owner(path)) is not None:
        raise ValueError(f"{path}: the photos of a capture, without their cameras; pass its folder: {owner}")
    raise ValueError(describe_unknown(path, [reader.EXPECTED_FILES for reader in FORMATS.values()], captures))


def _is_readable_folder(path: Path) -> bool:
    return path.is_dir() and os.access(path, os.R_OK | os.X_OK)


def _printable(text: str) -> str:
    """Replace what UTF-8 cannot encode: bytes of names that are not UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def _find_below(path: Path, files: CaptureFiles) -> list[str]:
    """Find captures in the folders of a folder, or where there are none, further down, relative to it."""
    folders = [path]
    for _ in range(MAX_DEPTH):
        folders = [entry for folder in folders for entry in sorted(folder.iterdir()) if _is_readable_folder(entry)]
        folders = folders[:MAX_FOLDERS]
        found = [folder for folder in folders if any(reader.find(folder, files) for reader in FORMATS.values())]
        if found:
            return [folder.relative_to(path).as_posix() for folder in found]
    return []
