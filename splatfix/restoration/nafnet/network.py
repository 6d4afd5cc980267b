"""The network of a NAFNet restorer: from the conditioning of a flawed view to an image.

Inputs are the render, warped photos with their validity, alpha, nearness and buffers of the fits; one of two `HEADS`
turns the outputs into an image. A fresh network returns the render: exactly with ``residual``, up to gates of under 1 %
each with ``gated``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from splatfix.buffers import BufferName, plane_indices
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
        buffers: which images of the fits are inputs, each once (`buffers.compute_buffers`): normal, footprint, opacity,
            thickness, spread, seen, angle.
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
    buffers: tuple[BufferName, ...] = ()
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
        if len(set(self.buffers)) < len(self.buffers):
            raise ValueError(f"network.buffers = {list(self.buffers)}: wanted each once")
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
        """Number of input channels (`input_labels`)."""
        return len(input_labels(self))

    @property
    def out_channels(self) -> int:
        """Number of output channels (`output_labels`)."""
        return len(output_labels(self))


def _check_bound(name: str, value: float, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"network.{name} = {value}: wanted {least} to {most}")


def expected_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's weights by their published names; nothing is allocated."""
    with torch.device("meta"):
        weights = GuidedNet(config).network.state_dict()
    return {name: tuple(value.shape) for name, value in weights.items()}


def network_inputs(conditioning: Conditioning, config: NetworkConfig) -> Float[Tensor, "C H W"]:
    """Stack the conditioning as input channels, in the order of `input_labels`.

    Raises:
        ValueError: the network is given buffers, and the conditioning has none.
    """
    if config.buffers and conditioning.buffers is None:
        raise ValueError(f"conditioning has no buffers; this network is given {', '.join(config.buffers)}")
    warps = conditioning.warps[: config.num_references]
    missing = warps.new_zeros(config.num_references - len(warps), *warps.shape[1:])
    layers = [conditioning.rgb, *warps, *missing]
    layers += [conditioning.alpha[..., None]] if config.alpha else []
    if conditioning.buffers is not None:
        layers += [conditioning.buffers[..., plane_indices(config.buffers)]]
    layers += [conditioning.nearness[..., None]] if config.depth else []
    return torch.cat(layers, dim=-1).permute(2, 0, 1)


def warps_in(inputs: Float[Tensor, "B C H W"], num_references: int) -> Float[Tensor, "B R 4 H W"]:
    """The warped photos (rgb and validity) among the input channels: a view, not a copy."""
    return inputs[:, 3 : 3 + 4 * num_references].unflatten(1, (num_references, 4))


def input_labels(config: NetworkConfig) -> list[str]:
    """What each input channel holds: rgb, then rgb and validity of each warp, alpha, buffers, and last nearness."""
    warps = [f"warp {i} {plane}" for i in range(config.num_references) for plane in ("r", "g", "b", "validity")]
    buffers = [f"buffer {plane}" for plane in plane_indices(config.buffers)]
    return ["r", "g", "b", *warps, *(["alpha"] * config.alpha), *buffers, *(["nearness"] * config.depth)]


def output_labels(config: NetworkConfig) -> list[str]:
    """What each output channel holds: the residual of rgb, then one gate per warp (gated), then the log error."""
    gates = [f"gate {i}" for i in range(config.num_references)] if config.head == "gated" else []
    return ["r", "g", "b", *gates, *(["error"] * config.predict_error)]


def widen(trained: GuidedNet, config: NetworkConfig) -> GuidedNet | None:
    """A network of a config that repairs as a trained one does, which it has all inputs of; None if that cannot be.

    The weights of inputs that the trained one lacks are 0, and gates of further warped photos are those of a fresh
    network. In all else the two configs have to be the same.
    """
    inputs, outputs = input_labels(trained.config), output_labels(trained.config)
    more_inputs, more_outputs = input_labels(config), output_labels(config)
    extent = {name: getattr(config, name) for name in ("num_references", "alpha", "depth", "buffers", "predict_error")}
    if (
        replace(trained.config, **extent) != config
        or not {*inputs} <= {*more_inputs}
        or not {*outputs} <= {*more_outputs}
    ):
        return None
    network = GuidedNet(config)
    weights, ours = trained.network.state_dict(), network.network.state_dict()
    columns, rows = [more_inputs.index(label) for label in inputs], [more_outputs.index(label) for label in outputs]
    intro = torch.zeros_like(ours["intro.weight"])
    intro[:, columns] = weights["intro.weight"]
    ending, bias = ours["ending.weight"].clone(), ours["ending.bias"].clone()
    ending[rows], bias[rows] = weights["ending.weight"], weights["ending.bias"]
    network.network.load_state_dict(weights | {"intro.weight": intro, "ending.weight": ending, "ending.bias": bias})
    return network


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


def confidence_from(
    log_error: Float[Tensor, "B 1 H W"], scale: float = 1.0, power: float = 1.0
) -> Float[Tensor, "B H W"]:
    """The confidence in each pixel, in (0, 1]: ``exp(-error / 0.1)`` of the expected absolute error.

    ``scale`` and ``power`` calibrate the error that the network predicts (`checkpoint.CheckpointConfig.calibration`).
    """
    return torch.exp(-scale * (power * log_error[:, 0]).exp() / ERROR_SCALE)
