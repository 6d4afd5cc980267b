"""A trained NAFNet as a restorer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from splatfix.conditioning import Conditioning, compute_conditioning
from splatfix.flawed import FlawedView
from splatfix.restoration.nafnet import NafnetOptions
from splatfix.restoration.nafnet.architecture import use_local_pooling
from splatfix.restoration.nafnet.checkpoint import CheckpointConfig, load_checkpoint
from splatfix.restoration.nafnet.network import GuidedNet, Output, confidence_from, network_inputs
from splatfix.restoration.restorer import Repaired, blend_correction
from splatfix.restoration.tiles import TILE_OVERLAP_PX, TILE_PX, apply_in_tiles
from splatfix.shapes import Float


class NafnetRestorer:
    """Repairs with a `GuidedNet`, one view at a time, at the strength that validation chose."""

    def __init__(self, network: GuidedNet, config: CheckpointConfig, device: torch.device | str = "cpu"):
        self.network = network.eval().to(device)
        self.config = config
        self._calibration = config.calibration if config.calibrated else (1.0, 1.0)
        use_local_pooling(network.network, config.train_patch_px)

    @classmethod
    def open(
        cls, place: str | Path, device: torch.device | str = "cpu", options: NafnetOptions | None = None
    ) -> NafnetRestorer:
        """Open a checkpoint, some of its settings replaced by the options; ValueError as `load_checkpoint`."""
        network, config = load_checkpoint(place, device)
        try:
            return cls(network, config.with_options(options or NafnetOptions()), device)
        except ValueError as error:
            raise ValueError(f"restorer {str(place)!r}: {error}") from None

    def repair(self, views: Sequence[FlawedView], *, seed: int) -> list[Repaired]:  # noqa: ARG002
        """See `Restorer`. The confidence is about the whole correction, whatever the strength."""
        return [self._repair(view) for view in views]

    @torch.no_grad()
    def _repair(self, view: FlawedView) -> Repaired:
        network = self.config.network
        conditioning = compute_conditioning(view, network.num_references, with_buffers=bool(network.buffers))
        output = repair_whole(self.network, conditioning, self.config.tile_px, self.config.tile_overlap_px)
        config = self.config
        whole = output.rgb[0].permute(1, 2, 0)
        rgb = blend_correction(conditioning.rgb, whole, config.strength, config.max_correction)
        if output.log_error is None:
            return Repaired(rgb)
        return Repaired(rgb, confidence_from(output.log_error, *self._calibration)[0])


@torch.no_grad()
def repair_whole(
    network: GuidedNet, conditioning: Conditioning, tile_px: int = TILE_PX, overlap_px: int = TILE_OVERLAP_PX
) -> Output:
    """Run the network on a whole view, in tiles where it is large: a batch of one, on the conditioning's device."""

    def stacked(inputs: Float[Tensor, "1 C H W"]) -> Float[Tensor, "1 D H W"]:
        output = network(inputs)
        return output.rgb if output.log_error is None else torch.cat(output, dim=1)

    inputs = network_inputs(conditioning, network.config)[None].to(next(network.parameters()).device)
    planes = apply_in_tiles(stacked, inputs, tile_px, overlap_px).to(conditioning.rgb.device)
    return Output(planes[:, :3], planes[:, 3:] if network.config.predict_error else None)
