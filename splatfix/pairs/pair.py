"""A training pair, that is a flawed render and the clean view at the same pose, and its encoding as files.

A `Pair` holds images with the bits of a shard (8 and 16), so that writing and reading lose nothing. The images are PNG
of compression level 4: a pair of 192x128 px with two warps has 199 kB, is written in 16 ms and read in 3.8 ms. Level 1
takes 7 % more bytes; level 9 takes 2 % fewer and five times as long. Lossless WebP takes 12 to 23 % fewer bytes and is
read about as fast (3.5 ms), but cannot hold 16 bits, and not every tool opens it.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from PIL import Image
from torch import Tensor

from splatfix.buffers import NUM_PLANES
from splatfix.conditioning import Conditioning, compute_conditioning
from splatfix.files import parse_json
from splatfix.flawed import FlawedView
from splatfix.images import to_bytes
from splatfix.metrics import psnr_from_mse
from splatfix.records import parse_record
from splatfix.shapes import Float

MAX_WARPS = 10
MAX_KEY_LENGTH = 80
EXTENSIONS = frozenset(
    {"artifact.png", "clean.png", "alpha.png", "depth.png", "buffers.png", "mask.png", "meta.json"}
    | {f"warp{i}.png" for i in range(MAX_WARPS)}
)  # all other files in a shard are ignored


@dataclass(frozen=True, eq=False)
class Pair:
    """A flawed render, its clean view, and the conditioning for its repair.

    Attributes:
        scene: name of the capture.
        fit: name of the sparse fit within the scene.
        view: image name of the clean view.
        artifact: the flawed render, uint8 ``[H, W, 3]``.
        clean: the clean view (a photo or a render of the ground truth), uint8 ``[H, W, 3]``.
        alpha: accumulated opacity, uint8 ``[H, W]``.
        nearness: `conditioning.compute_nearness`, uint16 ``[H, W]``; its scale is in meta.
        warps: nearby photos warped to the view, nearest first, uint8 rgb and validity, ``[H, W, 4]`` each.
        buffers: of the fits (`buffers.compute_buffers`), uint8 ``[H, W, 10]``; None where a shard has none.
        mask: 255 where the clean view is valid, uint8 ``[H, W]``; None if it is valid everywhere.
        meta: ``camera``, ``references``, ``inverse_depth_scale``, ``artifact_psnr`` and the fields that `build_pair`
            was given, such as group, band, distance and fit settings.
    """

    scene: str
    fit: str
    view: str
    artifact: ndarray
    clean: ndarray
    alpha: ndarray
    nearness: ndarray
    warps: tuple[ndarray, ...] = ()
    buffers: ndarray | None = None
    mask: ndarray | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Name of the sample in a shard: ``<scene>-<fit>-<view>``; characters other than letters, digits, - are _."""
        key = "-".join(re.sub(r"[^A-Za-z0-9_-]", "_", part) for part in (self.scene, self.fit, self.view))
        if len(key) > MAX_KEY_LENGTH:  # tar headers hold 100 characters with the extension
            key = _append_digest(key, key)
        return key

    @property
    def distinct_key(self) -> str:
        """The key with a digest of the names, for views whose names differ in the replaced characters only."""
        return _append_digest(self.key, "/".join((self.scene, self.fit, self.view)))

    def map_images(self, change: Callable[[ndarray], ndarray]) -> Pair:
        """Apply a change of the first two axes, such as a crop or a flip, to every image."""
        return replace(
            self,
            artifact=change(self.artifact),
            clean=change(self.clean),
            alpha=change(self.alpha),
            nearness=change(self.nearness),
            warps=tuple(change(warp) for warp in self.warps),
            buffers=None if self.buffers is None else change(self.buffers),
            mask=None if self.mask is None else change(self.mask),
        )

    def conditioning(self) -> Conditioning:
        """Return the conditioning of a network as floats; equal to that of `compute_conditioning` up to rounding."""
        warps = [torch.zeros(0, *self.alpha.shape, 4), *(_to_float(warp)[None] for warp in self.warps)]
        return Conditioning(
            rgb=_to_float(self.artifact),
            alpha=_to_float(self.alpha),
            nearness=_to_float(self.nearness),
            inverse_depth_scale=float(self.meta.get("inverse_depth_scale", 1.0)),
            warps=torch.cat(warps),
            buffers=None if self.buffers is None else _to_float(self.buffers),
        )

    def target(self) -> tuple[Float[Tensor, "H W 3"], Float[Tensor, "H W"]]:
        """Return the clean view and the weight of each of its pixels, as floats in [0, 1]."""
        weight = torch.ones(self.alpha.shape) if self.mask is None else _to_float(self.mask)
        return _to_float(self.clean), weight


@dataclass(frozen=True, kw_only=True)
class _Meta:
    """The types of the fields of ``meta.json`` that are read again; all may be missing, and others are kept."""

    artifact_psnr: float | None = None
    inverse_depth_scale: float = 1.0
    band: str | None = None
    clean_from: str | None = None
    fit_settings: dict[str, Any] = field(default_factory=dict)


def _append_digest(key: str, text: str) -> str:
    return f"{key[: MAX_KEY_LENGTH - 13]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def build_pair(
    view: FlawedView,
    clean: Float[Tensor, "H W 3"],
    *,
    scene: str,
    fit: str,
    mask: Float[Tensor, "H W"] | None = None,
    num_references: int = 2,
    **meta: Any,
) -> Pair:
    """Build the pair of a flawed view and the clean view at its camera. Warps are computed as in the loop.

    ``mask`` is 0 where the clean view is ignored: such pixels have no part in training and in figures. None is 1
    everywhere.

    ``meta`` is stored as JSON, such as group, source, settings, seed, band and distance; the camera, the cameras of the
    references, the scale of the depth and the PSNR of the artifact are added to it.

    Raises:
        ValueError: the two views have different sizes.
    """
    conditioning = compute_conditioning(view, num_references, with_buffers=bool(view.fits))
    camera = view.camera
    artifact, clean_bytes = _to_bytes(conditioning.rgb), _to_bytes(clean)
    mask_bytes = None if mask is None else _to_bytes(mask)
    if artifact.shape != clean_bytes.shape:
        raise ValueError(
            f"{scene}/{camera.name}: render is {artifact.shape}, clean view is {clean_bytes.shape}; wanted the same"
        )
    return Pair(
        scene=scene,
        fit=fit,
        view=camera.name,
        artifact=artifact,
        clean=clean_bytes,
        alpha=_to_bytes(conditioning.alpha),
        nearness=(conditioning.nearness.cpu().double().numpy() * 65535 + 0.5).astype(np.uint16),
        warps=tuple(_to_bytes(warp) for warp in conditioning.warps),
        buffers=None if conditioning.buffers is None else _coarsen(_to_bytes(conditioning.buffers)),
        mask=mask_bytes,
        meta={
            "camera": camera.to_json(),
            "references": [reference.camera.to_json() for reference in view.references[:num_references]],
            "inverse_depth_scale": conditioning.inverse_depth_scale,
            "artifact_psnr": _psnr(artifact, clean_bytes, mask_bytes),
            **meta,
        },
    )


def encode(pair: Pair, key: str | None = None) -> dict[str, Any]:
    """Encode a pair as a webdataset sample: ``__key__`` and the bytes of each file. ValueError for too many warps.

    ``key`` is used in place of that of the pair.
    """
    if len(pair.warps) > MAX_WARPS:
        raise ValueError(f"{pair.key}: {len(pair.warps)} warps; at most {MAX_WARPS} can be stored")
    identity = {"scene": pair.scene, "fit": pair.fit, "view": pair.view}
    sample = {
        "__key__": key or pair.key,
        "artifact.png": _encode_png(pair.artifact),
        "clean.png": _encode_png(pair.clean),
        "alpha.png": _encode_png(pair.alpha),
        "depth.png": _encode_png(pair.nearness),
        "meta.json": json.dumps(pair.meta | identity, sort_keys=True, allow_nan=False).encode(),
    }
    sample |= {f"warp{i}.png": _encode_png(warp) for i, warp in enumerate(pair.warps)}
    if pair.buffers is not None:  # plane under plane, in one gray image
        height, width, planes = pair.buffers.shape
        sample["buffers.png"] = _encode_png(np.moveaxis(pair.buffers, 2, 0).reshape(planes * height, width))
    return sample if pair.mask is None else sample | {"mask.png": _encode_png(pair.mask)}


def decode(
    sample: dict[str, Any], source: str = "sample", *, num_warps: int | None = None, with_buffers: bool = True
) -> Pair:
    """Decode a webdataset sample of bytes, with at most ``num_warps`` warps. Only PNG and JSON are decoded.

    ``with_buffers`` False leaves out the buffers, which take as long to decode as two warps.

    Raises:
        ValueError: a file is missing or broken, or sizes differ; the message names source, key and file.
    """
    where = f"{source}: {sample.get('__key__', '?')}"
    try:
        meta = read_meta(sample, where)
        scene, fit, view = (str(meta.pop(name)) for name in ("scene", "fit", "view"))
    except KeyError as error:
        raise ValueError(f"{where}: {error.args[0]} is missing; was this shard written by splatfix?") from None
    num_stored = sum(name.startswith("warp") for name in sample)
    num_decoded = num_stored if num_warps is None else min(num_warps, num_stored)
    artifact = _decode_image(sample, "artifact.png", ("RGB",), None, where)
    size = artifact.shape[:2]
    return Pair(
        scene=scene,
        fit=fit,
        view=view,
        artifact=artifact,
        clean=_decode_image(sample, "clean.png", ("RGB",), size, where),
        alpha=_decode_image(sample, "alpha.png", ("L",), size, where),
        nearness=_decode_image(sample, "depth.png", ("I;16", "I;16B"), size, where).astype(np.uint16),
        warps=tuple(_decode_image(sample, f"warp{i}.png", ("RGBA",), size, where) for i in range(num_decoded)),
        buffers=_decode_buffers(sample, size, where) if with_buffers and "buffers.png" in sample else None,
        mask=_decode_image(sample, "mask.png", ("L",), size, where) if "mask.png" in sample else None,
        meta=meta,
    )


def read_meta(sample: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Read ``meta.json`` of a sample. KeyError without one; ValueError if it is broken, or a field is ill-typed."""
    meta = parse_json(sample["meta.json"], f"{where}: meta.json")
    parse_record(_Meta, meta, source=f"{where}: meta.json", remedy="was this shard written by splatfix?")
    return meta


def _decode_buffers(sample: dict[str, Any], size: tuple[int, ...], where: str) -> ndarray:
    stacked = _decode_image(sample, "buffers.png", ("L",), (NUM_PLANES * size[0], size[1]), where)
    return np.moveaxis(stacked.reshape(NUM_PLANES, *size), 0, 2)


def _coarsen(planes: ndarray) -> ndarray:
    """Round bytes to 64 levels, in which buffers take half of the space of 256."""
    return np.minimum((planes.astype(np.uint16) + 2) // 4 * 4, 255).astype(np.uint8)


def _decode_image(
    sample: dict[str, Any], name: str, modes: tuple[str, ...], size: tuple[int, ...] | None, where: str
) -> ndarray:
    if name not in sample:
        raise ValueError(f"{where}: {name} is missing; was this shard written by splatfix?")
    try:
        with Image.open(io.BytesIO(sample[name]), formats=["PNG"]) as image:
            mode, pixels = image.mode, np.array(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{where}: {name} cannot be read as PNG ({error})") from None
    if mode not in modes or (size is not None and pixels.shape[:2] != size):
        wanted = modes[0] if size is None else f"{modes[0]} {size}"
        raise ValueError(f"{where}: {name} is {mode} {pixels.shape[:2]}, wanted {wanted}")
    return pixels


def _encode_png(pixels: ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def _to_bytes(image: Tensor) -> ndarray:
    return to_bytes(image.detach().float().cpu().numpy())


def _to_float(pixels: ndarray) -> Tensor:
    largest = np.float32(np.iinfo(pixels.dtype).max)
    return torch.from_numpy(pixels.astype(np.float32) / largest)


def _psnr(a: ndarray, b: ndarray, mask: ndarray | None) -> float | None:
    """Compute the PSNR in dB over the pixels of the mask; None for equal images and for a mask without weight."""
    squared = (a.astype(np.float64) - b.astype(np.float64)) ** 2
    if mask is not None and not mask.any():
        return None
    mse = float(np.mean(squared) if mask is None else np.average(squared.mean(axis=2), weights=mask)) / 255**2
    return psnr_from_mse(mse) if mse > 0 else None
