"""One training pair: a flawed render beside the photo of the same pose, and how it is stored.

A `Pair` holds exactly what a shard holds (8 and 16 bits), so that writing and reading lose nothing. The images are PNG
of compression level 4: a pair of 192x128 px with two warps has 199 kB, is written in 16 ms and read in 3.8 ms. Level 1
has 7 % more bytes, level 9 has 2 % fewer and takes five times as long; lossless WebP has 12 to 23 % fewer and reads
hardly faster (3.5 ms), but it cannot hold 16 bits and not every tool opens it.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from PIL import Image
from torch import Tensor

from splatfix.cameras import Camera
from splatfix.conditioning import Conditioning, compute_conditioning
from splatfix.flawed import FlawedView
from splatfix.images import to_bytes
from splatfix.metrics import psnr_from_mse
from splatfix.shapes import Float

MAX_WARPS = 10
MAX_KEY_LENGTH = 80
EXTENSIONS = frozenset(
    {"artifact.png", "clean.png", "alpha.png", "depth.png", "mask.png", "meta.json"}
    | {f"warp{i}.png" for i in range(MAX_WARPS)}
)  # nothing else in a shard is looked at


@dataclass(frozen=True, eq=False)
class Pair:
    """A flawed render, its clean photo, and the conditioning for its repair.

    Attributes:
        scene: name of the capture.
        fit: name of the sparse fit within the scene.
        view: image name of the clean photo.
        artifact: the render, uint8 ``[H, W, 3]``.
        clean: the photo, uint8 ``[H, W, 3]``.
        alpha: accumulated opacity, uint8 ``[H, W]``.
        nearness: `conditioning.compute_nearness`, uint16 ``[H, W]``; its scale is in meta.
        warps: nearby photos carried into the view, nearest first, uint8 rgb and validity, ``[H, W, 4]`` each.
        mask: 255 where the photo can be trusted, uint8 ``[H, W]``; None for everywhere.
        meta: ``inverse_depth_scale``, ``artifact_psnr`` and whatever the maker knows: group, camera, band, distance,
            fit settings, seed.
    """

    scene: str
    fit: str
    view: str
    artifact: ndarray
    clean: ndarray
    alpha: ndarray
    nearness: ndarray
    warps: tuple[ndarray, ...] = ()
    mask: ndarray | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Name of the sample in a shard: ``<scene>-<fit>-<view>`` without dots, slashes and the like."""
        key = "-".join(re.sub(r"[^A-Za-z0-9_-]", "_", part) for part in (self.scene, self.fit, self.view))
        if len(key) > MAX_KEY_LENGTH:  # tar headers hold 100 characters with the extension
            key = f"{key[: MAX_KEY_LENGTH - 13]}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
        return key

    def map_images(self, change: Callable[[ndarray], ndarray]) -> Pair:
        """The pair with the same change (a crop, a flip) made to every image, always along the first two axes."""
        return replace(
            self,
            artifact=change(self.artifact),
            clean=change(self.clean),
            alpha=change(self.alpha),
            nearness=change(self.nearness),
            warps=tuple(change(warp) for warp in self.warps),
            mask=None if self.mask is None else change(self.mask),
        )

    def conditioning(self) -> Conditioning:
        """What a network is given, as floats: equal to the `compute_conditioning` that it came from, up to rounding."""
        warps = [torch.zeros(0, *self.alpha.shape, 4), *(_float(warp)[None] for warp in self.warps)]
        return Conditioning(
            rgb=_float(self.artifact),
            alpha=_float(self.alpha),
            nearness=_float(self.nearness),
            inverse_depth_scale=float(self.meta.get("inverse_depth_scale", 1.0)),
            warps=torch.cat(warps),
        )

    def target(self) -> tuple[Float[Tensor, "H W 3"], Float[Tensor, "H W"]]:
        """The clean photo and the weight of each of its pixels, as floats in [0, 1]."""
        weight = torch.ones(self.alpha.shape) if self.mask is None else _float(self.mask)
        return _float(self.clean), weight


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
    """The pair of a flawed view and the photo at its camera; the warps are made here, as the loop makes them.

    ``meta`` is stored as JSON; give what is known of group, source, settings, seed, band and distance. Camera,
    cameras of the references, scale of the depth and PSNR of the artifact are added.
    """
    conditioning = compute_conditioning(view, num_references)
    camera = view.camera
    artifact, photo = _bytes(conditioning.rgb), _bytes(clean)
    if artifact.shape != photo.shape:
        raise ValueError(f"{scene}/{camera.name}: render is {artifact.shape}, photo is {photo.shape}; wanted the same")
    return Pair(
        scene=scene,
        fit=fit,
        view=camera.name,
        artifact=artifact,
        clean=photo,
        alpha=_bytes(conditioning.alpha),
        nearness=(conditioning.nearness.cpu().double().numpy() * 65535 + 0.5).astype(np.uint16),
        warps=tuple(_bytes(warp) for warp in conditioning.warps),
        mask=None if mask is None else _bytes(mask),
        meta={
            "camera": _camera_tree(camera),
            "references": [_camera_tree(reference.camera) for reference in view.references[:num_references]],
            "inverse_depth_scale": conditioning.inverse_depth_scale,
            "artifact_psnr": _psnr(artifact, photo),
            **meta,
        },
    )


def _camera_tree(camera: Camera) -> dict[str, Any]:
    return {
        "name": camera.name,
        "width_px": camera.width_px,
        "height_px": camera.height_px,
        "intrinsics": camera.intrinsics.tolist(),
        "camera_from_world": camera.camera_from_world.tolist(),
    }


def encode(pair: Pair) -> dict[str, Any]:
    """A pair as a webdataset sample: ``__key__`` and the bytes of each file."""
    if len(pair.warps) > MAX_WARPS:
        raise ValueError(f"{pair.key}: {len(pair.warps)} warps; at most {MAX_WARPS} can be stored")
    identity = {"scene": pair.scene, "fit": pair.fit, "view": pair.view}
    sample = {
        "__key__": pair.key,
        "artifact.png": _png(pair.artifact),
        "clean.png": _png(pair.clean),
        "alpha.png": _png(pair.alpha),
        "depth.png": _png(pair.nearness),
        "meta.json": json.dumps(pair.meta | identity, sort_keys=True, allow_nan=False).encode(),
    }
    sample |= {f"warp{i}.png": _png(warp) for i, warp in enumerate(pair.warps)}
    return sample if pair.mask is None else sample | {"mask.png": _png(pair.mask)}


def decode(sample: dict[str, Any], source: str = "sample", *, num_warps: int | None = None) -> Pair:
    """A pair from a webdataset sample of bytes, with at most ``num_warps`` warps. Only PNG and JSON are ever decoded.

    Raises:
        ValueError: a file is missing or broken, or sizes disagree; the message names source, key and file.
    """
    where = f"{source}: {sample.get('__key__', '?')}"
    try:
        meta = json.loads(sample["meta.json"])
        scene, fit, view = (meta.pop(name) for name in ("scene", "fit", "view"))
    except KeyError as error:
        raise ValueError(f"{where}: {error.args[0]} is missing; was this shard written by splatfix?") from None
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f"{where}: meta.json is not a JSON object") from None
    there = sum(name.startswith("warp") for name in sample)
    wanted = there if num_warps is None else min(num_warps, there)
    artifact = _decoded(sample, "artifact.png", ("RGB",), None, where)
    size = artifact.shape[:2]
    return Pair(
        scene=scene,
        fit=fit,
        view=view,
        artifact=artifact,
        clean=_decoded(sample, "clean.png", ("RGB",), size, where),
        alpha=_decoded(sample, "alpha.png", ("L",), size, where),
        nearness=_decoded(sample, "depth.png", ("I;16", "I;16B"), size, where).astype(np.uint16),
        warps=tuple(_decoded(sample, f"warp{i}.png", ("RGBA",), size, where) for i in range(wanted)),
        mask=_decoded(sample, "mask.png", ("L",), size, where) if "mask.png" in sample else None,
        meta=meta,
    )


def _decoded(
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


def _png(pixels: ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()


def _bytes(image: Tensor) -> ndarray:
    return to_bytes(image.detach().float().cpu().numpy())


def _float(pixels: ndarray) -> Tensor:
    most = np.float32(np.iinfo(pixels.dtype).max)
    return torch.from_numpy(pixels.astype(np.float32) / most)


def _psnr(a: ndarray, b: ndarray) -> float | None:
    mse = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)) / 255**2
    return psnr_from_mse(mse) if mse > 0 else None
