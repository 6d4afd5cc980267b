"""Say what a folder or file that is no capture seems to be, and what to do with it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from splatfix.captures.finder import has_image_suffix
from splatfix.file_kinds import POINTER, is_pointer

VIDEOS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".insv", ".mts")
UNPACK = "an archive; wanted a folder: unpack it, and pass the folder in it"
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar")
_NERFSTUDIO = "convert it: ns-process-data {} --data {} --output-dir CAPTURE"
_EXPORTS = (  # a pattern below the folder, what has written it, and its name in nerfstudio's converter
    ("keyframes/*cameras", "a raw export of Polycam", "polycam"),
    ("*.r3d", "a recording of Record3D", "record3d"),
    ("cameras.xml", "cameras of Metashape", "metashape"),
    ("reconstruction.json", "a reconstruction of OpenDroneMap or OpenSfM", "odm"),
)


def describe_unknown(path: Path, wanted: Sequence[str], captures: Sequence[str]) -> str:
    """Describe a file or folder of no known format in one line, with the remedy.

    Args:
        path: file or folder.
        wanted: the files that each format looks for.
        captures: names of the folders in it that are captures.
    """
    formats = "; ".join(wanted)
    kind = _describe_file(path) if path.is_file() else None if captures else _describe_folder(path)
    if kind is not None:
        return f"{path}: {kind}"
    if path.is_file():
        return f"{path}: a file of no known capture; wanted a folder with, or the file itself: {formats}"
    hint = f" ({captures[0]}/ is a capture: pass that folder)" if captures else ""
    entries = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir())
    contents = ", ".join(entries[:8]) + (", ..." if len(entries) > 8 else "") or "nothing"
    return (
        f"{path}: no capture found{hint}; it contains {contents}; wanted one of: {formats}. For photos or a video "
        "without cameras: splatfix pose PHOTOS_OR_VIDEO --out CAPTURE"
    )


def refuse_web_file(url: str) -> None:
    """Check that a URL is not that of an archive, a video or a photo. ValueError with the remedy if it is."""
    parts = urlsplit(url)
    suffix = Path(parts.path).suffix.lower()
    if parts.scheme not in ("http", "https") and suffix not in ARCHIVES:
        return
    if suffix in ARCHIVES:
        raise ValueError(f"{url}: an archive; download and unpack it, and pass the folder in it")
    if suffix in VIDEOS:
        raise ValueError(f"{url}: a video; download it, and pass the file")
    if has_image_suffix(parts.path):
        raise ValueError(f"{url}: a single photo; download all of them into a folder, and pass the folder")


def has_other_poses(path: Path) -> bool:
    """Whether a folder has poses, or parts of a model, that have to be converted: a fit must not estimate others."""
    patterns = [pattern for pattern, _, _ in _EXPORTS]
    return any(any(path.glob(pattern)) for pattern in (*patterns, "*_SfM.log", "database.db"))


def _pose(photos: Path) -> str:
    return f"splatfix pose {shlex.quote(str(photos))} --out CAPTURE"


def _describe_file(path: Path) -> str | None:
    if _is_pointer(path):
        return POINTER
    suffix = path.suffix.lower()
    if suffix in ARCHIVES:
        return UNPACK
    if suffix in VIDEOS:
        return f"a video without cameras; wanted a capture: {_pose(path)}"
    if has_image_suffix(path.name):
        return f"a single photo; wanted the folder of all of them: pass {shlex.quote(str(path.parent))}"
    return None


def _describe_folder(path: Path) -> str | None:
    entries = sorted(path.iterdir())
    pointer = next((entry for entry in entries if entry.suffix in (".ply", ".json") and _is_pointer(entry)), None)
    if pointer is not None:
        return f"{pointer.name} is {POINTER}"
    for pattern, kind, name in _EXPORTS:
        if any(path.glob(pattern)):
            return f"{kind}; wanted a capture: {_NERFSTUDIO.format(name, shlex.quote(str(path)))}"
    photos = _find_photos(path, entries)
    place = path if photos is None else photos
    if any(entry.name.endswith("_SfM.log") for entry in entries):
        return f"poses of Tanks and Temples (.log), which have no focal lengths; wanted a capture: {_pose(place)}"
    if any(entry.name == "database.db" for entry in entries):
        return (
            "a COLMAP database without a model (sparse/0), as its mapper has not run or failed; wanted a capture: run "
            f"the mapper, or {_pose(place)}"
        )
    if photos is not None:
        num = sum(has_image_suffix(entry.name) for entry in photos.iterdir())
        return f"{num} photos without cameras; wanted a capture: {_pose(photos)}"
    for entry in entries:
        if entry.suffix.lower() in (*VIDEOS, *ARCHIVES):
            kind = "a video without cameras" if entry.suffix.lower() in VIDEOS else "an archive"
            remedy = _pose(entry) if entry.suffix.lower() in VIDEOS else "unpack it, and pass the folder in it"
            return f"no capture, but {kind} ({entry.name}); wanted a capture: {remedy}"
    return None


def _is_pointer(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return is_pointer(file.read(64))


def _find_photos(path: Path, entries: Sequence[Path]) -> Path | None:
    """Find the photos in a folder, or directly below it, where most are; None if there are none."""
    folders = [path, *(entry for entry in entries if entry.is_dir() and not entry.name.startswith("."))][:50]
    counts = {folder: sum(has_image_suffix(entry.name) for entry in folder.iterdir()) for folder in folders}
    best = max(counts, key=lambda folder: counts[folder])
    return best if counts[best] else None
