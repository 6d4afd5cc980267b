"""Which captures: folders, globs, YAML lists and dataset roots, on this machine or on an object store.

A dataset root is a folder whose folders are captures (Mip-NeRF 360, LLFF), or hold them one or two levels further down
(DL3DV's ``1K/<scene>/nerfstudio``). Nothing is opened here: a root of 100,000 scenes is only listed.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from splatfix import storage
from splatfix.captures import FORMATS, Capture, open_capture

MAX_DEPTH = 3  # of captures below a dataset root
# folders that only wrap a capture, and do not name it
WRAPPERS = ("nerfstudio", "colmap", "gaussian_splat", "dense", "data", "undistorted")
_REMOTE_MARKS = {
    *("transforms.json", "transforms_train.json", "poses_bounds.npy", "cameras.json", "point_cloud.ply"),
    *("cameras.bin", "cameras.txt"),
}
ROOMS = "splatfix-captures-"


@dataclass(frozen=True)
class Source:
    """A capture that has not been opened.

    Attributes:
        url: its folder or file, local or remote.
        name: of its scene, unique within a set of pairs, of letters, digits, - and _.
        group: train and validation are split by group.
    """

    url: str
    name: str
    group: str

    def open(self, size_px: int, room: Path | None = None) -> Capture:
        """The capture, named as its source. A remote one is first copied into ``room``.

        Raises:
            ValueError: it cannot be read.
        """
        path = Path(self.url)
        if not storage.is_local(self.url):
            assert room is not None
            path = room / self.name
            _copy(self.url, path)
        return replace(open_capture(path, longest_side_px=size_px), name=self.name)


def find_sources(captures: Iterable[str | Path], groups: Mapping[str, str]) -> list[Source]:
    """All captures that these words mean, in order, each once.

    A word is a capture's folder or file, a glob, a ``.yaml`` list (of words, or of mappings with ``path`` and perhaps
    ``name`` and ``group``; relative paths start at the file) or a dataset root, and may be a URL.

    Raises:
        ValueError: no captures, or a word that means none.
    """
    words = [str(word) for word in captures]
    if not words:
        raise ValueError("no captures; name at least one folder of posed photos")
    found: dict[str, tuple[str | None, str | None]] = {}
    for word in words:
        for url, name, group in _expanded(word):
            found.setdefault(storage.absolute(url), (name, group))
    return _named(found, groups)


def _expanded(word: str) -> Iterator[tuple[str, str | None, str | None]]:
    if word.endswith((".yaml", ".yml")):
        yield from _listed(word)
        return
    if not storage.is_local(word):
        yield from ((url, None, None) for url in _remote_captures(word))
        return
    word = storage.absolute(word)
    if re.search(r"[*?\[]", word) and not Path(word).exists():
        matches = sorted(path for path in glob.glob(word, recursive=True) if _is_capture(Path(path)))
        if not matches:
            raise ValueError(f"{word}: no capture fits this glob")
        yield from ((path, None, None) for path in matches)
        return
    path = Path(word)
    if not path.exists():
        raise ValueError(f"{word}: no such file or folder; wanted a capture, a glob, a .yaml list or a dataset root")
    if path.is_file() or _is_capture(path):
        yield word, None, None
        return
    inside = [str(found) for found in _captures_below(path, MAX_DEPTH)]
    if not inside:
        open_capture(path)  # raises, and says what was seen and what was wanted
        raise ValueError(f"{word}: no capture in it")
    yield from ((found, None, None) for found in inside)


def _listed(file: str) -> Iterator[tuple[str, str | None, str | None]]:
    try:
        tree = yaml.safe_load(storage.read_bytes(file))
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    entries = tree.get("captures") if isinstance(tree, dict) else tree
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{file}: wanted a list of captures at the top, or under captures:")
    for number, entry in enumerate(entries):
        fields = {"path": entry} if isinstance(entry, str) else entry
        if not isinstance(fields, dict) or not isinstance(fields.get("path"), str):
            raise ValueError(f"{file}: captures[{number}] = {entry!r}: wanted a path, or path with name and group")
        unknown = sorted(set(fields) - {"path", "name", "group"})
        if unknown:
            raise ValueError(f"{file}: captures[{number}]: unknown field {unknown[0]}; known: path, name, group")
        path = fields["path"]
        if path.endswith((".yaml", ".yml")):
            raise ValueError(f"{file}: captures[{number}] = {path!r}: a list may not name lists")
        if "://" not in path and not Path(path).is_absolute():
            path = storage.join(file.rpartition("/")[0] or ".", path)
        name = None if fields.get("name") is None else str(fields["name"])
        group = None if fields.get("group") is None else str(fields["group"])
        if name is not None and not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError(f"{file}: captures[{number}]: name = {name!r}: wanted letters, digits, - and _ only")
        inside = list(_expanded(path))
        if len(inside) > 1 and "name" in fields:
            raise ValueError(f"{file}: captures[{number}]: name = {fields['name']!r}, but {path} is several captures")
        for url, own_name, own_group in inside:
            yield url, name or own_name, group or own_group


def _is_capture(path: Path) -> bool:
    try:
        return any(kind.find(path) is not None for kind in FORMATS.values())
    except ValueError:
        return True  # broken, but meant as one: opening it says what is wrong


def _captures_below(folder: Path, depth: int) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir() or entry.name.startswith("."):
            continue
        if _is_capture(entry):
            yield entry
        elif depth > 1:
            yield from _captures_below(entry, depth - 1)


def _remote_captures(url: str, depth: int = MAX_DEPTH) -> list[str]:
    """Captures at or below a URL, found by the names of their files; one listing for each folder."""
    if url.endswith(".ply"):
        return [url]
    found = list(_remote_below(url.rstrip("/"), depth))
    if not found:
        raise ValueError(
            f"{url}: no capture there; wanted {', '.join(sorted(_REMOTE_MARKS))} or sparse/0 in it or below"
        )
    return found


def _remote_below(url: str, depth: int) -> Iterator[str]:
    files, folders = storage.list_folder(url)
    if set(files) & _REMOTE_MARKS or "sparse" in folders or ("colmap" in folders and "images" in folders):
        yield url
    elif depth > 0:
        for name in folders:
            yield from _remote_below(storage.join(url, name), depth - 1)


def _copy(url: str, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    if url.endswith(".ply"):
        names, root = [url.rsplit("/", 1)[-1]], url.rsplit("/", 1)[0]
    else:
        names, root = storage.list_tree(url), url
    for name in names:
        place = (target / name).resolve()
        if not place.is_relative_to(target.resolve()):
            raise ValueError(f"{url}: the file name {name!r} leads out of the capture")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(storage.read_bytes(storage.join(root, name)))


def make_download_folder() -> Path:
    """A folder for copies of remote captures; whoever asks removes it."""
    return Path(tempfile.mkdtemp(prefix=f"{ROOMS}{os.getpid()}-"))


def remove_abandoned_downloads() -> None:
    """Remove what processes that were killed have left of `make_download_folder`."""
    for room in Path(tempfile.gettempdir()).glob(f"{ROOMS}*-*"):
        try:
            os.kill(int(room.name[len(ROOMS) :].split("-")[0]), 0)
        except ProcessLookupError:
            shutil.rmtree(room, ignore_errors=True)
        except (ValueError, OSError):
            continue  # not ours


def _named(found: Mapping[str, tuple[str | None, str | None]], groups: Mapping[str, str]) -> list[Source]:
    """Sources with unique names: the folder's own, with its parents' before it where several have the same."""
    names = {url: name or _folder_name(url, 1) for url, (name, _) in found.items()}
    for depth in (2, 3, 4):
        counts = Counter(names.values())
        clashing = [url for url, name in names.items() if counts[name] > 1 and found[url][0] is None]
        for url in clashing:
            names[url] = _folder_name(url, depth)
    counts = Counter(names.values())
    for url, name in names.items():
        if counts[name] > 1:
            raise ValueError(f"{url}: another capture is named {name!r} too; give names in a .yaml list")
    return [Source(url, name, found[url][1] or groups.get(name, name)) for url, name in names.items()]


def _folder_name(url: str, num_parts: int) -> str:
    parts = [part for part in url.split("://")[-1].split("/") if part]
    while len(parts) > 1 and parts[-1].lower() in WRAPPERS:
        parts.pop()
    if parts[-1].lower().endswith((".ply", ".json", ".npy")):
        stem = parts.pop().rsplit(".", 1)[0]
        if stem not in ("point_cloud", "splat", "transforms", "transforms_train", "poses_bounds"):
            parts.append(stem)
    name = "-".join(parts[-num_parts:]) or "capture"
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)
