"""Training batches: random crops and flips of pairs, and colour jitter.

Geometry changes whole pairs, so render, photo, warps, alpha and depth stay aligned. Colour changes render, photo and
warps alike: the network must not learn a scene's palette.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from splatfix.pairs import Pair
from splatfix.restoration.guided import NetworkConfig, network_inputs, warps_in
from splatfix.shapes import Float


class Batch(NamedTuple):
    """Inputs of the network, wanted images, and the weights of their pixels."""

    inputs: Float[Tensor, "B C H W"]
    clean: Float[Tensor, "B 3 H W"]
    weight: Float[Tensor, "B 1 H W"]

    def to(self, device: torch.device) -> Batch:
        """On another device, channels last."""
        return Batch(*(x.to(device, memory_format=torch.channels_last, non_blocking=True) for x in self))


@dataclass(frozen=True, kw_only=True)
class JitterConfig:
    """Random colour changes, the same for render, photo and warps of a crop.

    Attributes:
        probability: share of the crops that are changed at all.
        gain: each channel is multiplied by up to 1 +- this.
        gamma: exponents from 1 / (1 + this) to 1 + this.
        saturation: colours move away from or towards grey by up to this share.
        permute: also shuffle the colour channels.
    """

    probability: float = 0.8
    gain: float = 0.15
    gamma: float = 0.3
    saturation: float = 0.4
    permute: bool = True


def batch_of(pairs: list[Pair], network: NetworkConfig) -> Batch:
    """Pairs of equal size as one batch."""
    inputs = torch.stack([network_inputs(pair.guidance(), network) for pair in pairs])
    clean, weight = (torch.stack(part) for part in zip(*(pair.target() for pair in pairs), strict=True))
    return Batch(inputs, clean.permute(0, 3, 1, 2), weight[:, None])


def training_batches(
    pairs: Iterable[Pair],
    network: NetworkConfig,
    *,
    batch_size: int,
    patch_px: int,
    crops_per_pair: int,
    rng: np.random.Generator,
) -> Iterator[Batch]:
    """Batches of random crops, ``crops_per_pair`` from each pair of the stream (decoding costs as much as training)."""
    crops: list[Pair] = []
    for pair in pairs:
        for _ in range(crops_per_pair):
            crops.append(random_crop(pair, patch_px, rng))
            if len(crops) == batch_size:
                yield batch_of(crops, network)
                crops = []


def random_crop(pair: Pair, patch_px: int, rng: np.random.Generator) -> Pair:
    """A random square window, flipped and transposed at random. Smaller images are filled up outside their mask."""
    height, width = pair.alpha.shape
    if min(height, width) < patch_px:
        pair = _filled_up(pair, patch_px)
        height, width = pair.alpha.shape
    top, left = rng.integers(height - patch_px + 1), rng.integers(width - patch_px + 1)
    flip_y, flip_x, transpose = rng.integers(2, size=3).astype(bool)

    def change(image: ndarray) -> ndarray:
        crop = image[top : top + patch_px, left : left + patch_px]
        crop = crop[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
        return crop.swapaxes(0, 1) if transpose else crop

    return pair.each_plane(change)


def jittered(batch: Batch, network: NetworkConfig, config: JitterConfig, generator: torch.Generator) -> Batch:
    """The batch with each crop's colours changed; alpha, depth, validity and weights stay."""
    num, device = len(batch.inputs), batch.inputs.device

    def uniform(*shape: int) -> Tensor:  # in [-1, 1], drawn on the CPU: the same on every device
        return (torch.rand(shape, generator=generator) * 2 - 1).to(device)

    changed = (uniform(num, 1, 1, 1) + 1) / 2 < config.probability
    gain = torch.where(changed, 1 + config.gain * uniform(num, 3, 1, 1), 1)
    gamma = torch.where(changed, (1 + config.gamma) ** uniform(num, 1, 1, 1), 1)
    saturation = torch.where(changed, 1 + config.saturation * uniform(num, 1, 1, 1), 1)
    order = torch.rand(num, 3, generator=generator).argsort(1).to(device)
    order = torch.where(changed[:, :, 0, 0] & config.permute, order, torch.arange(3, device=device))

    def change(image: Tensor) -> Tensor:
        grey = image.mean(1, keepdim=True)
        image = (grey + saturation * (image - grey)) * gain
        image = image.clamp(1e-4, 1) ** gamma
        return image.gather(1, order[:, :, None, None].expand_as(image))

    inputs = batch.inputs.clone()
    inputs[:, :3] = change(batch.inputs[:, :3])
    for warp in warps_in(inputs, network.num_references).unbind(1):  # views into `inputs`
        warp[:, :3] = change(warp[:, :3]) * (warp[:, 3:] > 0)
    return Batch(inputs, change(batch.clean), batch.weight)


def _filled_up(pair: Pair, patch_px: int) -> Pair:
    height, width = pair.alpha.shape
    missing = ((0, max(0, patch_px - height)), (0, max(0, patch_px - width)))
    mask = np.full((height, width), 255, np.uint8) if pair.mask is None else pair.mask
    padded = pair.each_plane(lambda image: np.pad(image, (*missing, *((0, 0),) * (image.ndim - 2))))
    return Pair(**{**vars(padded), "mask": np.pad(mask, missing)})
