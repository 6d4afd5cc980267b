"""A trained network as a restorer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from splatfix.flawed import FlawedView
from splatfix.guidance import guidance_of
from splatfix.restoration.checkpoint import RestorerConfig, load_checkpoint
from splatfix.restoration.guided import GuidedNet, confidence_from, network_inputs
from splatfix.restoration.nafnet import use_local_pooling
from splatfix.restoration.restorer import Repaired
from splatfix.restoration.tiles import in_tiles
from splatfix.shapes import Float


class LearnedRestorer:
    """Repairs with a `GuidedNet`, one view at a time, at the strength that validation chose."""

    def __init__(self, network: GuidedNet, config: RestorerConfig, device: torch.device | str = "cpu"):
        self.network = network.eval().to(device)
        self.config = config
        self.device = torch.device(device)
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
        inputs = network_inputs(guidance, self.config.network).to(self.device)[None]
        made = in_tiles(self._stacked, inputs, self.config.tile_px, self.config.tile_overlap_px).to(view.rgb.device)
        rgb = strengthened(guidance.rgb, made[0, :3].permute(1, 2, 0), self.config.strength)
        return Repaired(rgb, confidence_from(made[:, 3:])[0] if made.shape[1] > 3 else None)

    def _stacked(self, inputs: Tensor) -> Tensor:
        output = self.network(inputs)
        return output.rgb if output.log_error is None else torch.cat(output, dim=1)


def strengthened(
    render: Float[Tensor, "H W 3"], repaired: Float[Tensor, "H W 3"], strength: float
) -> Float[Tensor, "H W 3"]:
    """The render with a share of the correction, in [0, 1]."""
    return (render + strength * (repaired - render)).clamp(0, 1)
