"""Open captures on object stores: only the files that a reader asks for are copied to this machine, once for a node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from splatfix import storage
from splatfix.captures.capture import Capture
from splatfix.captures.capture_files import CaptureFiles
from splatfix.folder_cache import CachedFolder
from splatfix.gaussians import SPLAT_FILE

MAX_FILES = 200_000  # below the URL of a capture; a dataset has more

Read = Callable[[Path, CaptureFiles], Capture]


def open_remote_capture(url: str, read: Read) -> Capture:
    """Open the capture at a URL with the function that reads local ones.

    Raises:
        ValueError: no capture, or a broken one; the message has the URL.
        OSError: the store cannot be reached.
    """
    url = url.rstrip("/")
    folder, file = _open_splat(url) if url.endswith(".ply") else _open_folder(url)
    try:
        capture = read(folder.path / file, folder)
    except ValueError as error:
        raise ValueError(str(error).replace(str(folder.path), folder.url)) from None
    notes = tuple(note.replace(str(folder.path), folder.url) for note in capture.notes)
    return replace(capture, path=url, notes=notes)


def _open_folder(url: str) -> tuple[CachedFolder, str]:
    """Open the folder of a capture, given itself or its main file; also returns the path of that file in it."""
    root, file = url.rsplit("/", 1) if url.endswith((".json", ".npy")) else (url, "")
    files = storage.list_files(root, limit=MAX_FILES)
    if not files:
        raise ValueError(f"{url}: no such file or folder; wanted a capture")
    return CachedFolder(root, files), file


def _open_splat(url: str) -> tuple[CachedFolder, str]:
    """Open the folder of a splat with the files that belong to it, without listing a folder of many splats."""
    root, ply = url.rsplit("/", 1)
    names = [ply, SPLAT_FILE, "cameras.json"]
    parts = root.split("/")
    if parts[-1].startswith("iteration_") and len(parts) > 5:  # s3: // bucket / output / point_cloud / iteration_1
        root = "/".join(parts[:-2])
        names = ["cameras.json", *("/".join([*parts[-2:], name]) for name in names)]
    found = [(name, storage.find_file(storage.join(root, name))) for name in names]
    files = [replace(file, name=name) for name, file in found if file is not None]
    return CachedFolder(root, files), "/".join([*parts[-2:], ply]) if "/" in names[-1] else ply
