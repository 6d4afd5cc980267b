"""Find captures: folders, globs, YAML lists, dataset roots, on this machine or an object store; procedural scenes.

A dataset root is a folder whose subfolders are captures (Mip-NeRF 360, LLFF) or contain captures one or two levels
deeper (DL3DV's ``1K/<scene>/nerfstudio``). Captures are only listed here, not opened, since a root may hold 100,000.
"""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from splatfix import storage
from splatfix.captures import FORMATS, Capture, PhotoOptions, is_procedural, is_remote, open_capture
from splatfix.config import parse_yaml
from splatfix.procedural.names import expand_range, parse_seed, scene_name
from splatfix.process import progress

MAX_DEPTH = 3  # of captures below a dataset root
QUIET_FOLDERS = 200  # that are listed without a progress bar
# folders that hold a capture without naming it
WRAPPERS = ("nerfstudio", "colmap", "gaussian_splat", "dense", "data", "undistorted")
_CAPTURE_FILES = {
    *("transforms.json", "transforms_train.json", "poses_bounds.npy", "cameras.json", "point_cloud.ply"),
    *("cameras.bin", "cameras.txt"),
}


@dataclass(frozen=True)
class Source:
    """A capture that has not been opened.

    Attributes:
        url: its folder or file, local or remote, or the name of a procedural scene.
        name: of its scene, unique within a set of pairs, of letters, digits, - and _.
        group: training and validation are split by group.
    """

    url: str
    name: str
    group: str

    def open(self, size_px: int, options: PhotoOptions) -> Capture:
        """Open the capture under the name of this source. ValueError if it cannot be read."""
        return replace(open_capture(self.url, longest_side_px=size_px, options=options), name=self.name)


def find_sources(captures: Iterable[str | Path], groups: Mapping[str, str]) -> list[Source]:
    """Find the captures that these patterns match, in order, each once.

    A pattern is the folder or file of a capture, a glob, a dataset root, or a ``.yaml`` list of these (each may be a
    mapping with ``path`` and optionally ``name`` and ``group``; relative paths start at the list). It may be a URL.
    ``procedural:0-499`` stands for 500 procedural scenes.

    Raises:
        ValueError: no patterns, or a pattern that matches no capture.
    """
    patterns = [str(pattern) for pattern in captures]
    if not patterns:
        raise ValueError("no captures; name at least one folder of posed photos")
    found: dict[str, tuple[str | None, str | None]] = {}
    for pattern in patterns:
        entries = _read_list(pattern) if _is_list(pattern) else ((url, None, None) for url in _match_pattern(pattern))
        for url, name, group in entries:
            found.setdefault(absolute_pattern(url), (name, group))
    return _name_sources(found, groups)


def absolute_pattern(pattern: str | Path) -> str:
    """Make a local path or glob absolute; a URL or the name of procedural scenes is returned as it is."""
    return str(pattern) if is_procedural(pattern) else storage.absolute(pattern)


def _is_list(pattern: str) -> bool:
    return pattern.endswith((".yaml", ".yml"))


def _match_pattern(pattern: str) -> list[str]:
    """Return the paths or URLs of the captures that a pattern other than a list matches."""
    if is_procedural(pattern):
        return expand_range(pattern)
    if not storage.is_local(pattern):
        return _find_remote_captures(pattern)
    pattern = storage.absolute(pattern)
    path = Path(pattern)
    if re.search(r"[*?\[]", pattern) and not path.exists():
        matches = sorted(match for match in glob.glob(pattern, recursive=True) if _is_capture(Path(match)))
        if not matches:
            raise ValueError(f"{pattern}: this glob matches no capture")
        return matches
    if not path.exists():
        raise ValueError(f"{pattern}: no such file or folder; wanted a capture, a glob, a .yaml list or a dataset root")
    if path.is_file() or _is_capture(path):
        return [pattern]
    below = [str(capture) for capture in _walk_captures(path, MAX_DEPTH)]
    if not below:
        open_capture(path)  # raises an error that names the files it found and the formats it knows
        raise ValueError(f"{pattern}: contains no capture")
    return below


def _read_list(file: str) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield path or URL, name and group of each capture in a ``.yaml`` list."""
    tree = parse_yaml(storage.read_bytes(file), file)
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
        if _is_list(path):
            raise ValueError(f"{file}: captures[{number}] = {path!r}: a list cannot contain lists")
        if not is_remote(path) and not Path(path).is_absolute():
            path = storage.join(file.rpartition("/")[0] or ".", path)
        name = None if fields.get("name") is None else str(fields["name"])
        group = None if fields.get("group") is None else str(fields["group"])
        if name is not None and not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError(f"{file}: captures[{number}]: name = {name!r}: wanted letters, digits, - and _ only")
        urls = _match_pattern(path)
        if len(urls) > 1 and "name" in fields:
            raise ValueError(f"{file}: captures[{number}]: name = {fields['name']!r}, but {path} is several captures")
        for url in urls:
            yield url, name, group


def _is_capture(path: Path) -> bool:
    try:
        return any(kind.find(path) is not None for kind in FORMATS.values())
    except ValueError:
        return True  # a broken capture: the error is raised when it is opened


def _walk_captures(folder: Path, depth: int) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir() or entry.name.startswith("."):
            continue
        if _is_capture(entry):
            yield entry
        elif depth > 1:
            yield from _walk_captures(entry, depth - 1)


def _find_remote_captures(url: str) -> list[str]:
    """Find the captures at or below a URL by the names of their files, with one request for each folder."""
    if url.endswith(".ply"):
        return [url]
    found: list[tuple[str, ...]] = []
    folders: list[tuple[str, ...]] = [()]
    for depth in range(MAX_DEPTH + 1):
        names = partial(_list_remote_folder, url.rstrip("/"))
        with progress(total=len(folders), description="folders listed", quiet=len(folders) < QUIET_FOLDERS) as bar:
            below: list[tuple[str, ...]] = []
            for folder, (is_capture, children) in zip(folders, storage.in_parallel(names, folders), strict=True):
                if is_capture:
                    found.append(folder)
                elif depth < MAX_DEPTH:
                    below += [(*folder, name) for name in children]
                bar.update()
        folders = below
    if not found:
        raise ValueError(
            f"{url}: contains no capture; wanted {', '.join(sorted(_CAPTURE_FILES))} or sparse/0 in it or below"
        )
    return ["/".join([url.rstrip("/"), *folder]) for folder in sorted(found)]


def _list_remote_folder(root: str, folder: tuple[str, ...]) -> tuple[bool, list[str]]:
    """Whether a folder below a root is a capture, and the names of the folders in it."""
    files, folders = storage.list_folder("/".join([root, *folder]))
    has_model = any(name.startswith("sparse") for name in folders) or {"colmap", "images"} <= set(folders)
    is_capture = has_model or not _CAPTURE_FILES.isdisjoint(name.lower() for name in files)
    return is_capture, folders


def _name_sources(found: Mapping[str, tuple[str | None, str | None]], groups: Mapping[str, str]) -> list[Source]:
    """Name the captures by their folders; where several are equal, the names of parent folders are put before."""
    names = {url: name or _folder_name(url, 1) for url, (name, _) in found.items()}
    for depth in (2, 3, 4):
        counts = Counter(names.values())
        clashing = [url for url, name in names.items() if counts[name] > 1 and found[url][0] is None]
        for url in clashing:
            names[url] = _folder_name(url, depth)
    counts = Counter(names.values())
    for url, name in names.items():
        if counts[name] > 1:
            raise ValueError(f"{url}: another capture is also named {name!r}; give names in a .yaml list")
    return [Source(url, name, found[url][1] or groups.get(name, name)) for url, name in names.items()]


def _folder_name(url: str, num_parts: int) -> str:
    if is_procedural(url):
        return scene_name(parse_seed(url))
    parts = [part for part in url.split("://")[-1].split("/") if part]
    while len(parts) > 1 and parts[-1].lower() in WRAPPERS:
        parts.pop()
    if parts[-1].lower().endswith((".ply", ".json", ".npy")):
        stem = parts.pop().rsplit(".", 1)[0]
        if stem not in ("point_cloud", "splat", "transforms", "transforms_train", "poses_bounds"):
            parts.append(stem)
    name = "-".join(parts[-num_parts:]) or "capture"
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)
