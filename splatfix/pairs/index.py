"""What a folder of pairs holds: one manifest for each fit, and two files that gather them.

A fit is done when ``<stem>.manifest.json`` stands in the folder; it lists the fit's shards and says how the fit was
made. Whoever writes it first has made the fit, also when several work on the same output. ``fits.json`` gathers these
manifests, so that a later run reads one file and lists one folder; ``manifest.json`` lists all shards, for readers.
Both can be made again from the fits' manifests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from splatfix.pairs import storage
from splatfix.pairs.pair import Pair
from splatfix.pairs.shards import (
    MANIFEST,
    Shard,
    broken_shard,
    manifest_bytes,
    put_shards,
    read_manifest_tree,
    write_manifest,
)

FITS = "fits.json"
SUFFIX = f".{MANIFEST}"
READERS = 16  # manifests or shards read at a time


@dataclass(frozen=True)
class DoneFit:
    """A committed fit: its shards (none where every view was filtered, or for a dense fit), and how it was made."""

    stem: str
    shards: tuple[Shard, ...]
    record: dict[str, Any]


@dataclass
class Index:
    """The committed fits of a folder, by stem."""

    url: str
    fits: dict[str, DoneFit] = field(default_factory=dict)

    def add(self, fit: DoneFit) -> None:
        """A fit that was just committed."""
        self.fits[fit.stem] = fit

    def refresh(self) -> None:
        """Take up what stands in the folder: fits that others made, and none that are gone."""
        stems = committed_stems(self.url)
        for gone in set(self.fits) - stems:
            del self.fits[gone]
        missing = sorted(stems - set(self.fits))
        with ThreadPoolExecutor(READERS) as pool:
            for fit in pool.map(lambda stem: read_fit(self.url, stem), missing):
                self.add(fit)

    def shards(self) -> list[Shard]:
        """Of all fits, by name."""
        return sorted((shard for fit in self.fits.values() for shard in fit.shards), key=lambda shard: shard.name)

    def write(self) -> None:
        """Write ``fits.json`` and ``manifest.json``."""
        tree = {
            stem: {"shards": [asdict(shard) for shard in fit.shards], "record": fit.record}
            for stem, fit in sorted(self.fits.items())
        }
        text = json.dumps({"schema": 1, "fits": tree}, allow_nan=False, separators=(",", ":"))
        storage.commit(storage.join(self.url, FITS), text.encode())
        write_manifest(self.url, self.shards())


def open_index(url: str | Path) -> Index:
    """The index of a folder, complete: from ``fits.json``, and from the manifests that it does not know yet."""
    index, where = Index(str(url)), storage.join(url, FITS)
    if storage.exists(where):
        try:
            tree = json.loads(storage.read_bytes(where))["fits"]
            for stem, entry in tree.items():
                index.add(DoneFit(stem, tuple(Shard(**shard) for shard in entry["shards"]), entry["record"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            index.fits.clear()  # it only gathers what the manifests say
    index.refresh()
    return index


def committed_stems(url: str | Path) -> set[str]:
    """The stems of the fits that are done."""
    return {name[: -len(SUFFIX)] for name in storage.list_names(url) if name.endswith(SUFFIX)}


def read_fit(url: str | Path, stem: str) -> DoneFit:
    """A committed fit. ValueError where its manifest is missing or broken."""
    shards, tree = read_manifest_tree(url, stem + SUFFIX)
    record = tree.get("fit")
    return DoneFit(stem, tuple(shards), record if isinstance(record, dict) else {})


def commit_fit(
    url: str | Path, stem: str, pairs: Iterable[Pair], record: dict[str, Any], *, samples_per_shard: int = 64
) -> tuple[DoneFit, bool]:
    """Write a fit's shards, then its manifest; returns what stands there, and whether this call made it.

    Where another process was first, its fit stands, and shards of ours that it does not list are removed.
    """
    shards = put_shards(pairs, url, samples_per_shard=samples_per_shard, stem=stem)
    record = record | {"pairs": sum(shard.samples for shard in shards), "bytes": sum(shard.bytes for shard in shards)}
    if storage.create(storage.join(url, stem + SUFFIX), manifest_bytes(shards, fit=record)):
        return DoneFit(stem, tuple(shards), record), True
    theirs = read_fit(url, stem)
    for shard in shards:
        if shard.name not in {other.name for other in theirs.shards}:
            storage.delete(storage.join(url, shard.name))
    return theirs, False


def drop_fit(url: str | Path, fit: DoneFit) -> None:
    """Undo a fit: its manifest goes first, so that it is never half there."""
    storage.delete(storage.join(url, fit.stem + SUFFIX))
    for shard in fit.shards:
        storage.delete(storage.join(url, shard.name))


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        num_shards, num_samples: in shards that are whole.
        problems: a line each.
        broken: stems of fits with a broken or missing shard, or with a manifest that cannot be read.
        strays: files that no manifest lists: left over from writers that did not finish.
        outdated: whether ``manifest.json`` is missing or lists something else than the fits' manifests do.
    """

    num_shards: int
    num_samples: int
    problems: tuple[str, ...]
    broken: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    outdated: bool = False


def verify(url: str | Path, *, decoding: bool = True, on_shard: Callable[[], object] = lambda: None) -> Verification:
    """Check every shard against its manifest: size, sha256, number of samples, and that each sample decodes.

    Raises:
        ValueError: nothing there was made by splatfix.
    """
    names = storage.list_names(url)
    stems = sorted(name[: -len(SUFFIX)] for name in names if name.endswith(SUFFIX))
    problems: list[str] = []
    broken: list[str] = []
    listed: list[tuple[str | None, Shard]] = []
    for stem in stems:
        try:
            listed += [(stem, shard) for shard in read_fit(url, stem).shards]
        except ValueError as error:
            problems.append(str(error))
            broken.append(stem)
    outdated = False
    if stems:
        outdated, why = _is_outdated(url, [shard for _, shard in listed])
        problems += why
    else:  # shards that were written without fits
        listed = [(None, shard) for shard in read_manifest_tree(url)[0]]
    whole: list[Shard] = []
    with ThreadPoolExecutor(READERS) as pool:
        checked = pool.map(lambda entry: broken_shard(url, entry[1], decoding=decoding), listed)
        for (owner, shard), problem in zip(listed, checked, strict=True):
            on_shard()
            if problem is None:
                whole.append(shard)
                continue
            problems.append(problem)
            if owner is not None and owner not in broken:
                broken.append(owner)
    known = {shard.name for _, shard in listed}
    strays = [name for name in names if name.endswith((".tar", ".partial")) and name not in known]
    problems += [f"{name}: no manifest lists it" for name in strays]
    return Verification(
        len(whole), sum(s.samples for s in whole), tuple(problems), tuple(sorted(broken)), tuple(strays), outdated
    )


def _is_outdated(url: str | Path, listed: Sequence[Shard]) -> tuple[bool, list[str]]:
    where = storage.join(url, MANIFEST)
    try:
        gathered = {shard.name: shard for shard in read_manifest_tree(url)[0]}
    except ValueError as error:
        return True, [str(error)]
    if gathered != {shard.name: shard for shard in listed}:
        return True, [f"{where}: lists {len(gathered)} shards, the fits' manifests list {len(listed)} or others"]
    return False, []


def repair(url: str | Path, found: Verification) -> list[str]:
    """Drop broken fits and stray files, and gather the manifests anew; returns the stems that have to be made again."""
    for stem in found.broken:
        try:
            drop_fit(url, read_fit(url, stem))
        except ValueError:  # a manifest that cannot be read: its shards are strays then
            storage.delete(storage.join(url, stem + SUFFIX))
    index = Index(str(url))
    index.refresh()
    kept = {shard.name for shard in index.shards()}
    for name in storage.list_names(url):
        if name.endswith((".tar", ".partial")) and name not in kept:
            storage.delete(storage.join(url, name))
    index.write()
    return list(found.broken)
