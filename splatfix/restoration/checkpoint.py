"""Checkpoint folders of trained restorers of any family: ``config.json``, weights and a model card.

``config.json`` names format, schema and kind; the rest of it, and the files beside it, are the family's.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from splatfix.files import read_json, sync, write_json
from splatfix.process import log

CONFIG, CARD = "config.json", "README.md"
FORMAT, SCHEMA = "splatfix-restorer", 1
OLDEST_KIND = "nafnet"  # of checkpoints without a kind, which were written when there was only one


def find_checkpoint(place: str | Path, files: Sequence[str]) -> Path:
    """The folder of a checkpoint: the place itself, ``restorer`` in a training run, or ``files`` of a Hub repository.

    Raises:
        ValueError: no such folder or repository.
    """
    folder = Path(place)
    if folder.is_dir():
        inner = folder / "restorer"  # where a training run keeps it
        return inner if not (folder / CONFIG).exists() and (inner / CONFIG).exists() else folder
    if folder.exists():
        raise ValueError(f"{folder}: is a file; wanted a checkpoint folder with {CONFIG}")
    if re.fullmatch(r"[\w-]+/[\w.-]+", str(place)):
        return _download(str(place), files)
    raise ValueError(f"{folder}: no such folder; wanted a checkpoint folder with {CONFIG}")


def read_kind(place: str | Path, known: Collection[str]) -> str:
    """The kind of a checkpoint, one of the known ones. From a Hub repository only ``config.json`` is downloaded.

    Raises:
        ValueError: not a checkpoint of splatfix, or of an unknown kind (the known ones are listed).
    """
    return _check_header(find_checkpoint(place, [CONFIG]), known)[0]


def read_config(folder: Path, kind: str) -> dict[str, Any]:
    """What ``config.json`` holds besides format, schema and kind. ValueError where these are not as expected."""
    return _check_header(folder, [kind])[1]


def write_config(folder: Path, kind: str, tree: dict[str, Any]) -> None:
    """Write ``config.json``."""
    write_json(folder / CONFIG, {"format": FORMAT, "schema": SCHEMA, "kind": kind, **tree})


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Replace a folder as a whole: ``write`` fills a new folder, which then takes the place of the old one.

    A process that is killed at any time leaves the old folder or the new one, at the latest after the next call.
    """
    folder = Path(folder)
    aside, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("partial", "old"))
    if old.exists() and not folder.exists():  # a process was killed between the two renames below
        old.rename(folder)
    for leftover in (aside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    aside.mkdir(parents=True)
    write(aside)
    for file in aside.iterdir():
        sync(file)
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _check_header(folder: Path, known: Collection[str]) -> tuple[str, dict[str, Any]]:
    tree = read_json(folder / CONFIG)
    if not isinstance(tree, dict) or tree.pop("format", None) != FORMAT:
        raise ValueError(f"{folder / CONFIG}: not a restorer of splatfix (format is not {FORMAT!r})")
    if (schema := tree.pop("schema", None)) != SCHEMA:
        raise ValueError(f"{folder / CONFIG}: schema = {schema!r}, this splatfix reads {SCHEMA}; update splatfix")
    if (kind := tree.pop("kind", OLDEST_KIND)) not in known:
        raise ValueError(
            f"{folder / CONFIG}: kind = {kind!r}: wanted {' or '.join(known)}; a newer splatfix may know it"
        )
    return kind, tree


def _download(name: str, files: Sequence[str]) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ValueError(f"{name}: no such folder, and huggingface_hub is not installed to look for it") from None
    log.info("%s: no such folder here; asking the Hugging Face Hub", name)
    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except Exception as error:  # offline, not found, gated, ...: the Hub's client raises dozens of types
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ValueError(f"{name}: neither a folder nor a repository that the Hub gives access to ({reason})") from None
