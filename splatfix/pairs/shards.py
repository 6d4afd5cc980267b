"""Write, read and check shards of pairs: tar files that webdataset reads, and the manifest beside them.

A shard holds samples of one scene, so that readers can balance scenes and leave groups out without opening a file.
Shards are named by their content and written before the manifest that lists them, so that a manifest never lists a
missing file. The same pairs give byte-identical shards.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from splatfix import storage
from splatfix.files import LEFTOVER, parse_json
from splatfix.pairs.pair import EXTENSIONS, Pair, decode, encode
from splatfix.records import parse_record

MANIFEST = "manifest.json"
REMEDY = "not a manifest of splatfix generate, or a broken one"
MAX_SHARD_BYTES = 256 * 2**20
_SHARD_NAME = re.compile(r"[A-Za-z0-9_-]+\.tar")
_HASH_IN_NAME = re.compile(r"-[0-9a-f]{12}(?=\.tar$)")
_SPLAT_NAME = re.compile(r"[A-Za-z0-9_-]+-[0-9a-f]{12}\.ply")
_GENERATED_NAME = re.compile(rf"[A-Za-z0-9_-]+-\d{{5}}-[0-9a-f]{{12}}\.tar|{_SPLAT_NAME.pattern}|{LEFTOVER.pattern}")


@dataclass(frozen=True)
class Shard:
    """An entry of a manifest.

    Attributes:
        name: file name beside the manifest.
        scene, group: of all its samples; training and validation are split by group.
        samples: number of pairs.
        bytes, sha256: size and hash of the file.
    """

    name: str
    scene: str
    group: str
    samples: int
    bytes: int
    sha256: str

    @property
    def name_without_hash(self) -> str:
        """The part of the name that stays when ``verify --repair`` makes the shard again with other content."""
        return _HASH_IN_NAME.sub("", self.name)


@dataclass(frozen=True)
class _Manifest:
    """What is read of a manifest."""

    shards: list[Shard]


def write_shards(
    pairs: Iterable[Pair],
    url: str | Path,
    *,
    samples_per_shard: int = 64,
    stem: str = "pairs",
) -> list[Shard]:
    """Write pairs as shards ``<stem>-<number>-<digest>.tar`` and their manifest into a folder or URL.

    A new shard begins where the scene changes.

    Raises:
        ValueError: no pairs, a duplicate key, or a stem with other characters than letters, digits, - and _.
    """
    shards = write_shard_files(pairs, url, samples_per_shard=samples_per_shard, stem=stem)
    if not shards:
        raise ValueError(f"{url}: no pairs to write")
    write_manifest(url, shards)
    return shards


def write_shard_files(
    pairs: Iterable[Pair],
    url: str | Path,
    *,
    samples_per_shard: int,
    stem: str,
    on_name: Callable[[str], object] = lambda _: None,
) -> list[Shard]:
    """Write shards without a manifest; without pairs, no shard. Errors as `write_shards`.

    ``on_name`` is called with the name of each file before it is written.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", stem):
        raise ValueError(f"stem = {stem!r}: wanted letters, digits, - and _ only")
    shards: list[Shard] = []
    for content, members in _pack_tars(_assign_keys(pairs, url), samples_per_shard):
        digest = hashlib.sha256(content).hexdigest()
        name = f"{stem}-{len(shards):05d}-{digest[:12]}.tar"
        on_name(name)
        storage.write_bytes(storage.join(url, name), content)
        scene = members[0].scene
        group = str(members[0].meta.get("group", scene))
        shards.append(Shard(name, scene, group, len(members), len(content), digest))
    return shards


def _assign_keys(pairs: Iterable[Pair], url: str | Path) -> Iterator[tuple[Pair, str]]:
    """Yield pairs with unique keys: of several with the same key, the later ones get their distinct keys.

    Raises:
        ValueError: two pairs of the same view and fit.
    """
    views_by_key: dict[str, str] = {}
    for pair in pairs:
        key = pair.key
        if views_by_key.get(key, pair.view) != pair.view:
            key = pair.distinct_key
        if key in views_by_key:
            raise ValueError(f"{url}: duplicate key {key}; views of a fit need distinct names")
        views_by_key[key] = pair.view
        yield pair, key


def _pack_tars(pairs: Iterable[tuple[Pair, str]], samples_per_shard: int) -> Iterator[tuple[bytes, list[Pair]]]:
    """Pack pairs into tar files of one scene and limited size; yield the content and the pairs of each."""
    from webdataset import TarWriter  # here, because settings and pages of pairs do without

    buffer, writer = io.BytesIO(), None
    members: list[Pair] = []
    for pair, key in pairs:
        is_full = len(members) >= samples_per_shard or buffer.tell() >= MAX_SHARD_BYTES
        if writer is not None and (is_full or pair.scene != members[0].scene):
            writer.close()
            yield buffer.getvalue(), members
            buffer, writer, members = io.BytesIO(), None, []
        if writer is None:
            writer = TarWriter(buffer, encoder=False, mtime=0)
        writer.write(encode(pair, key))
        members.append(pair)
    if writer is not None:
        writer.close()
        yield buffer.getvalue(), members


def write_manifest(url: str | Path, shards: Iterable[Shard]) -> None:
    """Write ``manifest.json``, which lists the shards."""
    storage.write_bytes(storage.join(url, MANIFEST), encode_manifest(shards))


def encode_manifest(shards: Iterable[Shard], **fields: Any) -> bytes:
    """Encode a manifest of shards as JSON, with further fields."""
    entries = [asdict(shard) for shard in shards]
    tree = {"schema": 1, "samples": sum(entry["samples"] for entry in entries), "shards": entries}
    return (json.dumps(tree | fields, indent=1, allow_nan=False) + "\n").encode()


def read_manifest(url: str | Path, name: str = MANIFEST) -> list[Shard]:
    """Read the shards that the manifest of a folder or URL lists.

    Raises:
        ValueError: the manifest is missing or was not written by splatfix, or a name in it is a path out of the folder.
    """
    return read_manifest_and_fields(url, name)[0]


def read_manifest_and_fields(url: str | Path, name: str = MANIFEST) -> tuple[list[Shard], dict[str, Any]]:
    """Read a manifest, and return its shards and its JSON object. Errors as `read_manifest`."""
    where = storage.join(url, name)
    try:
        content = storage.read_bytes(where)
    except storage.MissingFileError:
        raise ValueError(f"{where}: no such file; wanted a folder of shards from splatfix generate") from None
    tree: Any = parse_json(content, where)
    shards = parse_record(_Manifest, tree, source=where, remedy=REMEDY, schema=1).shards
    check_shards(where, shards)
    return shards, tree


def check_shards(where: str, shards: Iterable[Shard]) -> None:
    """Check that the shards of a manifest are beside it, and not empty. ValueError if they are not."""
    for shard in shards:
        if shard.samples < 1:
            raise ValueError(f"{where}: {shard.name}: samples = {shard.samples}; wanted at least 1; {REMEDY}")
        check_names(where, [shard.name])


def check_names(where: str, names: Iterable[str]) -> None:
    """Check that a manifest names only shards and splats beside it. ValueError if it does not."""
    for name in names:
        if not isinstance(name, str) or not (_SHARD_NAME.fullmatch(name) or _SPLAT_NAME.fullmatch(name)):
            raise ValueError(f"{where}: shard name {name!r}: wanted a plain file name ending in .tar")


def is_generated_name(name: str) -> bool:
    """Whether a file name has the form of the shards, splats and temporary files of a generation."""
    return _GENERATED_NAME.fullmatch(name) is not None


def read_samples(url: str | Path, shard: Shard) -> Iterator[dict[str, Any]]:
    """Read the samples of a shard as bytes, in order.

    Raises:
        ValueError: the file is truncated or not a tar, or, after the last sample, differs from the manifest.
    """
    where = storage.join(url, shard.name)
    with storage.open_binary(where) as stream:
        hashed = _HashedStream(stream)
        yield from read_samples_from(hashed, shard, where)
        if hashed.digest() != shard.sha256:
            raise ValueError(f"{where}: its sha256 differs from the manifest; run splatfix verify --repair on {url}")


class _HashedStream(io.BufferedIOBase):
    """A file that is read from start to end, and the SHA-256 of its content."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream, self._hash = stream, hashlib.sha256()

    def read(self, size: int | None = -1, /) -> bytes:
        content = self._stream.read(size)
        self._hash.update(content)
        return content

    def digest(self) -> str:
        """The digest of the whole file, in hexadecimal digits."""
        while self.read(1 << 20):  # what follows the last member of a tar
            pass
        return self._hash.hexdigest()


def read_samples_from(stream: io.BufferedIOBase, shard: Shard, where: str) -> Iterator[dict[str, Any]]:
    """Read the samples of a shard from an open file. Errors as `read_samples`."""
    from webdataset.tariterators import group_by_keys, tar_file_expander

    num = 0
    samples = group_by_keys(tar_file_expander([{"url": where, "stream": stream}], select_files=_is_allowed))
    while True:
        try:
            sample = next(samples, None)
        except Exception as error:  # webdataset raises the many kinds of errors of tarfile and zlib
            reason = error.args[0] if error.args else error
            raise ValueError(f"{where}: cannot be read as a shard ({reason})") from None
        if sample is None:
            break
        num += 1
        yield sample
    if num != shard.samples:
        raise ValueError(f"{where}: {num} samples, its manifest lists {shard.samples}; is the file whole?")


def read_pairs(url: str | Path, shards: Iterable[Shard] | None = None) -> Iterator[Pair]:
    """Read each pair of the shards once, in order; by default, of all shards in the manifest."""
    for shard in read_manifest(url) if shards is None else shards:
        for sample in read_samples(url, shard):
            yield decode(sample, shard.name)


def check_shard(url: str | Path, shard: Shard, *, decoding: bool = True) -> str | None:
    """Check size, sha256, number of samples, and that each sample decodes; return the problem, or None."""
    try:
        content = storage.read_bytes(storage.join(url, shard.name))
        if len(content) != shard.bytes:
            raise ValueError(f"{shard.name}: {len(content)} bytes, its manifest lists {shard.bytes}")
        if hashlib.sha256(content).hexdigest() != shard.sha256:
            raise ValueError(f"{shard.name}: its sha256 differs from the manifest")
        for sample in read_samples_from(io.BytesIO(content), shard, storage.join(url, shard.name)):
            if decoding:
                decode(sample, shard.name)
    except ValueError as error:
        return str(error)
    return None


def _is_allowed(name: str) -> bool:
    return name.partition(".")[2] in EXTENSIONS and "/" not in name
