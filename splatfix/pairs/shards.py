"""Shards of pairs: tar files that webdataset reads, and the manifest beside them.

A shard holds samples of one scene, so that readers can balance scenes and leave groups out without opening a file.
Shards are named by their content and committed before the manifest that lists them; nothing is listed that is not
there. The same pairs make byte-identical shards.
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

import webdataset as wds
from webdataset.tariterators import group_by_keys, tar_file_expander

from splatfix import storage
from splatfix.files import LEFTOVER
from splatfix.pairs.pair import EXTENSIONS, Pair, decode, encode

MANIFEST = "manifest.json"
MAX_SHARD_BYTES = 256 * 2**20
_SHARD_NAME = re.compile(r"[A-Za-z0-9_-]+\.tar")
OURS = re.compile(r"[A-Za-z0-9_-]+-\d{5}-[0-9a-f]{12}\.tar|[A-Za-z0-9_-]+-[0-9a-f]{12}\.ply|" + LEFTOVER.pattern)


@dataclass(frozen=True)
class Shard:
    """One line of a manifest.

    Attributes:
        name: file name beside the manifest.
        scene, group: of all its samples; train and validation are split by group.
        samples: number of pairs.
        bytes, sha256: of the file.
    """

    name: str
    scene: str
    group: str
    samples: int
    bytes: int
    sha256: str


def write_shards(
    pairs: Iterable[Pair],
    url: str | Path,
    *,
    samples_per_shard: int = 64,
    stem: str = "pairs",
) -> list[Shard]:
    """Write pairs as shards ``<stem>-<number>-<content>.tar`` and their manifest into a folder or URL.

    A new shard begins where the scene changes.

    Raises:
        ValueError: no pairs, a key that stands twice, or a stem that is not plain.
    """
    shards = put_shards(pairs, url, samples_per_shard=samples_per_shard, stem=stem)
    if not shards:
        raise ValueError(f"{url}: no pairs to write")
    write_manifest(url, shards)
    return shards


def put_shards(
    pairs: Iterable[Pair],
    url: str | Path,
    *,
    samples_per_shard: int,
    stem: str,
    on_name: Callable[[str], object] = lambda _: None,
) -> list[Shard]:
    """Write shards that no manifest lists yet; no pairs make no shards. Errors as `write_shards`.

    ``on_name`` is told the name of each file before it is written.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", stem):
        raise ValueError(f"stem = {stem!r}: wanted letters, digits, - and _ only")
    shards: list[Shard] = []
    seen: set[str] = set()
    for content, members in _tars(pairs, samples_per_shard):
        for pair in members:
            if pair.key in seen:
                raise ValueError(f"{url}: the key {pair.key} stands twice; views of a fit need distinct names")
            seen.add(pair.key)
        digest = hashlib.sha256(content).hexdigest()
        name = f"{stem}-{len(shards):05d}-{digest[:12]}.tar"
        on_name(name)
        storage.write_bytes(storage.join(url, name), content)
        scene = members[0].scene
        group = str(members[0].meta.get("group", scene))
        shards.append(Shard(name, scene, group, len(members), len(content), digest))
    return shards


def _tars(pairs: Iterable[Pair], samples_per_shard: int) -> Iterator[tuple[bytes, list[Pair]]]:
    """Tar files of at most so many samples (and 256 MiB) of one scene, with the pairs that each holds."""
    buffer, writer = io.BytesIO(), None
    members: list[Pair] = []
    for pair in pairs:
        full = len(members) >= samples_per_shard or buffer.tell() >= MAX_SHARD_BYTES
        if writer is not None and (full or pair.scene != members[0].scene):
            writer.close()
            yield buffer.getvalue(), members
            buffer, writer, members = io.BytesIO(), None, []
        if writer is None:
            writer = wds.TarWriter(buffer, encoder=False, mtime=0)
        writer.write(encode(pair))
        members.append(pair)
    if writer is not None:
        writer.close()
        yield buffer.getvalue(), members


def write_manifest(url: str | Path, shards: Iterable[Shard]) -> None:
    """Write ``manifest.json``, which lists these shards."""
    storage.write_bytes(storage.join(url, MANIFEST), manifest_bytes(shards))


def manifest_bytes(shards: Iterable[Shard], **more: Any) -> bytes:
    """A manifest of these shards, with whatever else is to stand in it."""
    listed = list(shards)
    tree = {"schema": 1, "samples": sum(shard.samples for shard in listed), "shards": [asdict(s) for s in listed]}
    return (json.dumps(tree | more, indent=1, allow_nan=False) + "\n").encode()


def read_manifest(url: str | Path, name: str = MANIFEST) -> list[Shard]:
    """The shards that a folder or URL lists.

    Raises:
        ValueError: no manifest, or one that is not splatfix's; names may not leave the folder.
    """
    return read_manifest_tree(url, name)[0]


def read_manifest_tree(url: str | Path, name: str = MANIFEST) -> tuple[list[Shard], dict[str, Any]]:
    """The shards that a manifest lists, and all that it says. Errors as `read_manifest`."""
    where = storage.join(url, name)
    try:
        content = storage.read_bytes(where)
    except storage.MissingFileError:
        raise ValueError(f"{where}: no such file; wanted a folder of shards (splatfix generate makes one)") from None
    try:
        tree: Any = json.loads(content)
        shards = [Shard(**entry) for entry in tree["shards"]]
        known = tree["schema"] == 1 and all(isinstance(s.name, str) and s.samples > 0 for s in shards)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where}: not a manifest of shards ({error})") from None
    if not known:
        raise ValueError(f"{where}: schema = {tree['schema']!r}, wanted 1 with named shards of at least one sample")
    check_names(where, [shard.name for shard in shards])
    return shards, tree


def check_names(where: str, names: Iterable[str]) -> None:
    """ValueError where a manifest names something that is no plain file beside it."""
    for name in names:
        if not isinstance(name, str) or not (_SHARD_NAME.fullmatch(name) or OURS.fullmatch(name)):
            raise ValueError(f"{where}: shard name {name!r}: wanted a plain file name ending in .tar")


def read_samples(url: str | Path, shard: Shard) -> Iterator[dict[str, Any]]:
    """The samples of a shard as bytes, in order. ValueError where the file is cut short or not a tar."""
    where = storage.join(url, shard.name)
    with storage.open_binary(where) as stream:
        yield from samples_in(stream, shard, where)


def samples_in(stream: io.BufferedIOBase, shard: Shard, where: str) -> Iterator[dict[str, Any]]:
    """As `read_samples`, from an open file."""
    num = 0
    samples = group_by_keys(tar_file_expander([{"url": where, "stream": stream}], select_files=_allowed))
    while True:
        try:
            sample = next(samples, None)
        except Exception as error:  # webdataset passes on whatever tarfile and zlib raise
            reason = error.args[0] if error.args else error
            raise ValueError(f"{where}: cannot be read as a shard ({reason})") from None
        if sample is None:
            break
        num += 1
        yield sample
    if num != shard.samples:
        raise ValueError(f"{where}: {num} samples, its manifest says {shard.samples}; is the file whole?")


def read_pairs(url: str | Path, shards: Iterable[Shard] | None = None) -> Iterator[Pair]:
    """Every pair of the shards (default: all in the manifest), once, in order."""
    for shard in read_manifest(url) if shards is None else shards:
        for sample in read_samples(url, shard):
            yield decode(sample, shard.name)


def broken_shard(url: str | Path, shard: Shard, *, decoding: bool = True) -> str | None:
    """What is wrong with a shard: its size, sha256, number of samples, or a sample that does not decode."""
    try:
        content = storage.read_bytes(storage.join(url, shard.name))
        if len(content) != shard.bytes:
            raise ValueError(f"{shard.name}: {len(content)} bytes, its manifest says {shard.bytes}")
        if hashlib.sha256(content).hexdigest() != shard.sha256:
            raise ValueError(f"{shard.name}: its sha256 is not the one in the manifest")
        for sample in samples_in(io.BytesIO(content), shard, storage.join(url, shard.name)):
            if decoding:
                decode(sample, shard.name)
    except ValueError as error:
        return str(error)
    return None


def _allowed(name: str) -> bool:
    return name.partition(".")[2] in EXTENSIONS and "/" not in name
