"""The files of configs/ and jobs/ of the repository: where they are, and what each is for.

They are at the top level of the repository. A wheel has them in ``splatfix/shipped`` (setup.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

PATTERNS = {"configs": "*.yaml", "jobs": "*.py"}


@dataclass(frozen=True)
class ShippedFile:
    """A file that comes with splatfix: its name, such as ``configs/loop.yaml``, and the first line of its comment."""

    name: str
    path: Path
    purpose: str


def shipped_files() -> list[ShippedFile]:
    """All shipped files, sorted by name."""
    package = Path(__file__).parent
    root = package / "shipped" if (package / "shipped").is_dir() else package.parent
    paths = [path for folder, pattern in PATTERNS.items() for path in sorted((root / folder).glob(pattern))]
    return [ShippedFile(f"{path.parent.name}/{path.name}", path, _purpose(path)) for path in paths]


def copy_shipped(names: Sequence[str], out: Path) -> list[Path]:
    """Copy shipped files into a folder, which is created if needed; returns the copies.

    A name is ``configs/loop.yaml``, ``loop.yaml`` or ``loop``.

    Raises:
        ValueError: no such file, or one in the folder that is there already and differs; nothing was copied.
    """
    chosen = [_find(name) for name in names]
    targets = [out / file.path.name for file in chosen]
    for file, target in zip(chosen, targets, strict=True):
        if target.exists() and target.read_bytes() != file.path.read_bytes():
            raise ValueError(f"{target}: exists and differs from {file.name}; move it away, or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    for file, target in zip(chosen, targets, strict=True):
        shutil.copyfile(file.path, target)
    return targets


def _find(name: str) -> ShippedFile:
    known = shipped_files()
    for file in known:  # configs come first: generate is configs/generate.yaml, and jobs/generate.py has its suffix
        if name in (file.name, file.path.name, file.path.stem, file.name.rpartition(".")[0]):
            return file
    near = get_close_matches(name, [short for file in known for short in (file.path.stem, file.name)], n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ValueError(f"no file {name!r} comes with splatfix; {hint}`splatfix configs` lists all")


def _purpose(path: Path) -> str:
    return path.read_text("utf-8").splitlines()[0].lstrip('#" ').rstrip('" ')
