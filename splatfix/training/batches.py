"""Training batches: random crops and flips of pairs, and colour jitter.

Geometry changes whole pairs, so render, photo, warps, alpha and depth stay aligned. Colour changes render, photo and
warps alike: the network must not learn a scene's palette.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from splatfix.pairs import Pair
from splatfix.restoration.nafnet.network import NetworkConfig, warps_in
from splatfix.shapes import Float


class Batch(NamedTuple):
    """Inputs of the network, wanted images, the weights of their pixels, and the `random_colours` to change to."""

    inputs: Float[Tensor, "B C H W"]
    clean: Float[Tensor, "B 3 H W"]
    weight: Float[Tensor, "B 1 H W"]
    colours: Float[Tensor, "B 8"]

    def to(self, device: torch.device) -> Batch:
        """On another device; images are channels last."""
        inputs, clean, weight = (x.to(device, memory_format=torch.channels_last, non_blocking=True) for x in self[:3])
        return Batch(inputs, clean, weight, self.colours.to(device, non_blocking=True))

    def parts(self, num: int) -> Iterator[Batch]:
        """The batch in at most ``num`` parts."""
        return (Batch(*part) for part in zip(*(x.chunk(num) for x in self), strict=True))


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


class Crop(NamedTuple):
    """A window of a pair, and the `random_colours` to change it to."""

    pair: Pair
    colours: Float[ndarray, "8"]


def batch_of(crops: Sequence[Crop], network: NetworkConfig) -> Batch:
    """Crops of equal size as one batch."""
    shape = (len(crops), *crops[0].pair.alpha.shape)
    inputs, clean = np.zeros((*shape, network.in_channels), np.uint8), np.empty((*shape, 3), np.uint8)
    weight = np.full((*shape, 1), 255, np.uint8)
    for i, (pair, _) in enumerate(crops):
        _write_inputs(pair, network, inputs[i])
        clean[i] = pair.clean
        if pair.mask is not None:
            weight[i, ..., 0] = pair.mask
    images = [torch.from_numpy(image).float().div_(255).permute(0, 3, 1, 2) for image in (inputs, clean, weight)]
    if network.depth:
        nearness = np.stack([crop.pair.nearness for crop in crops]).astype(np.float32)
        images[0][:, -1] = torch.from_numpy(nearness).div_(65535)
    colours = torch.from_numpy(np.stack([crop.colours for crop in crops]))
    return Batch(images[0], images[1], images[2], colours)


def _write_inputs(pair: Pair, network: NetworkConfig, out: ndarray) -> None:
    """`network_inputs` of a pair's guidance but for the depth, as bytes: converted all at once, it takes a third."""
    out[..., :3] = pair.artifact
    for i, warp in enumerate(pair.warps[: network.num_references]):
        out[..., 3 + 4 * i : 7 + 4 * i] = warp
    if network.alpha:
        out[..., 3 + 4 * network.num_references] = pair.alpha


def training_crops(
    pairs: Iterable[Pair], jitter: JitterConfig, *, patch_px: int, crops_per_pair: int, rng: np.random.Generator
) -> Iterator[Crop]:
    """Random crops, ``crops_per_pair`` from each pair of the stream (decoding costs as much as training)."""
    for pair in pairs:
        for _ in range(crops_per_pair):
            yield Crop(random_crop(pair, patch_px, rng), random_colours(jitter, rng))


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

    return pair.map_images(change)


def random_colours(config: JitterConfig, rng: np.random.Generator) -> Float[ndarray, "8"]:
    """What to do to a crop's colours: gain of each channel, gamma, saturation, and the order of the channels."""
    changed = rng.random() < config.probability
    gain, gamma, saturation = rng.uniform(-1, 1, 3), rng.uniform(-1, 1), rng.uniform(-1, 1)
    order = rng.permutation(3)
    if not changed:
        return np.array([1, 1, 1, 1, 1, 0, 1, 2], np.float32)
    order = order if config.permute else np.arange(3)
    made = [*(1 + config.gain * gain), (1 + config.gamma) ** gamma, 1 + config.saturation * saturation, *order]
    return np.array(made, np.float32)


def jittered(batch: Batch, network: NetworkConfig) -> Batch:
    """The batch with each crop's colours changed as it says; alpha, depth, validity and weights stay."""
    gain = batch.colours[:, :3, None, None]
    gamma, saturation = batch.colours[:, 3, None, None, None], batch.colours[:, 4, None, None, None]
    order = batch.colours[:, 5:].long()

    def change(image: Tensor) -> Tensor:
        grey = image.mean(1, keepdim=True)
        image = (grey + saturation * (image - grey)) * gain
        image = image.clamp(1e-4, 1) ** gamma
        return image.gather(1, order[:, :, None, None].expand_as(image))

    inputs = batch.inputs.clone()
    inputs[:, :3] = change(batch.inputs[:, :3])
    for warp in warps_in(inputs, network.num_references).unbind(1):  # views into `inputs`
        warp[:, :3] = change(warp[:, :3]) * (warp[:, 3:] > 0)
    return Batch(inputs, change(batch.clean), batch.weight, batch.colours)


def _filled_up(pair: Pair, patch_px: int) -> Pair:
    height, width = pair.alpha.shape
    missing = ((0, max(0, patch_px - height)), (0, max(0, patch_px - width)))
    mask = np.full((height, width), 255, np.uint8) if pair.mask is None else pair.mask
    padded = pair.map_images(lambda image: np.pad(image, (*missing, *((0, 0),) * (image.ndim - 2))))
    return Pair(**{**vars(padded), "mask": np.pad(mask, missing)})
