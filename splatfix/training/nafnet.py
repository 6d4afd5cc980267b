"""Training of NAFNet restorers: input planes, loss, and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splatfix.buffers import plane_indices
from splatfix.conditioning import Conditioning
from splatfix.pairs import Pair
from splatfix.restoration.nafnet.architecture import use_local_pooling
from splatfix.restoration.nafnet.checkpoint import CheckpointConfig, load_checkpoint, save_checkpoint
from splatfix.restoration.nafnet.network import GuidedNet, NetworkConfig, Output, warps_in
from splatfix.restoration.nafnet.restorer import repair_whole
from splatfix.shapes import Float, UInt8
from splatfix.training.batches import Batch, planes_from_bytes, require_buffers
from splatfix.training.config import TrainConfig
from splatfix.training.losses import LOSSES, edge_loss, error_loss
from splatfix.training.validation import WholeRepair


@dataclass(frozen=True)
class NafnetInputs:
    """The planes of `network_inputs`, for many pairs at once (see `batches.NetworkInputs`)."""

    config: NetworkConfig

    @property
    def num_references(self) -> int:
        """See `batches.NetworkInputs`."""
        return self.config.num_references

    @property
    def with_buffers(self) -> bool:
        """See `batches.NetworkInputs`."""
        return bool(self.config.buffers)

    def encode(self, pairs: Sequence[Pair]) -> UInt8[Tensor, "B H W P"]:
        """See `batches.NetworkInputs`. The depth has 16 bits: its high and its low byte are the last two planes.

        Raises:
            ValueError: a pair without the buffers that the network is given.
        """
        buffers = plane_indices(self.config.buffers)
        first = 3 + 4 * self.num_references + self.config.alpha
        num_bytes = self.config.in_channels + self.config.depth
        images = np.zeros((len(pairs), *pairs[0].alpha.shape, num_bytes), np.uint8)
        for pair, image in zip(pairs, images, strict=True):
            image[..., :3] = pair.artifact
            for i, warp in enumerate(pair.warps[: self.num_references]):
                image[..., 3 + 4 * i : 7 + 4 * i] = warp
            if self.config.alpha:
                image[..., 3 + 4 * self.num_references] = pair.alpha
            if buffers:
                image[..., first : first + len(buffers)] = require_buffers(pair)[..., buffers]
            if self.config.depth:
                image[..., -2], image[..., -1] = pair.nearness >> 8, pair.nearness & 255
        return torch.from_numpy(images)

    def decode(self, images: UInt8[Tensor, "B H W P"]) -> Float[Tensor, "B C H W"]:
        """See `batches.NetworkInputs`. Bytes are converted all at once, which takes a third of the time."""
        planes = planes_from_bytes(images[..., : self.config.in_channels])
        if self.config.depth:
            high, low = images[..., -2].float(), images[..., -1].float()
            planes[:, -1] = high.mul_(256).add_(low).div_(65535)
        return planes

    def map_colors(
        self, inputs: Float[Tensor, "B C H W"], change: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "B C H W"]:
        """See `batches.NetworkInputs`. Pixels of a warp that are not valid stay black."""
        changed = inputs.clone()
        changed[:, :3] = change(inputs[:, :3])
        for warp in warps_in(changed, self.num_references).unbind(1):  # views into `changed`
            warp[:, :3] = change(warp[:, :3]) * (warp[:, 3:] > 0)
        return changed


def compute_loss(output: Output, batch: Batch, config: TrainConfig) -> Tensor:
    """The loss of the image, of its finite differences, and of the predicted error."""
    loss = LOSSES[config.loss](output.rgb, batch.clean, batch.weight)
    if config.edge_weight:
        loss = loss + config.edge_weight * edge_loss(output.rgb, batch.clean, batch.weight)
    if output.log_error is not None:
        loss = loss + config.error_weight * error_loss(output.rgb, output.log_error, batch.clean, batch.weight)
    return loss


def example_inputs(config: NetworkConfig, num: int, side_px: int) -> Float[Tensor, "B C H W"]:
    """Gray inputs of a network, to time it with."""
    return torch.full((num, config.in_channels, side_px, side_px), 0.5)


def use_patch_size(network: GuidedNet, patch_px: int) -> None:
    """Let a network that is trained on patches repair whole images."""
    use_local_pooling(network.network, patch_px)


def repair(network: GuidedNet, conditioning: Conditioning) -> WholeRepair:
    """The repaired image with the whole correction, and its expected error if the network predicts one."""
    output = repair_whole(network, conditioning)
    error = None if output.log_error is None else output.log_error[0, 0].exp()
    return WholeRepair(output.rgb[0].permute(1, 2, 0), error)


def load(place: str | Path) -> tuple[GuidedNet, NetworkConfig, dict[str, Any]]:
    """Network, its config and provenance of a checkpoint; errors as `load_checkpoint`."""
    network, config = load_checkpoint(place)
    return network, config.network, config.provenance


def save(folder: Path, network: GuidedNet, config: TrainConfig, strength: float, provenance: dict[str, Any]) -> None:
    """Write a checkpoint that repairs as the network was validated."""
    checkpoint = CheckpointConfig(
        network=config.network,
        strength=strength,
        train_patch_px=config.data.patch_px,
        provenance=provenance,
    )
    save_checkpoint(folder, network, checkpoint)
