"""Verify a folder of pairs against its manifests, and repair it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from splatfix import storage
from splatfix.pairs.index import SUFFIX, CommittedFit, Index, delete_fit, list_committed_stems, read_file, read_fit
from splatfix.pairs.provenance import name_maker
from splatfix.pairs.shards import MANIFEST, Shard, check_shard, is_generated_name, read_manifest


@dataclass(frozen=True)
class Verification:
    """The result of `verify`.

    Attributes:
        num_shards, num_samples: number of intact shards, and of their samples.
        problems: one line for each problem.
        broken: stems of fits with a broken or missing file, or with a manifest that cannot be read.
        unlisted: files that no manifest lists, left by interrupted writers.
        is_outdated: whether ``manifest.json`` is missing or differs from the manifests of the fits.
        makers: number of fits by what made them (`name_maker`).
    """

    num_shards: int
    num_samples: int
    problems: tuple[str, ...]
    broken: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    is_outdated: bool = False
    makers: dict[str, int] = field(default_factory=dict)


def verify(url: str | Path, *, decoding: bool = True, on_file: Callable[[], object] = lambda: None) -> Verification:
    """Check every file against its manifest: size, sha256, number of samples, and that each sample decodes.

    Raises:
        ValueError: the folder holds no pairs.
        OSError: the store cannot be reached.
    """
    names = storage.list_names(url)
    stems = sorted(name[: -len(SUFFIX)] for name in names if name.endswith(SUFFIX))
    problems: list[str] = []
    broken: set[str] = set()
    makers: Counter[str] = Counter()
    files: list[tuple[str | None, Shard | dict[str, Any]]] = []  # each with the stem of its fit
    for stem, fit in zip(stems, storage.in_parallel(lambda stem: _read_fit_or_reason(url, stem), stems), strict=True):
        if isinstance(fit, str):
            problems.append(fit)
            broken.add(stem)
            continue
        makers[name_maker(fit.record)] += 1
        files += [(stem, shard) for shard in fit.shards]
        files += [(stem, file) for file in fit.record.get("files", [])]
    is_outdated = False
    if stems:
        is_outdated, reasons = _check_manifest(url, [file for _, file in files if isinstance(file, Shard)])
        problems += reasons
    else:  # written by `write_shards`
        files = [(None, shard) for shard in read_manifest(url)]
    intact: list[Shard] = []
    checks = storage.in_parallel(lambda entry: _check_file(url, entry[1], decoding), files)
    with contextlib.closing(checks):  # a stop signal checks no more files
        for (owner, file), problem in zip(files, checks, strict=True):
            on_file()
            if problem is not None:
                problems.append(problem)
                broken.update([owner] if owner is not None else [])
            elif isinstance(file, Shard):
                intact.append(file)
    listed = {file.name if isinstance(file, Shard) else file["name"] for _, file in files}
    unlisted = [name for name in names if is_generated_name(name) and name not in listed]
    problems += [f"{name}: no manifest lists it" for name in unlisted]
    num_samples = sum(shard.samples for shard in intact)
    return Verification(
        *(len(intact), num_samples, tuple(problems), tuple(sorted(broken)), tuple(unlisted), is_outdated),
        makers=dict(makers),
    )


def _read_fit_or_reason(url: str | Path, stem: str) -> CommittedFit | str:
    try:
        return read_fit(url, stem)
    except ValueError as error:
        return str(error)


def _check_file(url: str | Path, file: Shard | dict[str, Any], decoding: bool) -> str | None:
    """Check a shard or another file of a fit; return the problem, or None."""
    if isinstance(file, Shard):
        return check_shard(url, file, decoding=decoding)
    try:
        read_file(url, file)
    except ValueError as error:
        return str(error)
    return None


def _check_manifest(url: str | Path, shards: Sequence[Shard]) -> tuple[bool, list[str]]:
    """Return whether ``manifest.json`` differs from the shards of the fits, and the reasons."""
    where = storage.join(url, MANIFEST)
    try:
        listed = {shard.name: shard for shard in read_manifest(url)}
    except ValueError as error:
        return True, [str(error)]
    if listed != {shard.name: shard for shard in shards}:
        return True, [f"{where}: its {len(listed)} shards differ from the {len(shards)} in the manifests of the fits"]
    return False, []


def repair(url: str | Path, verification: Verification) -> list[str]:
    """Delete broken fits and unlisted files, and write the index; return the stems of the fits to make again.

    Raises:
        ValueError: the folder has no manifests of fits, which are needed to make them again.
    """
    if not list_committed_stems(url):
        raise ValueError(f"{url}: no manifests of fits (*{SUFFIX}); shards without them cannot be repaired")
    for stem in verification.broken:
        fit = _read_fit_or_reason(url, stem)
        if isinstance(fit, str):  # a broken manifest: the files of the fit become unlisted, and are deleted below
            storage.delete(storage.join(url, stem + SUFFIX))
        else:
            delete_fit(url, fit)
    index = Index(url)
    index.refresh()
    listed = {name for fit in index.values() for name in fit.file_names}
    for name in storage.list_names(url):
        if is_generated_name(name) and name not in listed:
            storage.delete(storage.join(url, name))
    index.write()
    return list(verification.broken)
