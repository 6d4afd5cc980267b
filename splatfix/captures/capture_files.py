"""How readers ask for the content of a capture's files, which may have to be copied to this machine first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable


@runtime_checkable
class CaptureFiles(Protocol):
    """The files of a capture. All names exist from the start; a reader fetches the content before it reads it."""

    def fetch(self, paths: Iterable[Path], *, headers: bool = False) -> None:
        """Make the content of files available, or at least the start of each, which holds the header of an image."""

    def size(self, path: Path) -> int:
        """Return the size of the whole file, in bytes."""


@dataclass(frozen=True)
class LocalFiles:
    """Files in the file system, which are whole."""

    def fetch(self, paths: Iterable[Path], *, headers: bool = False) -> None:
        """Do nothing."""

    def size(self, path: Path) -> int:
        """Return the size of a file, in bytes."""
        return path.stat().st_size


LOCAL = LocalFiles()
