"""Find the image files that a capture names, in the spellings that occur in practice.

A name is looked up as it is written; then without regard to upper and lower case, composed or decomposed Unicode,
backslashes and percent-encoding; then with another suffix. Each of these counts only where one file matches. Folders
are listed once, so that thousands of names in a folder of thousands of files take milliseconds.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from splatfix.file_kinds import RAW, RAW_SUFFIXES, describe_unreadable
from splatfix.images import SUFFIXES

UNREADABLE_SUFFIXES = (".exr", ".hdr", ".jxl", *RAW_SUFFIXES)
_DRIVE = re.compile(r"[A-Za-z]:/|//")


def fold(name: str) -> str:
    """Make the names equal that differ in case, Unicode composition, percent-encoding, or a space or dot at the end."""
    is_plain = name.isascii() and name.islower() and "%" not in name and name[-1] not in " ."
    return name if is_plain else _fold_any(name)


def _fold_any(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", unquote(name)).casefold()).rstrip(" .")


def is_spelled_otherwise(file_name: str, name: str) -> bool:
    """Whether the name of a file is not the last part of a path, apart from Unicode composition."""
    last = with_slashes(name).rpartition("/")[2]
    return unicodedata.normalize("NFC", file_name) != unicodedata.normalize("NFC", last)


def with_slashes(name: str) -> str:
    """Replace the backslashes of a path that was written on Windows."""
    return name.replace("\\", "/")


def is_absolute(name: str) -> bool:
    """Whether a path is absolute, on this system or on Windows."""
    name = with_slashes(name)
    return name.startswith("/") or _DRIVE.match(name) is not None


class _Folder:
    """The entries of a folder."""

    def __init__(self, path: Path) -> None:
        self.files: set[str] = set()
        self.folders: set[str] = set()
        with os.scandir(path) as entries:
            for entry in entries:
                with suppress(OSError):  # a link to itself
                    if entry.is_dir():
                        self.folders.add(entry.name)
                    elif not entry.is_symlink() or entry.is_file():
                        self.files.add(entry.name)

    @cached_property
    def files_by_fold(self) -> dict[str, list[str]]:
        return _group(self.files, fold)

    @cached_property
    def folders_by_fold(self) -> dict[str, list[str]]:
        return _group(self.folders, fold)

    @cached_property
    def images_by_stem(self) -> dict[str, list[str]]:
        images = [name for name in self.files if has_image_suffix(name) and not name.startswith(".")]
        return _group(images, lambda name: fold(name.rpartition(".")[0]))


def _group(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(key(name), []).append(name)
    return groups


def has_image_suffix(name: str) -> bool:
    """Whether a file name ends in the suffix of a readable image."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem) and (dot + suffix.lower()) in SUFFIXES


def describe_unreadable_twin(image: Path) -> str:
    """Describe the file that a missing image may have been made from, as ``; FILE is ...``; empty if there is none."""
    folder = _Folder(image.parent) if image.parent.is_dir() else None
    for name in sorted(folder.files if folder else ()):
        stem, dot, suffix = name.rpartition(".")
        if fold(stem) == fold(image.stem) and dot + suffix.lower() in UNREADABLE_SUFFIXES:
            kind = RAW if dot + suffix.lower() in RAW_SUFFIXES else describe_unreadable(image.with_name(name))
            return f"; {name} is {kind}" if kind else ""
    return ""


class ImageFinder:
    """Looks up image files (and others, as they are named), and lists each folder once."""

    def __init__(self) -> None:
        self._folders: dict[Path, _Folder | None] = {}
        self._resolved: dict[Path, Path | None] = {}

    def find(self, folder: Path, name: str) -> Path | None:
        """Find the file of a name relative to a folder; None if there is none.

        Raises:
            ValueError: several files match, and none exactly.
        """
        if not name:
            return None
        exact = folder / name
        if has_image_suffix(name) and self._has_file(exact):
            return exact
        flat = folder / name.replace("/", "\\")  # as archives from Windows are unpacked
        if "/" in name and self._has_file(flat):
            return flat
        path = folder / with_slashes(name)
        parent = self._resolve_folder(path.parent)
        entries = None if parent is None else self._list(parent)
        if parent is None or entries is None:
            return None
        if has_image_suffix(path.name) and path.name in entries.files:
            return parent / path.name
        same = entries.files_by_fold.get(fold(path.name), [])
        if not has_image_suffix(path.name):  # names without a suffix have one on disk
            same = entries.images_by_stem.get(fold(path.name), []) or same
        stem = path.name.rpartition(".")[0] if has_image_suffix(path.name) else path.name
        matches = same or entries.images_by_stem.get(fold(stem), [])
        if len(matches) > 1:
            raise ValueError(
                f"{exact}: no such file, but {' and '.join(matches[:3])} could be meant; wanted one: rename the right "
                "one as it is named here, or remove the others"
            )
        return parent / matches[0] if matches else None

    def find_anywhere(self, folder: Path, name: str) -> Path | None:
        """Find the file of a name, and that of an absolute path of another machine by its end (`find_tail`)."""
        path = self.find(folder, name)
        return self.find_tail(folder, name) if path is None and is_absolute(name) else path

    def find_tail(self, folder: Path, name: str) -> Path | None:
        """Find the file of an absolute path of another machine by the longest end of it that exists in a folder."""
        parts = [part for part in with_slashes(name).split("/") if part]
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        return next((found for tail in tails if (found := self.find(folder, tail)) is not None), None)

    def find_all(self, folder: Path, names: Sequence[str]) -> dict[str, Path]:
        """Find the files of several names in a folder, absolute ones by their ends; leave out those without a file.

        Raises:
            ValueError: several files match one name, or one file matches several names.
        """
        found = {name: path for name in names if (path := self.find_anywhere(folder, name)) is not None}
        names_of: dict[Path, str] = {}
        for name, path in found.items():
            other = names_of.setdefault(path, name)
            if other != name:
                raise ValueError(f"{path}: is meant by both {other} and {name}; wanted a file for each")
        return found

    def _has_file(self, path: Path) -> bool:
        entries = self._list(path.parent)
        return entries is not None and path.name in entries.files

    def _list(self, folder: Path) -> _Folder | None:
        if folder not in self._folders:
            try:
                self._folders[folder] = _Folder(folder)
            except (OSError, ValueError):  # no folder, or a name that no file can have
                self._folders[folder] = None
        return self._folders[folder]

    def _resolve_folder(self, folder: Path) -> Path | None:
        """Find a folder, in any spelling of its name and of those above it. ValueError if several match."""
        if folder not in self._resolved:
            self._resolved[folder] = self._search_folder(folder)
        return self._resolved[folder]

    def _search_folder(self, folder: Path) -> Path | None:
        if self._list(folder) is not None:
            return folder
        if folder.parent == folder:
            return None
        parent = self._resolve_folder(folder.parent)
        entries = None if parent is None else self._list(parent)
        if parent is None or entries is None:
            return None
        matches = entries.folders_by_fold.get(fold(folder.name), [])
        if len(matches) > 1:
            raise ValueError(
                f"{folder}: no such folder, but {' and '.join(matches[:3])} could be meant; wanted one of them"
            )
        return parent / matches[0] if matches else None
