"""Training batches: random crops and flips of pairs, and color jitter.

Geometry changes whole pairs, so that render, photo, warps, alpha and depth stay aligned. Colors change alike in render,
photo and warps, so that the network does not learn a scene's palette. Which planes a network is given is up to its
family (`NetworkInputs`).

Batches are bytes, as in the shards, until they are on the device: a quarter of what floats would take on the way from
process to process and to a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from splatfix.buffers import NUM_PLANES, PLANES
from splatfix.pairs import Pair
from splatfix.shapes import Float, UInt8


@runtime_checkable
class NetworkInputs(Protocol):
    """The input planes of a network, made from pairs. Must pickle: processes that make batches get a copy."""

    @property
    def num_references(self) -> int:
        """Number of warped photos that are read with each pair."""
        ...

    @property
    def with_buffers(self) -> bool:
        """Whether the buffers of each pair are read."""
        ...

    def encode(self, pairs: Sequence[Pair]) -> UInt8[Tensor, "B H W P"]:
        """The planes of pairs of equal size, as bytes; ``P`` is up to the family."""
        ...

    def decode(self, images: UInt8[Tensor, "B H W P"]) -> Float[Tensor, "B C H W"]:
        """The planes that `encode` wrote, as float32, on the same device; it must not wait for the device."""
        ...

    def map_colors(
        self, inputs: Float[Tensor, "B C H W"], change: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "B C H W"]:
        """A copy of the planes, with a change made to every RGB image among them (``[B, 3, H, W]`` in [0, 1])."""
        ...


class ByteBatch(NamedTuple):
    """A batch as it is stored: the images as bytes, and the `random_color_change` of each crop."""

    inputs: UInt8[Tensor, "B H W P"]
    clean: UInt8[Tensor, "B H W 3"]
    weight: UInt8[Tensor, "B H W 1"]
    colors: Float[Tensor, "B 8"]

    def pin_memory(self) -> ByteBatch:
        """Copy to pinned memory, from which a GPU copies while the host continues."""
        return ByteBatch(*(part.pin_memory() for part in self))

    def to(self, device: torch.device) -> ByteBatch:
        """Copy to another device; from pinned memory without waiting for it."""
        return ByteBatch(*(part.to(device, non_blocking=True) for part in self))

    def chunks(self, num: int) -> Iterator[ByteBatch]:
        """Split into at most ``num`` smaller batches."""
        return (ByteBatch(*part) for part in zip(*(x.chunk(num) for x in self), strict=True))


class Batch(NamedTuple):
    """Inputs of the network, clean images, the weights of their pixels, and the `random_color_change` of each crop."""

    inputs: Float[Tensor, "B C H W"]
    clean: Float[Tensor, "B 3 H W"]
    weight: Float[Tensor, "B 1 H W"]
    colors: Float[Tensor, "B 8"]


@dataclass(frozen=True, kw_only=True)
class JitterConfig:
    """Random color changes, the same for render, photo and warps of a crop.

    Attributes:
        probability: share of the crops that are changed at all.
        gain: each channel is multiplied by up to 1 +- this.
        gamma: exponents from 1 / (1 + this) to 1 + this.
        saturation: colors move away from or towards gray by up to this share.
        permute: also shuffle the color channels.
    """

    probability: float = 0.8
    gain: float = 0.15
    gamma: float = 0.3
    saturation: float = 0.4
    permute: bool = True


class Crop(NamedTuple):
    """A window of a pair, and its `random_color_change`."""

    pair: Pair
    colors: Float[ndarray, "8"]


def make_batch(crops: Sequence[Crop], inputs: NetworkInputs) -> ByteBatch:
    """Stack crops of equal size."""
    shape = (len(crops), *crops[0].pair.alpha.shape)
    clean, weight = np.empty((*shape, 3), np.uint8), np.full((*shape, 1), 255, np.uint8)
    for i, (pair, _) in enumerate(crops):
        clean[i] = pair.clean
        if pair.mask is not None:
            weight[i, ..., 0] = pair.mask
    colors = torch.from_numpy(np.stack([crop.colors for crop in crops]))
    images = inputs.encode([crop.pair for crop in crops])
    return ByteBatch(images, torch.from_numpy(clean), torch.from_numpy(weight), colors)


def decode_batch(batch: ByteBatch, inputs: NetworkInputs) -> Batch:
    """Convert a batch to floats, on its device; images are channels-last."""
    planes = (inputs.decode(batch.inputs), planes_from_bytes(batch.clean), planes_from_bytes(batch.weight))
    images, clean, weight = (image.contiguous(memory_format=torch.channels_last) for image in planes)
    return Batch(images, clean, weight, batch.colors)


def planes_from_bytes(images: UInt8[Tensor, "B H W C"]) -> Float[Tensor, "B C H W"]:
    """Convert images of bytes to planes in [0, 1]; the memory stays channels-last."""
    return images.float().div_(255).permute(0, 3, 1, 2)


def training_crops(
    pairs: Iterable[Pair], jitter: JitterConfig, *, patch_px: int, crops_per_pair: int, rng: np.random.Generator
) -> Iterator[Crop]:
    """Random crops, ``crops_per_pair`` from each pair of the stream (decoding costs as much as training)."""
    for pair in pairs:
        for _ in range(crops_per_pair):
            yield Crop(random_crop(pair, patch_px, rng), random_color_change(jitter, rng))


def random_crop(pair: Pair, patch_px: int, rng: np.random.Generator) -> Pair:
    """A random square window, flipped and transposed at random. Smaller images are padded outside their mask."""
    height, width = pair.alpha.shape
    if min(height, width) < patch_px:
        pair = _pad(pair, patch_px)
        height, width = pair.alpha.shape
    top, left = rng.integers(height - patch_px + 1), rng.integers(width - patch_px + 1)
    flip_y, flip_x, transpose = (bool(value) for value in rng.integers(2, size=3))

    def change(image: ndarray) -> ndarray:
        crop = image[top : top + patch_px, left : left + patch_px]
        crop = crop[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
        return crop.swapaxes(0, 1) if transpose else crop

    return _turn_normals(pair.map_images(change), flip_x=flip_x, flip_y=flip_y, transpose=transpose)


def require_buffers(pair: Pair) -> UInt8[ndarray, "H W 10"]:
    """The buffers of a pair. ValueError if it has none."""
    if pair.buffers is None:
        raise ValueError(
            f"{pair.key}: has no buffers.png, since an earlier version made it; generate the pairs again "
            "(--fresh), or train without network.buffers"
        )
    return pair.buffers


def _turn_normals(pair: Pair, *, flip_x: bool, flip_y: bool, transpose: bool) -> Pair:
    """Change the normals among the buffers as the image was changed: a flip negates one axis (0.5 stands for 0)."""
    if pair.buffers is None:
        return pair
    buffers = pair.buffers.copy()
    is_known = buffers[..., : PLANES["spread"].start].any(axis=-1)  # planes of the fit, which are 0 in empty pixels
    x, y = range(*PLANES["normal"].indices(NUM_PLANES))[:2]
    for plane, is_flipped in ((x, flip_x), (y, flip_y)):
        if is_flipped:
            buffers[..., plane] = np.where(is_known, 255 - buffers[..., plane], 0)
    if transpose:
        buffers[..., [x, y]] = buffers[..., [y, x]]
    return replace(pair, buffers=buffers)


def random_color_change(config: JitterConfig, rng: np.random.Generator) -> Float[ndarray, "8"]:
    """Parameters of a color change: gain of each channel, gamma, saturation, and the order of the channels."""
    is_changed = rng.random() < config.probability
    gain, gamma, saturation = rng.uniform(-1, 1, 3), rng.uniform(-1, 1), rng.uniform(-1, 1)
    order = rng.permutation(3)
    if not is_changed:
        return np.array([1, 1, 1, 1, 1, 0, 1, 2], np.float32)
    order = order if config.permute else np.arange(3)
    change = [*(1 + config.gain * gain), (1 + config.gamma) ** gamma, 1 + config.saturation * saturation, *order]
    return np.array(change, np.float32)


def jitter_colors(batch: Batch, inputs: NetworkInputs) -> Batch:
    """Apply each crop's color change to its images; all other planes and the weights stay."""
    gain = batch.colors[:, :3, None, None]
    gamma, saturation = batch.colors[:, 3, None, None, None], batch.colors[:, 4, None, None, None]
    order = batch.colors[:, 5:].long()

    def change(image: Tensor) -> Tensor:
        gray = image.mean(1, keepdim=True)
        image = (gray + saturation * (image - gray)) * gain
        image = image.clamp(1e-4, 1) ** gamma
        return image.gather(1, order[:, :, None, None].expand_as(image))

    return Batch(inputs.map_colors(batch.inputs, change), change(batch.clean), batch.weight, batch.colors)


def _pad(pair: Pair, patch_px: int) -> Pair:
    height, width = pair.alpha.shape
    missing = ((0, max(0, patch_px - height)), (0, max(0, patch_px - width)))
    mask = np.full((height, width), 255, np.uint8) if pair.mask is None else pair.mask
    padded = pair.map_images(lambda image: np.pad(image, (*missing, *((0, 0),) * (image.ndim - 2))))
    return Pair(**{**vars(padded), "mask": np.pad(mask, missing)})
