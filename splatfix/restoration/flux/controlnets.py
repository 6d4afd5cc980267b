"""Several FLUX ControlNets at once, also of different depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import FluxMultiControlNetModel
from torch import Tensor, nn

Residuals = list[Tensor] | None


class AlignedControlNets(FluxMultiControlNetModel):
    """ControlNets whose residuals are added block by block of the transformer.

    The transformer spreads the residuals of a ControlNet evenly over its blocks. diffusers sums those of several
    ControlNets before that, by index: where one has fewer blocks than another the rest is dropped, and where one has no
    single blocks those of all are. InstantX's Canny (5 double blocks) and Shakker Labs' Depth (4 double blocks, 1
    single) are such a pair. Here each is spread first.

    A single network that takes several images (a union) runs once for each.
    """

    nets: nn.ModuleList

    def __init__(self, controlnets: Sequence[nn.Module]):
        super().__init__(controlnets)
        self.num_blocks = self.num_single_blocks = 0

    def align_with(self, transformer: nn.Module) -> None:
        """Spread over the blocks of this transformer."""
        self.num_blocks = len(transformer.transformer_blocks)  # type: ignore[arg-type]
        self.num_single_blocks = len(transformer.single_transformer_blocks)  # type: ignore[arg-type]

    def forward(
        self,
        hidden_states: Tensor,
        controlnet_cond: list[Tensor],
        controlnet_mode: Tensor,
        conditioning_scale: list[float],
        **inputs: Any,
    ) -> tuple[Residuals, Residuals]:
        """As `FluxMultiControlNetModel.forward`; residuals for every block of the transformer."""
        nets = list(self.nets) * (len(controlnet_cond) if len(self.nets) == 1 else 1)
        double, single = [], []
        for net, image, mode, scale in zip(nets, controlnet_cond, controlnet_mode, conditioning_scale, strict=True):
            if scale == 0:
                continue
            residuals = net(
                hidden_states=hidden_states,
                controlnet_cond=image,
                controlnet_mode=mode.expand(len(hidden_states), 1) if net.union else None,
                conditioning_scale=scale,
                **{**inputs, "return_dict": False},
            )
            in_turn = net.input_hint_block is not None  # those of XLabs: blocks take their residuals in turn
            double.append(_spread_indices(residuals[0], self.num_blocks, in_turn))
            single.append(_spread_indices(residuals[1], self.num_single_blocks, in_turn))
        return _add(double), _add(single)


def _spread_indices(samples: Residuals, num_blocks: int, in_turn: bool) -> tuple[Residuals, list[int]]:
    """The residuals of a ControlNet, and which of them each block of the transformer takes (by its own rule)."""
    if not samples:
        return None, []
    interval = -(-num_blocks // len(samples))
    return samples, [block % len(samples) if in_turn else block // interval for block in range(num_blocks)]


def _add(spread: list[tuple[Residuals, list[int]]]) -> Residuals:
    """For every block the sum of what it takes of each ControlNet; None for nothing."""
    present = [(samples, indices) for samples, indices in spread if samples]
    if not present:
        return None
    sums: dict[tuple[int, ...], Tensor] = {}  # neighboring blocks share a tensor, to save memory
    for key in zip(*(indices for _, indices in present), strict=True):
        if key not in sums:
            sums[key] = _sum([samples[index] for (samples, _), index in zip(present, key, strict=True)])
    return [sums[key] for key in zip(*(indices for _, indices in present), strict=True)]


def _sum(parts: list[Tensor]) -> Tensor:
    """The sum of tensors of one shape; the tensor itself for one."""
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
