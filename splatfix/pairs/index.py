"""The index of a folder of pairs: its committed fits, from the manifest of each.

A fit is committed when ``<stem>.manifest.json`` exists, which lists the files of the fit and records its settings. If
several processes make the same fit, the first to write its manifest wins. ``fits.json`` collects these manifests, so
that a later run reads one file and lists one folder; ``manifest.json`` lists all shards, for readers. Both can be
rebuilt from the manifests of the fits.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from splatfix import storage
from splatfix.files import parse_json
from splatfix.messages import hide_secrets
from splatfix.pairs.pair import Pair
from splatfix.pairs.shards import (
    MANIFEST,
    REMEDY,
    Shard,
    check_names,
    check_shards,
    encode_manifest,
    read_manifest_and_fields,
    write_manifest,
    write_shard_files,
)
from splatfix.records import parse_record
from splatfix.workers import RunAborted

FITS = "fits.json"
REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS)  # that writing any other fit would cause too
SUFFIX = f".{MANIFEST}"
MAX_WRITES = 5  # of the collected manifests, while other processes keep committing fits


@dataclass(frozen=True)
class CommittedFit:
    """A committed fit: its shards (none for a dense fit, or if every view was filtered), and a record of its settings.

    ``record["files"]`` lists its files besides shards, each with ``name``, ``bytes`` and ``sha256``.
    """

    stem: str
    shards: tuple[Shard, ...]
    record: dict[str, Any]

    @property
    def file_names(self) -> list[str]:
        """Names of all files of the fit except the manifest."""
        return [shard.name for shard in self.shards] + [file["name"] for file in self.record.get("files", [])]


@dataclass(frozen=True, kw_only=True)
class _File:
    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class _Record:
    """The types of the fields of a fit's record that are read again; all may be missing, and others are kept."""

    scene: str | None = None
    group: str | None = None
    source: str | None = None
    capture: str | None = None
    kind: str | None = None
    recipe: str | None = None
    skipped: str | None = None
    pairs: int = 0
    bytes: int = 0
    filtered: int = 0
    psnr_held_out: float | None = None
    files: list[_File] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    bands: dict[str, int] = field(default_factory=dict)
    clean_from: dict[str, int] = field(default_factory=dict)
    psnr: dict[int, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _FitManifest:
    fit: _Record = field(default_factory=_Record)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    shards: list[Shard]
    record: _Record


@dataclass(frozen=True, kw_only=True)
class _Collected:
    """What is read of ``fits.json``."""

    fits: dict[str, _Entry]


class Index(Mapping[str, CommittedFit]):
    """The committed fits of a folder, by stem. Stored as JSON text, since there may be hundreds of thousands."""

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        self._fits: dict[str, bytes] = {}

    def __getitem__(self, stem: str) -> CommittedFit:
        tree = json.loads(self._fits[stem])
        return CommittedFit(stem, tuple(Shard(**shard) for shard in tree["shards"]), tree["record"])

    def __iter__(self) -> Iterator[str]:
        return iter(self._fits)

    def __len__(self) -> int:
        return len(self._fits)

    def __contains__(self, stem: object) -> bool:
        return stem in self._fits

    def add(self, fit: CommittedFit) -> None:
        """Add a fit that was just committed."""
        tree = {"shards": [asdict(shard) for shard in fit.shards], "record": fit.record}
        self._fits[fit.stem] = json.dumps(tree, allow_nan=False, separators=(",", ":")).encode()

    def refresh(self) -> bool:
        """Add fits that other processes committed and remove deleted ones; return whether anything changed."""
        stems = list_committed_stems(self.url)
        gone, missing = set(self._fits) - stems, sorted(stems - set(self._fits))
        for stem in gone:
            del self._fits[stem]
        for fit in storage.in_parallel(lambda stem: read_fit(self.url, stem), missing):
            self.add(fit)
        return bool(gone or missing)

    def shards(self) -> list[Shard]:
        """The shards of all fits, sorted by name."""
        return sorted((shard for fit in self.values() for shard in fit.shards), key=lambda shard: shard.name)

    def write(self, *, max_writes: int = MAX_WRITES) -> None:
        """Write ``fits.json`` and ``manifest.json`` as the folder is; again, if a fit is committed meanwhile.

        A driver has the lease of the folder, but a worker that it has given up may still commit a fit.
        """
        self.refresh()
        for number in range(max_writes):
            parts = (json.dumps(stem).encode() + b":" + self._fits[stem] for stem in sorted(self._fits))
            storage.write_bytes(storage.join(self.url, FITS), b'{"schema":1,"fits":{' + b",\n".join(parts) + b"}}\n")
            write_manifest(self.url, self.shards())
            if number + 1 == max_writes or not self.refresh():  # otherwise, these files may lack a fit
                return


def open_index(url: str | Path) -> Index:
    """Read the index of a folder: ``fits.json``, and the manifests of fits that it does not list yet."""
    index, where = Index(url), storage.join(url, FITS)
    if storage.exists(where):
        try:
            tree = parse_json(storage.read_bytes(where), where)
            for stem, entry in parse_record(_Collected, tree, source=where, remedy=REMEDY, schema=1).fits.items():
                fit = CommittedFit(stem, tuple(entry.shards), tree["fits"][stem]["record"])
                check_shards(where, fit.shards)
                check_names(where, fit.file_names)
                index.add(fit)
        except ValueError:
            index = Index(url)  # rebuilt from the manifests below
    index.refresh()
    return index


def list_committed_stems(url: str | Path) -> set[str]:
    """List the stems of the committed fits."""
    return {name[: -len(SUFFIX)] for name in storage.list_names(url) if name.endswith(SUFFIX)}


def read_fit(url: str | Path, stem: str) -> CommittedFit:
    """Read a committed fit. ValueError if its manifest is missing or broken."""
    shards, tree = read_manifest_and_fields(url, stem + SUFFIX)
    where = storage.join(url, stem + SUFFIX)
    parse_record(_FitManifest, tree, source=where, remedy=REMEDY)
    fit = CommittedFit(stem, tuple(shards), tree.get("fit", {}))
    check_names(where, fit.file_names)
    return fit


def read_file(url: str | Path, file: Mapping[str, Any]) -> bytes:
    """Read a file of a fit that is no shard. ValueError if it is not what the manifest of the fit lists."""
    content = storage.read_bytes(storage.join(url, file["name"]))
    if len(content) != file["bytes"] or hashlib.sha256(content).hexdigest() != file["sha256"]:
        raise ValueError(
            f"{file['name']}: its content differs from the manifest; run splatfix verify --repair on {url}"
        )
    return content


def commit_fit(
    url: str | Path,
    stem: str,
    pairs: Iterable[Pair],
    record: dict[str, Any],
    *,
    files: Mapping[str, bytes] | None = None,
    samples_per_shard: int = 64,
) -> tuple[CommittedFit, bool]:
    """Write the shards and files of a fit, then its manifest.

    ``files`` are the contents of further files by suffix (``.ply``), which are named by stem and content as shards are.
    If another process committed the fit first, files of this call that are not part of that fit are removed. If writing
    fails, all are removed.

    Returns:
        The fit in the folder, and whether this call committed it.

    Raises:
        RunAborted: this process has no permission to write to the folder.
        OSError: writing failed.
    """
    written: list[str] = []
    try:
        entries = []
        for suffix, content in (files or {}).items():
            digest = hashlib.sha256(content).hexdigest()
            written.append(f"{stem}-{digest[:12]}{suffix}")
            storage.write_bytes(storage.join(url, written[-1]), content)
            entries.append({"name": written[-1], "bytes": len(content), "sha256": digest})
        shards = write_shard_files(
            pairs, url, samples_per_shard=samples_per_shard, stem=stem, on_name=lambda name: written.append(name)
        )
        record = hide_secrets(record) | {"pairs": sum(shard.samples for shard in shards)}
        record |= {"bytes": sum(shard.bytes for shard in shards), "files": entries}
        is_first = storage.create(storage.join(url, stem + SUFFIX), encode_manifest(shards, fit=record))
    except BaseException as error:
        _delete_unlisted(url, stem, written)
        if isinstance(error, OSError) and error.errno in REFUSALS:
            raise RunAborted(f"{url}: cannot be written to ({error}); finished fits are intact") from None
        raise
    if is_first:
        return CommittedFit(stem, tuple(shards), record), True
    _delete_unlisted(url, stem, written)
    return read_fit(url, stem), False


def _delete_unlisted(url: str | Path, stem: str, names: Sequence[str]) -> None:
    """Delete files of a fit, except those that its manifest, if any, lists."""
    try:
        listed = read_fit(url, stem).file_names if storage.exists(storage.join(url, stem + SUFFIX)) else []
        for name in set(names) - set(listed):
            storage.delete(storage.join(url, name))
    except (OSError, ValueError):
        return  # the files remain; `verify` reports them as unlisted


def delete_fit(url: str | Path, fit: CommittedFit) -> None:
    """Delete a fit, its manifest first, so that no manifest lists a missing file."""
    storage.delete(storage.join(url, fit.stem + SUFFIX))
    for name in fit.file_names:
        storage.delete(storage.join(url, name))
