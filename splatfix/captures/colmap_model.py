"""Read COLMAP's model files, binary and text: cameras, images, points3D.

``pycolmap.Reconstruction`` is not used because it accepts a truncated ``cameras.bin``, requires ``points3D`` and names
no file in its errors. The layout is COLMAP's documented output format.
"""

from __future__ import annotations

import codecs
import math
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy import ndarray

from splatfix.captures.clouds import find_plausible
from splatfix.captures.lenses import MODEL_OF_ID, NUM_PARAMS, Lens, make_lens
from splatfix.file_kinds import refuse_pointer
from splatfix.shapes import Float

T = TypeVar("T")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf)")
MIN_IMAGE_BYTES = 74  # of an image in images.bin: ids, pose, a name of one letter, no points
_POINT = struct.Struct("<Q3d3BdQ")  # id, position, color, error, length of the track
MAX_BROKEN_SHARE = 0.1  # of the points, which are dropped; a file with more was not written whole


@dataclass(frozen=True, eq=False)
class PosedImage:
    """An image of the model: name, camera id, and ``camera_from_world`` as quaternion wxyz and translation."""

    name: str
    camera_id: int
    quaternion: Float[ndarray, "4"]
    translation: Float[ndarray, "3"]


@dataclass(frozen=True, eq=False)
class ModelPoints:
    """Points with, for each, the ids of the images that saw it; and how many points were dropped as broken."""

    positions: Float[ndarray, "P 3"]
    colors: Float[ndarray, "P 3"]
    tracks: list[frozenset[int]]
    num_broken: int


class _BinaryFile:
    """A binary file, read from start to end; errors of truncated files name the item that was being read."""

    def __init__(self, path: Path):
        self.path, self.data, self.offset = path, _read_bytes(path), 0

    def read(self, layout: str, item: str) -> tuple:
        """Read the next values, in a layout of `struct` (little endian)."""
        size = struct.calcsize("<" + layout)
        self.skip(size, item)
        return struct.unpack_from("<" + layout, self.data, self.offset - size)

    def skip(self, size: int, item: str) -> None:
        """Skip bytes."""
        if size > len(self.data) - self.offset:
            raise ValueError(f"{self.path}: truncated within {item} ({len(self.data)} bytes); wanted the whole file")
        self.offset += size

    def read_text(self, item: str) -> str:
        """Read the next zero-terminated string; bytes that are not UTF-8 become surrogates (`code_pages`)."""
        end = self.data.find(b"\0", self.offset)
        if end < 0:
            self.skip(len(self.data) + 1, item)
        raw, self.offset = self.data[self.offset : end], end + 1
        return raw.decode(errors="surrogateescape")


def read_cameras(path: Path) -> dict[int, Lens]:
    """Read lenses by camera id, from ``cameras.bin`` or ``cameras.txt``. ValueError if the file is broken."""
    return _by_id(path, "camera", _read_cameras_text(path) if path.suffix == ".txt" else _read_cameras_binary(path))


def read_images(path: Path) -> dict[int, PosedImage]:
    """Read posed images by image id, from ``images.bin`` or ``images.txt``. ValueError if the file is broken."""
    return _by_id(path, "image", _read_images_text(path) if path.suffix == ".txt" else _read_images_binary(path))


def _by_id(path: Path, kind: str, items: Iterable[tuple[int, T]]) -> dict[int, T]:
    """Collect items by id. ValueError if an id occurs twice."""
    found: dict[int, T] = {}
    for number, item in items:
        if number in found:
            raise ValueError(f"{path}: {kind} {number} occurs twice; wanted an id for each {kind}")
        found[number] = item
    return found


def read_points3d(path: Path) -> ModelPoints:
    """Read points from ``points3D.bin`` or ``points3D.txt``, without those whose position is not plausible.

    Raises:
        ValueError: the file is broken, or more than a tenth of its points are.
    """
    rows = list(_read_points_text(path) if path.suffix == ".txt" else _read_points_binary(path))
    positions = np.array([row[0] for row in rows], np.float64).reshape(-1, 3)
    colors = np.array([row[1] for row in rows], np.float32).reshape(-1, 3) / 255
    keep = find_plausible(positions)
    num_broken = int((~keep).sum())
    if num_broken > MAX_BROKEN_SHARE * len(rows):
        raise ValueError(
            f"{path}: {num_broken} of {len(rows)} points are not finite, or impossibly far from the others (point "
            f"number {keep.argmin()} is {positions[~keep][0].tolist()}); wanted finite numbers"
        )
    tracks = [row[2] for row, kept in zip(rows, keep.tolist(), strict=True) if kept]
    return ModelPoints(positions[keep], colors[keep], tracks, num_broken)


def count_images(path: Path, num_bytes: int) -> int:
    """Count the images of ``images.bin`` or ``images.txt``, of the first from its header alone.

    ``num_bytes`` is the size of the whole file; a count that it cannot hold is that of a broken file, and 0.
    """
    if path.suffix == ".txt":
        return sum(1 for _ in _read_images_text(path))
    refuse_pointer(path)
    with path.open("rb") as file:
        count = int.from_bytes(file.read(8), "little")
    return count if 8 + MIN_IMAGE_BYTES * count <= num_bytes else 0


def _read_cameras_binary(path: Path) -> Iterator[tuple[int, Lens]]:
    file = _BinaryFile(path)
    (count,) = file.read("Q", "the camera count")
    for index in range(count):
        camera_id, model_id, width, height = file.read("IiQQ", f"camera number {index}")
        if model_id not in MODEL_OF_ID:
            raise ValueError(f"{path}: camera {camera_id}: model id {model_id}; wanted one of {sorted(MODEL_OF_ID)}")
        model = MODEL_OF_ID[model_id]
        params = file.read(f"{NUM_PARAMS[model]}d", f"camera {camera_id}")
        yield camera_id, make_lens(model, width, height, params, f"{path}: camera {camera_id}")


def _read_cameras_text(path: Path) -> Iterator[tuple[int, Lens]]:
    for number, line in _read_lines(path):
        if not line:
            continue
        fields = line.split()
        where = f"{path}: line {number}"
        if len(fields) < 5:
            raise ValueError(f"{where}: {line[:60]!r}; wanted CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]")
        camera_id, width, height, *params = _parse_numbers([fields[0], *fields[2:]], where)
        yield (
            _as_id(camera_id, where),
            make_lens(fields[1], width, height, tuple(params), f"{path}: camera {fields[0]}"),
        )


def _read_images_binary(path: Path) -> Iterator[tuple[int, PosedImage]]:
    file = _BinaryFile(path)
    (count,) = file.read("Q", "the image count")
    for index in range(count):
        item = f"image number {index} of {count}"
        image_id, *pose, camera_id = file.read("I7dI", item)
        name = file.read_text(item)
        (num_points,) = file.read("Q", item)
        file.skip(24 * num_points, item)  # x, y, point id
        yield image_id, PosedImage(name, camera_id, np.array(pose[:4]), np.array(pose[4:]))


def _read_images_text(path: Path) -> Iterator[tuple[int, PosedImage]]:
    """Read the first of the two lines of each image; the second, with its 2D points, may be empty or missing."""
    has_points_line = True
    for number, line in _read_lines(path):
        fields = line.split()
        if not has_points_line and (not fields or _are_points(fields)):
            has_points_line = True
            continue
        if not fields:
            continue
        fields = line.split(maxsplit=9)
        where = f"{path}: line {number}"
        if len(fields) != 10:
            raise ValueError(f"{where}: {line[:60]!r}; wanted IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME")
        image_id, *pose, camera_id = _parse_numbers(fields[:9], where)
        if len(rest := fields[9].split(maxsplit=3)) > 2 and all(map(_NUMBER.fullmatch, rest[:3])):
            raise ValueError(f"{where}: numbers where the name of an image is wanted; is the file whole?")
        ids = _as_id(image_id, where), _as_id(camera_id, where)
        yield ids[0], PosedImage(fields[9], ids[1], np.array(pose[:4]), np.array(pose[4:]))
        has_points_line = False


def _are_points(fields: list[str]) -> bool:
    """Whether the fields of a line are 2D points (X, Y, POINT3D_ID) and not an image, whose name has no number there.

    Editors remove empty lines, and names may contain spaces, so that the number of fields alone does not tell.
    """
    return len(fields) % 3 == 0 and all(_NUMBER.fullmatch(field) for field in (*fields[:12], *fields[-3:]))


def _read_points_binary(path: Path) -> Iterator[tuple]:
    file = _BinaryFile(path)
    (count,) = file.read("Q", "the point count")
    data, layouts = file.data, dict[int, struct.Struct]()  # of tracks, by length
    start, num_bytes = file.offset, len(file.data)
    for index in range(count):  # there may be millions, so that a call for each costs
        track = end = start + _POINT.size
        if track <= num_bytes:
            _, x, y, z, red, green, blue, _, length = _POINT.unpack_from(data, start)
            end += 8 * length
        if end > num_bytes:
            file.skip(end - file.offset, f"point number {index} of {count}")  # which raises
        layout = layouts.get(length) or layouts.setdefault(length, struct.Struct(f"<{2 * length}I"))
        yield (x, y, z), (red, green, blue), frozenset(layout.unpack_from(data, track)[::2])
        start = end


def _read_points_text(path: Path) -> Iterator[tuple]:
    for number, line in _read_lines(path):
        if not line:
            continue
        fields = line.split()
        if len(fields) < 8 or len(fields) % 2:
            raise ValueError(f"{path}: line {number}: {line[:60]!r}; wanted ID, X, Y, Z, R, G, B, ERROR, TRACK[]")
        where = f"{path}: line {number}"
        values = _parse_numbers(fields, where)
        yield tuple(values[1:4]), tuple(values[4:7]), frozenset(_as_id(value, where) for value in values[8::2])


def _read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Read lines with their numbers, without comments; empty lines are kept, because ``images.txt`` needs them.

    Bytes that are not UTF-8 become surrogates: names may be in another code page.
    """
    text = _read_bytes(path).removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.lstrip().startswith("#"):
            yield number, line.strip()


def _read_bytes(path: Path) -> bytes:
    refuse_pointer(path)
    return path.read_bytes()


def _parse_numbers(fields: list[str], where: str) -> list[float]:
    try:
        return [float(field) for field in fields]
    except ValueError as error:
        raise ValueError(f"{where}: {error}; wanted numbers") from None


def _as_id(number: float, where: str) -> int:
    if not math.isfinite(number):
        raise ValueError(f"{where}: id {number}; wanted a whole number")
    return int(number)
