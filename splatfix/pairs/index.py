"""What a folder of pairs holds: one manifest for each fit, and two files that gather them.

A fit is done when ``<stem>.manifest.json`` stands in the folder; it lists the fit's files and says how the fit was
made. Whoever writes it first has made the fit, also when several work on the same output. ``fits.json`` gathers these
manifests, so that a later run reads one file and lists one folder; ``manifest.json`` lists all shards, for readers.
Both can be made again from the fits' manifests.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from splatfix import storage
from splatfix.pairs.pair import Pair
from splatfix.pairs.shards import (
    MANIFEST,
    OURS,
    Shard,
    broken_shard,
    check_names,
    manifest_bytes,
    put_shards,
    read_manifest_tree,
    write_manifest,
)
from splatfix.workers import RunAborted

FITS = "fits.json"
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)  # and will be, for every other fit
SUFFIX = f".{MANIFEST}"
READERS = 16  # manifests or shards read at a time
MAX_GATHERINGS = 5  # while other drivers keep finishing fits


@dataclass(frozen=True)
class DoneFit:
    """A committed fit: its shards (none where every view was filtered, or for a dense fit), and how it was made.

    ``record["files"]`` lists what it left besides shards, each with ``name``, ``bytes`` and ``sha256``.
    """

    stem: str
    shards: tuple[Shard, ...]
    record: dict[str, Any]

    @property
    def file_names(self) -> list[str]:
        """Of all that it left, but the manifest."""
        return [shard.name for shard in self.shards] + [file["name"] for file in self.record.get("files", [])]


class Index(Mapping[str, DoneFit]):
    """The committed fits of a folder, by stem. Kept as text: there may be hundreds of thousands."""

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        self._fits: dict[str, bytes] = {}

    def __getitem__(self, stem: str) -> DoneFit:
        tree = json.loads(self._fits[stem])
        return DoneFit(stem, tuple(Shard(**shard) for shard in tree["shards"]), tree["record"])

    def __iter__(self) -> Iterator[str]:
        return iter(self._fits)

    def __len__(self) -> int:
        return len(self._fits)

    def __contains__(self, stem: object) -> bool:
        return stem in self._fits

    def add(self, fit: DoneFit) -> None:
        """A fit that was just committed."""
        tree = {"shards": [asdict(shard) for shard in fit.shards], "record": fit.record}
        self._fits[fit.stem] = json.dumps(tree, allow_nan=False, separators=(",", ":")).encode()

    def refresh(self) -> bool:
        """Take up what stands in the folder: fits that others made, and none that are gone. Whether that was news."""
        stems = committed_stems(self.url)
        gone, missing = set(self._fits) - stems, sorted(stems - set(self._fits))
        for stem in gone:
            del self._fits[stem]
        with ThreadPoolExecutor(READERS) as pool:
            for fit in pool.map(lambda stem: read_fit(self.url, stem), missing):
                self.add(fit)
        return bool(gone or missing)

    def shards(self) -> list[Shard]:
        """Of all fits, by name."""
        return sorted((shard for fit in self.values() for shard in fit.shards), key=lambda shard: shard.name)

    def write(self) -> None:
        """Write ``fits.json`` and ``manifest.json``, with what other drivers have finished meanwhile."""
        self.refresh()
        for _ in range(MAX_GATHERINGS):
            parts = (json.dumps(stem).encode() + b":" + self._fits[stem] for stem in sorted(self._fits))
            storage.write_bytes(storage.join(self.url, FITS), b'{"schema":1,"fits":{' + b",\n".join(parts) + b"}}\n")
            write_manifest(self.url, self.shards())
            if not self.refresh():  # else another driver may have gathered before, and known less than there is now
                return


def open_index(url: str | Path) -> Index:
    """The index of a folder, complete: from ``fits.json``, and from the manifests that it does not know yet."""
    index, where = Index(url), storage.join(url, FITS)
    if storage.exists(where):
        try:
            for stem, entry in json.loads(storage.read_bytes(where))["fits"].items():
                fit = DoneFit(stem, tuple(Shard(**shard) for shard in entry["shards"]), dict(entry["record"]))
                check_names(where, fit.file_names)
                index.add(fit)
        except (ValueError, KeyError, TypeError, AttributeError):
            index = Index(url)  # it only gathers what the manifests say
    index.refresh()
    return index


def committed_stems(url: str | Path) -> set[str]:
    """The stems of the fits that are done."""
    return {name[: -len(SUFFIX)] for name in storage.list_names(url) if name.endswith(SUFFIX)}


def read_fit(url: str | Path, stem: str) -> DoneFit:
    """A committed fit. ValueError where its manifest is missing or broken."""
    shards, tree = read_manifest_tree(url, stem + SUFFIX)
    record = tree.get("fit")
    fit = DoneFit(stem, tuple(shards), record if isinstance(record, dict) else {})
    try:
        check_names(storage.join(url, stem + SUFFIX), fit.file_names)
    except (KeyError, TypeError):
        raise ValueError(f"{storage.join(url, stem + SUFFIX)}: fit.files: wanted name, bytes and sha256 each") from None
    return fit


def commit_fit(
    url: str | Path,
    stem: str,
    pairs: Iterable[Pair],
    record: dict[str, Any],
    *,
    files: Mapping[str, bytes] | None = None,
    samples_per_shard: int = 64,
) -> tuple[DoneFit, bool]:
    """Write a fit's shards and files, then its manifest; returns what stands there, and whether this call made it.

    ``files`` are further contents by suffix (``.ply``); their names follow from stem and content, as those of shards
    do. Where another process was first, its fit stands, and files of ours that it does not list are removed. Where
    writing fails, so are all.

    Raises:
        RunAborted: nobody may write here.
        OSError: writing failed.
    """
    written: list[str] = []
    try:
        kept = []
        for suffix, content in (files or {}).items():
            digest = hashlib.sha256(content).hexdigest()
            written.append(f"{stem}-{digest[:12]}{suffix}")
            storage.write_bytes(storage.join(url, written[-1]), content)
            kept.append({"name": written[-1], "bytes": len(content), "sha256": digest})
        shards = put_shards(
            pairs, url, samples_per_shard=samples_per_shard, stem=stem, on_name=lambda name: written.append(name)
        )
        record = record | {"pairs": sum(shard.samples for shard in shards)}
        record |= {"bytes": sum(shard.bytes for shard in shards), "files": kept}
        first = storage.create(storage.join(url, stem + SUFFIX), manifest_bytes(shards, fit=record))
    except BaseException as error:
        _remove_unlisted(url, stem, written)
        if isinstance(error, OSError) and error.errno in REFUSED:
            raise RunAborted(f"{url}: may not be written to ({error}); what was finished is whole") from None
        raise
    if first:
        return DoneFit(stem, tuple(shards), record), True
    _remove_unlisted(url, stem, written)
    return read_fit(url, stem), False


def _remove_unlisted(url: str | Path, stem: str, names: Sequence[str]) -> None:
    """Remove files of a fit, but for those that its manifest lists, if there is one by now."""
    try:
        listed = read_fit(url, stem).file_names if storage.exists(storage.join(url, stem + SUFFIX)) else []
        for name in set(names) - set(listed):
            storage.delete(storage.join(url, name))
    except (OSError, ValueError):
        return  # they stay as strays, which `verify` names


def drop_fit(url: str | Path, fit: DoneFit) -> None:
    """Undo a fit: its manifest goes first, so that it is never half there."""
    storage.delete(storage.join(url, fit.stem + SUFFIX))
    for name in fit.file_names:
        storage.delete(storage.join(url, name))


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        num_shards, num_samples: in shards that are whole.
        problems: a line each.
        broken: stems of fits with a broken or missing file, or with a manifest that cannot be read.
        strays: files of ours that no manifest lists: left over from writers that did not finish.
        outdated: whether ``manifest.json`` is missing or lists something else than the fits' manifests do.
    """

    num_shards: int
    num_samples: int
    problems: tuple[str, ...]
    broken: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    outdated: bool = False


def verify(url: str | Path, *, decoding: bool = True, on_file: Callable[[], object] = lambda: None) -> Verification:
    """Check every file against its manifest: size, sha256, number of samples, and that each sample decodes.

    Raises:
        ValueError: nothing there was made by splatfix.
        OSError: the place cannot be read now; nothing is known then.
    """
    names = storage.list_names(url)
    stems = sorted(name[: -len(SUFFIX)] for name in names if name.endswith(SUFFIX))
    problems: list[str] = []
    broken: set[str] = set()
    files: list[tuple[str | None, Shard | dict[str, Any]]] = []
    with ThreadPoolExecutor(READERS) as pool:
        for stem, fit in zip(stems, pool.map(lambda stem: _read_or_reason(url, stem), stems), strict=True):
            if isinstance(fit, str):
                problems.append(fit)
                broken.add(stem)
                continue
            files += [(stem, shard) for shard in fit.shards]
            files += [(stem, file) for file in fit.record.get("files", [])]
        outdated = False
        if stems:
            outdated, why = _is_outdated(url, [file for _, file in files if isinstance(file, Shard)])
            problems += why
        else:  # shards that were written without fits
            files = [(None, shard) for shard in read_manifest_tree(url)[0]]
        whole: list[Shard] = []
        checked = pool.map(lambda entry: _problem(url, entry[1], decoding), files)
        for (owner, file), problem in zip(files, checked, strict=True):
            on_file()
            if problem is not None:
                problems.append(problem)
                broken.update([owner] if owner is not None else [])
            elif isinstance(file, Shard):
                whole.append(file)
    known = {file.name if isinstance(file, Shard) else file["name"] for _, file in files}
    strays = [name for name in names if OURS.fullmatch(name) and name not in known]
    problems += [f"{name}: no manifest lists it" for name in strays]
    num_samples = sum(shard.samples for shard in whole)
    return Verification(len(whole), num_samples, tuple(problems), tuple(sorted(broken)), tuple(strays), outdated)


def _read_or_reason(url: str | Path, stem: str) -> DoneFit | str:
    try:
        return read_fit(url, stem)
    except ValueError as error:
        return str(error)


def _problem(url: str | Path, file: Shard | dict[str, Any], decoding: bool) -> str | None:
    if isinstance(file, Shard):
        return broken_shard(url, file, decoding=decoding)
    try:
        content = storage.read_bytes(storage.join(url, file["name"]))
    except ValueError as error:
        return str(error)
    same = len(content) == file["bytes"] and hashlib.sha256(content).hexdigest() == file["sha256"]
    return None if same else f"{file['name']}: its content is not the one in the manifest"


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
    """Drop broken fits and stray files, and gather the manifests anew; returns the stems that have to be made again.

    Raises:
        ValueError: the shards were not made by a generation, so that nothing here could make them again.
    """
    if not committed_stems(url):
        raise ValueError(f"{url}: there are no manifests of fits (*{SUFFIX}); shards without them cannot be repaired")
    for stem in found.broken:
        fit = _read_or_reason(url, stem)
        if isinstance(fit, str):  # a manifest that cannot be read: its files are strays then
            storage.delete(storage.join(url, stem + SUFFIX))
        else:
            drop_fit(url, fit)
    index = Index(url)
    index.refresh()
    kept = {name for fit in index.values() for name in fit.file_names}
    for name in storage.list_names(url):
        if OURS.fullmatch(name) and name not in kept:
            storage.delete(storage.join(url, name))
    index.write()
    return list(found.broken)
