"""Read, resize and write images: float32 RGB in [0, 1], sRGB as in the files, ``[H, W, 3]``."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from PIL import Image

from splatfix.files import write_whole
from splatfix.shapes import Float

OPAQUE_ALPHA = 254  # of 255: an alpha of 1, to within rounding
FIRST_ROWS, FIRST_BYTES = 16, 2**16  # of a PNG, which are looked at before the whole of it
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)  # what Pillow raises


@dataclass(frozen=True)
class Header:
    """Size and channels of an image file, read without decoding its pixels."""

    width_px: int
    height_px: int
    has_alpha: bool


def read_header(path: Path) -> Header:
    """Read the size of an image and whether it has an alpha channel, from its header alone.

    Raises:
        ValueError: the file is missing or not an image.
    """
    with _open(Path(path)) as image:
        return Header(*image.size, has_alpha=_has_alpha(image))


def image_size(path: Path) -> tuple[int, int]:
    """Read width and height in pixels, from the header alone. ValueError if it is not an image."""
    header = read_header(path)
    return header.width_px, header.height_px


def read_image(path: Path) -> Float[ndarray, "H W C"]:
    """Read an image file as float32 in [0, 1]; C is 3, or 4 where the file has an alpha channel.

    EXIF orientation is ignored on purpose: poses belong to the pixels as they are stored.

    Raises:
        ValueError: the file is missing, truncated or not an image.
    """
    path = Path(path)
    with _open(path) as image:
        try:
            if image.mode in ("I;16", "I;16B", "I;16L", "I"):
                values = np.asarray(image, np.float32) / 65535.0
                return np.repeat(values[..., None], 3, axis=2)
            pixels = np.asarray(image.convert("RGBA" if _has_alpha(image) else "RGB"))
        except _UNREADABLE as error:
            raise ValueError(f"{path}: cannot be decoded ({error}); is the file whole?") from error
    return pixels.astype(np.float32) / 255.0


def has_transparency(path: Path) -> bool:
    """Whether an image has a pixel whose alpha is not 1, to within a rounding error of 8 bits.

    Most images with transparent pixels have some in the first rows, which are all that is decoded of a PNG then.

    Raises:
        ValueError: the file is missing, truncated or not an image.
    """
    with Path(path).open("rb") as file:
        start = file.read(FIRST_BYTES)
    if (first_rows := _cut_png(start)) is not None:
        try:
            with Image.open(io.BytesIO(first_rows), formats=["PNG"]) as image:
                if _least_alpha(image) < OPAQUE_ALPHA:
                    return True
        except _UNREADABLE:
            pass  # the start holds fewer rows, or the file is broken, which the whole of it shows
    with _open(Path(path)) as image:
        try:
            return _least_alpha(image) < OPAQUE_ALPHA
        except _UNREADABLE as error:
            raise ValueError(f"{path}: cannot be decoded ({error}); is the file whole?") from error


def _cut_png(start: bytes) -> bytes | None:
    """Cut a PNG to its first rows, given its first bytes, by the height in its header; None for other formats."""
    if not start.startswith(b"\x89PNG\r\n\x1a\n") or start[12:16] != b"IHDR" or len(start) < 33:
        return None
    height = min(int.from_bytes(start[20:24], "big"), FIRST_ROWS)
    header = start[12:20] + height.to_bytes(4, "big") + start[24:29]  # width, height, and five bytes of the format
    return start[:12] + header + zlib.crc32(header).to_bytes(4, "big") + start[33:]


def _least_alpha(image: Image.Image) -> int:
    """The least alpha of an image, from 0 to 255."""
    low, _ = (image if image.mode == "RGBA" else image.convert("RGBA")).getchannel("A").getextrema()
    assert isinstance(low, int)
    return low


def _open(path: Path) -> Image.Image:
    if not path.is_file():
        raise ValueError(f"{path}: no such image file")
    try:
        return Image.open(path)
    except _UNREADABLE as error:
        reason = "unknown format" if isinstance(error, Image.UnidentifiedImageError) else error
        raise ValueError(f"{path}: cannot be read as an image ({reason}); is the file whole?") from error


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def resize(image: Float[ndarray, "H W *C"], width_px: int, height_px: int) -> Float[ndarray, "h w *C"]:
    """Resize a float image with any number of channels, and clip it to [0, 1].

    Shrinking averages exactly over the area of each new pixel, also for ratios that are not whole numbers. So the image
    agrees with intrinsics that are scaled by the same ratio (Pillow's BOX filter shifts pixels by up to a quarter of an
    old one). Enlarging along either axis is bicubic.
    """
    height, width = image.shape[:2]
    if (width, height) == (width_px, height_px):
        return image
    channels = np.ascontiguousarray(image, np.float32).reshape(height, width, -1)
    if width_px <= width and height_px <= height:
        rows = _average_rows(channels, height_px)
        resized = _average_rows(rows.transpose(1, 0, 2), width_px).transpose(1, 0, 2)
    else:
        planes = [Image.fromarray(np.ascontiguousarray(channels[..., c])) for c in range(channels.shape[-1])]
        bicubic = [plane.resize((width_px, height_px), Image.Resampling.BICUBIC) for plane in planes]
        resized = np.stack([np.asarray(plane) for plane in bicubic], axis=-1)
    return np.ascontiguousarray(np.clip(resized, 0, 1)).reshape(height_px, width_px, *image.shape[2:])


def _average_rows(image: Float[ndarray, "H W C"], num_out: int) -> Float[ndarray, "h W C"]:
    """Average over areas along the first axis: each new row is a weighted sum of the old rows that it covers."""
    num_in = len(image)
    if num_in == num_out:
        return image
    edges = np.arange(num_out + 1) * (num_in / num_out)
    first = np.floor(edges[:-1]).astype(int)
    total = np.zeros((num_out, *image.shape[1:]), np.float32)
    for step in range(int(np.ceil(num_in / num_out)) + 1):
        row = first + step
        overlap = np.minimum(edges[1:], row + 1) - np.maximum(edges[:-1], row)
        weight = (np.clip(overlap, 0, None) * (num_out / num_in)).astype(np.float32)
        total += weight[:, None, None] * image[np.minimum(row, num_in - 1)]
    return total


def to_bytes(image: Float[ndarray, "H W *C"]) -> ndarray:
    """Convert floats in [0, 1] to uint8, clipped and rounded."""
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def write_image(path: Path, image: Float[ndarray, "H W *C"]) -> None:
    """Write a float image in the format of the suffix, whole or not at all.

    Raises:
        ValueError: Pillow cannot write this suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in Image.registered_extensions():
        raise ValueError(f"{path}: cannot be written as an image; wanted a suffix such as .png or .jpg")
    options: dict[str, Any] = {"quality": 92} if suffix in (".jpg", ".jpeg", ".webp") else {}
    with write_whole(path) as temporary:
        Image.fromarray(to_bytes(image)).save(temporary, Image.registered_extensions()[suffix], **options)
