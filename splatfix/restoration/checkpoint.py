"""Checkpoint folders of trained restorers of any family: ``config.json``, weights and a model card.

``config.json`` names format, schema and kind; the rest of it, and the files beside it, are the family's.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from splatfix import storage
from splatfix.files import read_json, sync, write_json
from splatfix.folder_cache import CachedFolder
from splatfix.restoration.hub import fetch
from splatfix.restoration.hub_places import WANTED, parse_place

CONFIG, CARD = "config.json", "README.md"
FORMAT, SCHEMA = "splatfix-restorer", 1
OLDEST_KIND = "nafnet"  # of checkpoints without a kind, which were written when there was only one
RUN_FOLDER = "restorer"  # in which a training run keeps its checkpoint
_copies: dict[str, CachedFolder] = {}  # of URLs: in use, so that they stay in the cache while this process runs


def find_checkpoint(place: str | Path, files: Sequence[str]) -> Path:
    """The folder of a checkpoint: the place itself, ``restorer`` in a training run, or ``files`` of a Hub repository.

    Of a URL, the ``files`` (names or patterns) are copied to the cache of this machine, of a Hub repository (names) to
    the Hub's own cache.

    Raises:
        ValueError: no such folder or repository.
        OSError: the object store cannot be reached.
    """
    if (repository := parse_place(str(place))) is not None:
        return fetch(repository, files)
    if not storage.is_local(place):
        return _copy_from_store(str(place), files)
    folder = Path(place)
    if folder.is_dir():
        inner = folder / RUN_FOLDER
        return inner if not (folder / CONFIG).exists() and (inner / CONFIG).exists() else folder
    if folder.exists():
        raise ValueError(f"{folder}: is a file; wanted a checkpoint folder with {CONFIG}")
    raise ValueError(f"{folder}: no such folder; wanted a checkpoint folder with {CONFIG}, or {WANTED}")


def read_kind(place: str | Path, known: Collection[str]) -> str:
    """The kind of a checkpoint, one of the known ones. From a store or the Hub only ``config.json`` is copied.

    Raises:
        ValueError: not a checkpoint of splatfix, or of an unknown kind (the known ones are listed).
    """
    return _check_header(find_checkpoint(place, [CONFIG]), known)[0]


def read_config(folder: Path, kind: str) -> dict[str, Any]:
    """What ``config.json`` holds besides format, schema and kind. ValueError where these are not as expected."""
    return _check_header(folder, [kind])[1]


def read_training_scenes(place: str | Path) -> frozenset[str]:
    """The scenes and groups that a checkpoint was trained on, as its ``config.json`` records them; empty for none."""
    path = find_checkpoint(place, [CONFIG]) / CONFIG
    provenance = read_json(path).get("provenance") if path.is_file() else None
    if not isinstance(provenance, dict):
        return frozenset()
    lists = [provenance.get(name) for name in ("train_groups", "train_scenes")]
    return frozenset(str(name) for names in lists if isinstance(names, list) for name in names)


def write_config(folder: Path, kind: str, tree: dict[str, Any]) -> None:
    """Write ``config.json``."""
    write_json(folder / CONFIG, {"format": FORMAT, "schema": SCHEMA, "kind": kind, **tree})


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Replace a folder as a whole: ``write`` fills a new folder, which then takes the place of the old one.

    A process that is killed at any time leaves the old folder or the new one, at the latest after the next call.
    """
    folder = Path(folder)
    aside, old = drop_replacements(folder)
    aside.mkdir(parents=True)
    try:
        write(aside)
        for file in aside.iterdir():
            sync(file)
    except OSError:  # such as a full disk, which the files would keep full
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def drop_replacements(folder: Path) -> tuple[Path, Path]:
    """Clear what a killed process has left of `replace_folder`; returns where the new and the old folder are put."""
    aside, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("partial", "old"))
    if old.exists() and not folder.exists():  # it was killed between the two renames
        old.rename(folder)
    for leftover in (aside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    return aside, old


def _check_header(folder: Path, known: Collection[str]) -> tuple[str, dict[str, Any]]:
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder}: has no {CONFIG}; wanted a checkpoint folder, or the --out of a training")
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


def _copy_from_store(url: str, files: Sequence[str]) -> Path:
    for folder in (url, storage.join(url, RUN_FOLDER)):
        found = storage.list_files(folder, recursive=False)
        if any(file.name == CONFIG for file in found):
            copy = _copies[url] = CachedFolder(folder, found)
            copy.fetch(copy.path / file.name for file in found if any(fnmatch(file.name, name) for name in files))
            return copy.path
    raise ValueError(f"{url}: no {CONFIG} there; wanted a checkpoint folder or a training run")
