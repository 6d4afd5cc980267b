"""Pictures and videos as data URIs, kept small."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy import ndarray
from PIL import Image

from splatfix.evaluation.layout import repair_mask, repair_pairs
from splatfix.views import pick_evenly

VIEW_SIDE_PX = 640
STRIP_SIDE_PX = 240
CROP_SIDE_PX = 280
CROP_SHARE = 1 / 3  # side of a crop, of the shorter side of the picture
JPEG_QUALITY = 84
MAX_VIDEO_BYTES = 3_000_000


def embed_picture(path: Path | None, longest_side_px: int = VIEW_SIDE_PX) -> dict | None:
    """Embed an image file: ``{"uri", "width", "height"}`` as a JPEG of limited size; None where missing or broken.

    A small JPEG is embedded unchanged, so that the page shows the picture that was measured.
    """
    if path is None or not path.is_file():
        return None
    try:
        with Image.open(path) as image:
            width, height = image.size
            if image.format == "JPEG" and max(width, height) <= longest_side_px and path.stat().st_size < 100_000:
                return {"uri": _uri("image/jpeg", path.read_bytes()), "width": width, "height": height}
            small = image.convert("RGB")
            small.thumbnail((longest_side_px, longest_side_px), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None  # the page lacks the picture; its numbers come from the results
    return {"uri": _uri("image/jpeg", buffer.getvalue()), "width": small.width, "height": small.height}


def embed_image(pixels: ndarray) -> dict:
    """Embed an image uint8 ``[H, W, 3]``, as `embed_picture` does."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return {"uri": _uri("image/jpeg", buffer.getvalue()), "width": pixels.shape[1], "height": pixels.shape[0]}


def embed_crops(paths: Mapping[str, Path], first: str, second: str) -> dict[str, dict]:
    """Embed the same window of some pictures, enlarged: where two of them differ most.

    Args:
        paths: the pictures by name; those that are missing, broken or of another size are left out.
        first: name of one of the two.
        second: name of the other.

    Returns the crops as `embed_image` by name, with the window's ``box`` (x, y, width, height, as shares of the
    picture); empty where one of the two is left out, or they are the same.
    """
    images = {name: image for name, path in paths.items() if (image := _read_rgb(path)) is not None}
    if first not in images or second not in images or images[first].size != images[second].size:
        return {}
    width, height = images[first].size
    side = max(8, round(CROP_SHARE * min(width, height)))
    if side >= min(width, height):
        return {}
    arrays = [np.asarray(images[name], np.float64) for name in (first, second)]
    change = np.abs(arrays[1] - arrays[0]).sum(axis=-1)
    if not change.any():
        return {}
    total = np.pad(change.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    y, x = np.unravel_index(int(sums.argmax()), sums.shape)
    window = (int(x), int(y), int(x) + side, int(y) + side)
    box = (x / width, y / height, side / width, side / height)
    crops = {}
    for name, image in images.items():
        if image.size == (width, height):
            crop = image.crop(window).resize((CROP_SIDE_PX, CROP_SIDE_PX), Image.Resampling.BICUBIC)
            crops[name] = {**embed_image(np.asarray(crop)), "box": box}
    return crops


def _read_rgb(path: Path) -> Image.Image | None:
    """A picture; None where it is missing or broken."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def embed_repairs(run: Path, round_number: int, max_pairs: int) -> dict | None:
    """Some repaired novel views of a round: ``{"number", "pairs": [{"render", "repaired", "mask"}], "total"}``.

    ``total`` counts all of them; ``mask`` is as `embed_mask`. Pairs with a broken picture are left out; None where no
    pair remains.
    """
    paths = repair_pairs(run, round_number)
    pairs = []
    for render_path, repaired_path in pick_evenly(paths, max_pairs):
        render, repaired = (embed_picture(path, STRIP_SIDE_PX) for path in (render_path, repaired_path))
        if render and repaired:
            pairs.append({"render": render, "repaired": repaired, "mask": embed_mask(repair_mask(render_path))})
    return {"number": round_number, "pairs": pairs, "total": len(paths)} if pairs else None


def embed_mask(path: Path) -> dict | None:
    """As `embed_picture`, of a mask, with its white ``share`` in [0, 1]; None where it is missing or broken."""
    image = embed_picture(path, STRIP_SIDE_PX)
    if image is None:
        return None
    with Image.open(path) as mask:
        return {**image, "share": float((np.asarray(mask.convert("L")) > 127).mean())}


def embed_video(path: Path | None, room_bytes: int = MAX_VIDEO_BYTES) -> dict | None:
    """Embed a small MP4 as ``{"uri"}``, or link one that is too large as ``{"link"}``; None where there is none."""
    if path is None or not path.is_file():
        return None
    if path.stat().st_size > min(room_bytes, MAX_VIDEO_BYTES):
        return {"link": path.name, "megabytes": path.stat().st_size / 1e6}
    return {"uri": _uri("video/mp4", path.read_bytes())}


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
