"""A trained network as a restorer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from splatfix.conditioning import Guidance, guidance_of
from splatfix.flawed import FlawedView
from splatfix.restoration.nafnet.architecture import use_local_pooling
from splatfix.restoration.nafnet.checkpoint import RestorerConfig, load_checkpoint
from splatfix.restoration.nafnet.network import GuidedNet, Output, confidence_from, network_inputs
from splatfix.restoration.restorer import Repaired
from splatfix.restoration.tiles import TILE_OVERLAP_PX, TILE_PX, in_tiles
from splatfix.shapes import Float


class LearnedRestorer:
    """Repairs with a `GuidedNet`, one view at a time, at the strength that validation chose."""

    def __init__(self, network: GuidedNet, config: RestorerConfig, device: torch.device | str = "cpu"):
        self.network = network.eval().to(device)
        self.config = config
        use_local_pooling(network.network, config.train_patch_px)

    @classmethod
    def open(cls, place: str | Path, device: torch.device | str = "cpu") -> LearnedRestorer:
        """From a checkpoint; ValueError as `load_checkpoint`."""
        return cls(*load_checkpoint(place, device), device)

    def repair(self, views: Sequence[FlawedView], *, seed: int) -> list[Repaired]:  # noqa: ARG002
        """See `Restorer`. The confidence is about the whole correction, whatever the strength."""
        return [self._repaired(view) for view in views]

    @torch.no_grad()
    def _repaired(self, view: FlawedView) -> Repaired:
        guidance = guidance_of(view, self.config.network.num_references)
        output = whole_output(self.network, guidance, self.config.tile_px, self.config.tile_overlap_px)
        rgb = strengthened(guidance.rgb, output.rgb[0].permute(1, 2, 0), self.config.strength)
        return Repaired(rgb, None if output.log_error is None else confidence_from(output.log_error)[0])


@torch.no_grad()
def whole_output(
    network: GuidedNet, guidance: Guidance, tile_px: int = TILE_PX, overlap_px: int = TILE_OVERLAP_PX
) -> Output:
    """What the network says of a whole view, in tiles where it is large; a batch of one, where the guidance is."""

    def stacked(inputs: Float[Tensor, "1 C H W"]) -> Float[Tensor, "1 D H W"]:
        output = network(inputs)
        return output.rgb if output.log_error is None else torch.cat(output, dim=1)

    inputs = network_inputs(guidance, network.config)[None].to(next(network.parameters()).device)
    made = in_tiles(stacked, inputs, tile_px, overlap_px).to(guidance.rgb.device)
    return Output(made[:, :3], made[:, 3:] if network.config.predict_error else None)


def strengthened(
    render: Float[Tensor, "H W 3"], repaired: Float[Tensor, "H W 3"], strength: float
) -> Float[Tensor, "H W 3"]:
    """The render with a share of the correction, in [0, 1]."""
    return (render + strength * (repaired - render)).clamp(0, 1)
