"""The network of a NAFNet restorer: from the conditioning of a flawed view to an image.

Inputs are the render, warped photos with their validity, alpha and nearness; one of two `HEADS` turns the outputs
into an image. A fresh network returns the render: exactly with ``residual``, up to gates of under 1 % each with
``gated``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from splatfix.conditioning import Conditioning
from splatfix.restoration.nafnet.architecture import SHAPES, NAFNet
from splatfix.shapes import Float

GATE_BIAS = 5.0  # in favour of the render at initialisation
LOG_ERROR_BIAS = -3.0  # a fresh network expects errors of about 0.05
ERROR_SCALE = 0.1  # absolute sRGB error at which the confidence is down to 1/e
MAX_WIDTH, MAX_BLOCKS, MAX_LEVELS = 512, 100, 8  # the largest published network has 64, 28 per level, and 4


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Inputs, outputs and size of the network.

    Attributes:
        head: ``gated`` mixes render and warped photos per pixel and adds a bounded residual; ``residual`` adds the
            network's output to the render, as published.
        num_references: number of photos warped in, 0 to 10; missing ones count as invalid.
        alpha: whether the render's alpha is an input.
        depth: whether the render's normalized inverse depth is an input.
        predict_error: also predict the absolute error of each pixel, which the confidence is computed from.
        max_residual: bound of the residual of the gated head, in sRGB.
        shape: a name of `architecture.SHAPES`, which sets the following four.
        width: channels at full resolution.
        enc_blocks: blocks per level on the way down.
        mid_blocks: blocks at the bottom.
        dec_blocks: blocks per level on the way up.
    """

    head: Literal["gated", "residual"] = "gated"
    num_references: int = 2
    alpha: bool = True
    depth: bool = True
    predict_error: bool = True
    max_residual: float = 0.15
    shape: str | None = None
    width: int = 16
    enc_blocks: tuple[int, ...] = (1, 1, 1, 2)
    mid_blocks: int = 2
    dec_blocks: tuple[int, ...] = (1, 1, 1, 1)

    def __post_init__(self) -> None:
        if not 0 <= self.num_references <= 10:
            raise ValueError(f"network.num_references = {self.num_references}: wanted 0 to 10")
        if self.shape is not None:
            if self.shape not in SHAPES:
                raise ValueError(f"network.shape = {self.shape!r}: wanted one of {', '.join(SHAPES)}")
            for name, value in vars(SHAPES[self.shape]).items():
                object.__setattr__(self, name, value)
            object.__setattr__(self, "shape", None)  # its sizes are set now
        _check_bound("max_residual", self.max_residual, 0, 1)
        _check_bound("width", self.width, 1, MAX_WIDTH)
        _check_bound("mid_blocks", self.mid_blocks, 0, MAX_BLOCKS)
        for name, blocks in (("enc_blocks", self.enc_blocks), ("dec_blocks", self.dec_blocks)):
            if len(blocks) > MAX_LEVELS or len(blocks) != len(self.enc_blocks):
                wanted = f"at most {MAX_LEVELS} levels, as many in enc_blocks as in dec_blocks"
                raise ValueError(f"network.{name} has {len(blocks)} levels: wanted {wanted}")
            for num in blocks:
                _check_bound(name, num, 0, MAX_BLOCKS)

    @property
    def in_channels(self) -> int:
        """Input channels: rgb, then rgb and validity of each warp, then alpha, then nearness."""
        return 3 + 4 * self.num_references + self.alpha + self.depth

    @property
    def out_channels(self) -> int:
        """Output channels: rgb residual, then one gate per warp (gated), then the log error."""
        return 3 + (self.num_references if self.head == "gated" else 0) + self.predict_error


def _check_bound(name: str, value: float, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"network.{name} = {value}: wanted {least} to {most}")


def expected_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's weights by their published names; nothing is allocated."""
    with torch.device("meta"):
        weights = GuidedNet(config).network.state_dict()
    return {name: tuple(value.shape) for name, value in weights.items()}


def network_inputs(conditioning: Conditioning, config: NetworkConfig) -> Float[Tensor, "C H W"]:
    """Stack the conditioning as input channels, in the order of `NetworkConfig.in_channels`."""
    warps = conditioning.warps[: config.num_references]
    missing = warps.new_zeros(config.num_references - len(warps), *warps.shape[1:])
    layers = [conditioning.rgb, *warps, *missing]
    layers += [conditioning.alpha[..., None]] if config.alpha else []
    layers += [conditioning.nearness[..., None]] if config.depth else []
    return torch.cat(layers, dim=-1).permute(2, 0, 1)


def warps_in(inputs: Float[Tensor, "B C H W"], num_references: int) -> Float[Tensor, "B R 4 H W"]:
    """The warped photos (rgb and validity) among the input channels: a view, not a copy."""
    return inputs[:, 3 : 3 + 4 * num_references].unflatten(1, (num_references, 4))


class Output(NamedTuple):
    """Output of the network: the repaired image (not clamped) and the natural log of its absolute error."""

    rgb: Float[Tensor, "B 3 H W"]
    log_error: Float[Tensor, "B 1 H W"] | None


class GuidedNet(nn.Module):
    """NAFNet with the inputs and the head that a `NetworkConfig` names."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.config = config
        self.network = NAFNet(
            config.in_channels,
            config.out_channels,
            width=config.width,
            enc_blocks=config.enc_blocks,
            mid_blocks=config.mid_blocks,
            dec_blocks=config.dec_blocks,
            residual=False,  # the head adds the render
        )
        bias = torch.zeros(config.out_channels)
        if config.head == "gated":
            bias[3 : 3 + config.num_references] = -GATE_BIAS
        if config.predict_error:
            bias[-1] = LOG_ERROR_BIAS
        nn.init.zeros_(self.network.ending.weight)
        self.network.ending.bias = nn.Parameter(bias)

    def forward(self, inputs: Float[Tensor, "B C H W"]) -> Output:
        """Repair a batch of `network_inputs`, of any size."""
        raw = self.network(inputs).float()
        rgb = HEADS[self.config.head](inputs.float(), raw, self.config)
        return Output(rgb, raw[:, -1:] if self.config.predict_error else None)


def use_layout(network: GuidedNet, layout: torch.memory_format) -> None:
    """Have a network keep its images and weights in this memory layout; its output is the same up to float noise."""
    network.network.layout = layout
    network.to(memory_format=layout)


def residual_head(inputs: Tensor, raw: Tensor, config: NetworkConfig) -> Float[Tensor, "B 3 H W"]:  # noqa: ARG001
    """The render plus the network's output (Chen et al. 2022)."""
    return inputs[:, :3] + raw[:, :3]


def gated_head(inputs: Tensor, raw: Tensor, config: NetworkConfig) -> Float[Tensor, "B 3 H W"]:
    """A softmax over {render, warps} per pixel, warps in proportion to their validity, plus a bounded residual.

    The render's logit is 0, that of an invalid warp -inf: no output of the network can mix it in.
    """
    render = inputs[:, :3]
    residual = config.max_residual * torch.tanh(raw[:, :3])
    if config.num_references == 0:
        return render + residual
    warps = warps_in(inputs, config.num_references)
    logits = raw[:, 3 : 3 + config.num_references] + warps[:, :, 3].log()
    gates = torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1).softmax(dim=1)
    mixed = gates[:, :1] * render + (gates[:, 1:, None] * warps[:, :, :3]).sum(1)
    return mixed + residual


HEADS: dict[str, Callable[[Tensor, Tensor, NetworkConfig], Tensor]] = {
    "gated": gated_head,
    "residual": residual_head,
}


def confidence_from(log_error: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B H W"]:
    """The confidence in each pixel, in (0, 1]: ``exp(-error / 0.1)`` of the predicted absolute error."""
    return torch.exp(-log_error[:, 0].exp() / ERROR_SCALE)
