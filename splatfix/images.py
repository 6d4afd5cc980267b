"""Read, resize and write images: float32 RGB in [0, 1], sRGB as in the files, ``[H, W, 3]``."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from PIL import Image

from splatfix.file_kinds import RAW, RAW_SUFFIXES, describe_unreadable, register_heic
from splatfix.files import write_whole
from splatfix.shapes import Float, Shaped

MAX_MASK_COLORS = 32
OPAQUE_ALPHA = 254  # of 255: an alpha of 1, to within rounding
FIRST_ROWS, FIRST_BYTES = 16, 2**16  # of a PNG, which are looked at before the whole of it
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".mpo", ".webp", ".tif", ".tiff", ".bmp", ".avif"),
    *(".heic", ".heif"),  # with pillow-heif
)
Image.MAX_IMAGE_PIXELS = 500_000_000  # photos have up to 200 megapixels; Pillow's limit is meant for web servers
_ORIENTATION = 0x0112  # the EXIF tag
_INVERSE = {6: 8, 8: 6}  # orientations that are not their own inverses
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)  # what Pillow raises


@dataclass(frozen=True)
class Header:
    """Size, channels and orientation of an image file, read without decoding its pixels.

    Attributes:
        width_px, height_px: size of the image as it is stored.
        has_alpha: whether it has an alpha channel.
        orientation: EXIF orientation, 1 to 8; 1 is upright, 5 to 8 exchange width and height.
    """

    width_px: int
    height_px: int
    has_alpha: bool
    orientation: int = 1

    def size(self, *, upright: bool = False) -> tuple[int, int]:
        """Return width and height, as stored or turned upright by the EXIF orientation."""
        is_turned = upright and self.orientation >= 5
        return (self.height_px, self.width_px) if is_turned else (self.width_px, self.height_px)


def read_header(path: Path) -> Header:
    """Read size, alpha channel and EXIF orientation of an image, from its header alone.

    Raises:
        ValueError: the file is missing, not an image, or has float pixels.
    """
    with open_image(Path(path)) as image:
        _refuse_float(path, image)
        orientation = _read_orientation(image)
        width, height = image.size
        if image.format == "TIFF" and orientation >= 5:  # Pillow turns these upright
            width, height = height, width
        return Header(width, height, _has_alpha(image), orientation)


def image_size(path: Path) -> tuple[int, int]:
    """Read width and height in pixels, from the header alone. ValueError if it is not an image."""
    return read_header(path).size()


def read_image(path: Path, *, upright: bool = False) -> Float[ndarray, "H W C"]:
    """Read an image file as float32 in [0, 1]; arguments and errors are those of `read_pixels`."""
    return to_float(read_pixels(path, upright=upright))


def read_pixels(path: Path, *, upright: bool = False) -> Shaped[ndarray, "H W C"]:
    """Read an image file as uint8 or, if it has 16 bits, uint16; C is 3, or 4 where it has an alpha channel.

    The pixels are returned as they are stored, or, with ``upright``, turned by the EXIF orientation.

    Raises:
        ValueError: the file is missing, truncated, not an image, or has float or 32-bit pixels.
    """
    path = Path(path)
    with open_image(path) as image:
        _refuse_float(path, image)
        orientation = _read_orientation(image)
        is_upright = image.format == "TIFF"  # Pillow turns it
        try:
            pixels = _decode(path, image)
        except _UNREADABLE as error:
            raise ValueError(f"{path}: cannot be decoded ({error}); is the file whole?") from error
    if is_upright == upright:
        return pixels
    return _turn(pixels, orientation if upright else _INVERSE.get(orientation, orientation))


def _decode(path: Path, image: Image.Image) -> Shaped[ndarray, "H W C"]:
    if image.format == "PNG" and _has_16_bit_colors(image):  # of which Pillow drops 8
        import torch
        from torchvision.io import ImageReadMode, decode_png

        data = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
        mode = ImageReadMode.RGB_ALPHA if _has_alpha(image) else ImageReadMode.RGB
        try:
            return np.ascontiguousarray(decode_png(data, mode=mode).permute(1, 2, 0).numpy())
        except RuntimeError as error:
            raise ValueError(str(error).splitlines()[0]) from None
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        values = np.asarray(image)
        if image.mode == "I" and (values.min() < 0 or values.max() > 65535):
            raise ValueError("32 bits per pixel; wanted 8 or 16")
        return np.repeat(values.astype(np.uint16)[..., None], 3, axis=2)
    mode = "RGBA" if _has_alpha(image) else "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _has_16_bit_colors(image: Image.Image) -> bool:
    """Whether Pillow would decode 16-bit RGB, with or without alpha, to 8 bits."""
    return getattr(image, "tile", []) != [] and image.tile[0].args in ("RGB;16B", "RGBA;16B")  # type: ignore[attr-defined]


def _turn(pixels: Shaped[ndarray, "H W C"], orientation: int) -> Shaped[ndarray, "h w C"]:
    """Turn stored pixels upright by their EXIF orientation."""
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    if orientation in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels.swapaxes(0, 1) if orientation >= 5 else pixels)


def to_float(pixels: ndarray) -> Float[ndarray, "..."]:
    """Convert uint8 or uint16 pixels to float32 in [0, 1]; those that are float are returned as they are."""
    if pixels.dtype.kind == "f":
        return pixels
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


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
    with open_image(Path(path)) as image:
        try:
            return _least_alpha(image) < OPAQUE_ALPHA
        except _UNREADABLE as error:
            raise ValueError(f"{path}: cannot be decoded ({error}); is the file whole?") from error


def has_few_colors(path: Path) -> bool:
    """Whether an image has no more than `MAX_MASK_COLORS` colors, as masks and label maps do but no photo.

    Raises:
        ValueError: the file is missing, truncated or not an image.
    """
    with open_image(Path(path)) as image:
        try:
            if image.mode.startswith("I"):  # for which Pillow counts no colors
                return len(np.unique(np.asarray(image))) <= MAX_MASK_COLORS
            return image.getcolors(MAX_MASK_COLORS) is not None
        except _UNREADABLE as error:
            raise ValueError(f"{path}: cannot be decoded ({error}); is the file whole?") from error


def check_image(path: Path) -> None:
    """Decode an image without keeping it; a JPEG at an eighth of its size, which is much faster.

    Raises:
        ValueError: the file is missing, truncated, not an image, or has float pixels.
    """
    with open_image(Path(path)) as image:
        _refuse_float(path, image)
        try:
            image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
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


def open_image(path: Path) -> Image.Image:
    """Open an image file with Pillow, without decoding its pixels.

    Raises:
        ValueError: the file is missing or not an image that can be read; the message says what it is, with the remedy.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such image file")
    if path.suffix.lower() in RAW_SUFFIXES:  # Pillow would read the preview in some of them
        raise ValueError(f"{path}: {RAW}")
    try:
        try:
            return Image.open(path)
        except Image.UnidentifiedImageError:
            if not register_heic(path):
                raise
            return Image.open(path)
    except _UNREADABLE as error:
        reason = describe_unreadable(path)
        if reason is not None:
            raise ValueError(f"{path}: {reason}") from None
        reason = "unknown format" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise ValueError(f"{path}: cannot be read as an image ({reason}); is the file whole?") from error


def _refuse_float(path: Path, image: Image.Image) -> None:
    if image.mode == "F":
        raise ValueError(
            f"{path}: float pixels, without a defined white; wanted 8 or 16 bits per channel: export the photos as PNG "
            "or JPEG"
        )


def _read_orientation(image: Image.Image) -> int:
    """Read the EXIF orientation without decoding pixels; 1 where the file has none, or EXIF that cannot be parsed."""
    if image.format == "TIFF":
        value = image.tag_v2.get(_ORIENTATION, 1)  # type: ignore[attr-defined]
    elif image.info.get("exif"):
        exif = Image.Exif()
        try:
            exif.load(image.info["exif"])
            value = exif.get(_ORIENTATION, 1)
        except (*_UNREADABLE, struct.error, KeyError, TypeError):
            value = 1
    else:
        value = 1
    return value if value in range(2, 9) else 1


def _has_alpha(image: Image.Image) -> bool:
    if image.mode.startswith("I"):  # 16 bits of gray, whose transparent value Pillow does not apply
        return False
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def resize(image: Shaped[ndarray, "H W *C"], width_px: int, height_px: int) -> Float[ndarray, "h w *C"]:
    """Resize a float image with any number of channels, and clip it to [0, 1]; or uint8 or uint16 pixels, as floats.

    Shrinking averages exactly over the area of each new pixel, also for ratios that are not whole numbers. So the image
    agrees with intrinsics that are scaled by the same ratio (Pillow's BOX filter shifts pixels by up to a quarter of an
    old one). Enlarging along either axis is bicubic. Of pixels only the rows in use are converted to floats at a time.
    """
    height, width = image.shape[:2]
    if (width, height) == (width_px, height_px):
        return to_float(image)
    channels = np.ascontiguousarray(image, np.float32 if image.dtype.kind == "f" else None).reshape(height, width, -1)
    if width_px <= width and height_px <= height:
        rows = _average_rows(channels, height_px)
        resized = _average_rows(rows.transpose(1, 0, 2), width_px).transpose(1, 0, 2)
    else:
        channels = to_float(channels)
        planes = [Image.fromarray(np.ascontiguousarray(channels[..., c])) for c in range(channels.shape[-1])]
        bicubic = [plane.resize((width_px, height_px), Image.Resampling.BICUBIC) for plane in planes]
        resized = np.stack([np.asarray(plane) for plane in bicubic], axis=-1)
    return np.ascontiguousarray(np.clip(resized, 0, 1)).reshape(height_px, width_px, *image.shape[2:])


def _average_rows(image: Shaped[ndarray, "H W C"], num_out: int) -> Float[ndarray, "h W C"]:
    """Average over areas along the first axis: each new row is a weighted sum of the old rows that it covers."""
    num_in = len(image)
    if num_in == num_out:
        return to_float(image)
    edges = np.arange(num_out + 1) * (num_in / num_out)
    first = np.floor(edges[:-1]).astype(int)
    total = np.zeros((num_out, *image.shape[1:]), np.float32)
    for step in range(int(np.ceil(num_in / num_out)) + 1):
        row = first + step
        overlap = np.minimum(edges[1:], row + 1) - np.maximum(edges[:-1], row)
        weight = (np.clip(overlap, 0, None) * (num_out / num_in)).astype(np.float32)
        total += weight[:, None, None] * to_float(image[np.minimum(row, num_in - 1)])
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
