"""COLMAP's model files, binary and text: cameras, images, points3D.

Read here, not by ``pycolmap.Reconstruction``, because that accepts a truncated ``cameras.bin``, needs
``points3D`` to be there, and names no file in its errors. The layout is COLMAP's documented output format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray

from splatfix.captures.lenses import MODEL_OF_ID, NUM_PARAMS, Lens, checked_lens
from splatfix.shapes import Float


@dataclass(frozen=True, eq=False)
class PosedImage:
    """An image of the model: its name, camera and ``camera_from_world`` as quaternion wxyz and translation."""

    name: str
    camera_id: int
    quaternion: Float[ndarray, "4"]
    translation: Float[ndarray, "3"]


@dataclass(frozen=True, eq=False)
class ModelPoints:
    """Points with the ids of the images that saw each."""

    positions: Float[ndarray, "P 3"]
    colors: Float[ndarray, "P 3"]
    tracks: list[frozenset[int]]


class _Bytes:
    """A binary file read from start to end; running out of bytes is told with the item that was being read."""

    def __init__(self, path: Path):
        self.path, self.data, self.at = path, path.read_bytes(), 0

    def take(self, layout: str, item: str) -> tuple:
        """The next values, as `struct` spells them (little endian)."""
        size = struct.calcsize("<" + layout)
        self.skip(size, item)
        return struct.unpack_from("<" + layout, self.data, self.at - size)

    def skip(self, size: int, item: str) -> None:
        """Pass over bytes."""
        if size > len(self.data) - self.at:
            raise ValueError(f"{self.path}: truncated within {item} ({len(self.data)} bytes); wanted the whole file")
        self.at += size

    def text(self, item: str) -> str:
        """The next zero-terminated string."""
        end = self.data.find(b"\0", self.at)
        if end < 0:
            self.skip(len(self.data) + 1, item)
        raw, self.at = self.data[self.at : end], end + 1
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path}: the name of {item} is not UTF-8; is this file damaged?") from error


def read_cameras(path: Path) -> dict[int, Lens]:
    """Lenses by camera id, from ``cameras.bin`` or ``cameras.txt``. ValueError where the file is broken."""
    return dict(_cameras_text(path) if path.suffix == ".txt" else _cameras_binary(path))


def read_images(path: Path) -> dict[int, PosedImage]:
    """Posed images by image id, from ``images.bin`` or ``images.txt``. ValueError where the file is broken."""
    return dict(_images_text(path) if path.suffix == ".txt" else _images_binary(path))


def read_points3d(path: Path) -> ModelPoints:
    """Points from ``points3D.bin`` or ``points3D.txt``. ValueError where the file is broken."""
    rows = list(_points_text(path) if path.suffix == ".txt" else _points_binary(path))
    positions = np.array([row[0] for row in rows], np.float64).reshape(-1, 3)
    colors = np.array([row[1] for row in rows], np.float32).reshape(-1, 3) / 255
    bad = ~np.isfinite(positions).all(axis=1)
    if bad.any():
        raise ValueError(f"{path}: point number {bad.argmax()} is {positions[bad][0].tolist()}; wanted finite numbers")
    return ModelPoints(positions, colors, [row[2] for row in rows])


def _cameras_binary(path: Path) -> Iterator[tuple[int, Lens]]:
    file = _Bytes(path)
    (count,) = file.take("Q", "the camera count")
    for index in range(count):
        camera_id, model_id, width, height = file.take("IiQQ", f"camera number {index}")
        if model_id not in MODEL_OF_ID:
            raise ValueError(f"{path}: camera {camera_id}: model id {model_id}; wanted one of {sorted(MODEL_OF_ID)}")
        model = MODEL_OF_ID[model_id]
        params = file.take(f"{NUM_PARAMS[model]}d", f"camera {camera_id}")
        yield camera_id, checked_lens(model, width, height, params, f"{path}: camera {camera_id}")


def _cameras_text(path: Path) -> Iterator[tuple[int, Lens]]:
    for number, line in _lines(path):
        if not line:
            continue
        fields = line.split()
        where = f"{path}: line {number}"
        if len(fields) < 5:
            raise ValueError(f"{where}: {line[:60]!r}; wanted CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]")
        camera_id, width, height, *params = _numbers([fields[0], *fields[2:]], where)
        yield int(camera_id), checked_lens(fields[1], width, height, tuple(params), f"{path}: camera {fields[0]}")


def _images_binary(path: Path) -> Iterator[tuple[int, PosedImage]]:
    file = _Bytes(path)
    (count,) = file.take("Q", "the image count")
    for index in range(count):
        item = f"image number {index} of {count}"
        image_id, *pose, camera_id = file.take("I7dI", item)
        name = file.text(item)
        (num_points,) = file.take("Q", item)
        file.skip(24 * num_points, item)  # x, y, point id
        yield image_id, PosedImage(name, camera_id, np.array(pose[:4]), np.array(pose[4:]))


def _images_text(path: Path) -> Iterator[tuple[int, PosedImage]]:
    lines = list(_lines(path))
    at = 0
    while at < len(lines):
        number, line = lines[at]
        at += 1
        if not line:
            continue
        fields = line.split(maxsplit=9)
        where = f"{path}: line {number}"
        if len(fields) != 10:
            raise ValueError(f"{where}: {line[:60]!r}; wanted IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME")
        image_id, *pose, camera_id = _numbers(fields[:9], where)
        yield int(image_id), PosedImage(fields[9], int(camera_id), np.array(pose[:4]), np.array(pose[4:]))
        if at < len(lines) and len(lines[at][1].split()) % 3 == 0:  # its line of 2D points, often left empty
            at += 1


def _points_binary(path: Path) -> Iterator[tuple]:
    file = _Bytes(path)
    (count,) = file.take("Q", "the point count")
    for index in range(count):
        item = f"point number {index} of {count}"
        _, x, y, z, red, green, blue, _, length = file.take("Q3d3BdQ", item)
        file.skip(8 * length, item)
        pairs = np.frombuffer(file.data, "<u4", 2 * length, file.at - 8 * length)
        yield (x, y, z), (red, green, blue), frozenset(pairs[::2].tolist())


def _points_text(path: Path) -> Iterator[tuple]:
    for number, line in _lines(path):
        if not line:
            continue
        fields = line.split()
        if len(fields) < 8 or len(fields) % 2:
            raise ValueError(f"{path}: line {number}: {line[:60]!r}; wanted ID, X, Y, Z, R, G, B, ERROR, TRACK[]")
        values = _numbers(fields, f"{path}: line {number}")
        yield tuple(values[1:4]), tuple(values[4:7]), frozenset(int(value) for value in values[8::2])


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without comments; empty ones stay, because they mean something in ``images.txt``."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not text in UTF-8 (byte {error.start})") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.lstrip().startswith("#"):
            yield number, line.strip()


def _numbers(fields: list[str], where: str) -> list[float]:
    try:
        return [float(field) for field in fields]
    except ValueError as error:
        raise ValueError(f"{where}: {error}; wanted numbers") from None
