"""NAFNet, a U-Net of blocks without nonlinear activations (Chen et al. 2022, "Simple Baselines for Image Restoration").

Parameters carry the published names (`intro`, `encoders`, `middle_blks`, ...), so published state dicts load. Needs
torch alone. Tensors are ``[B, C, H, W]``; memory is channels-last, where layer norm over channels is a plain
`layer_norm` and CPUs are fastest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Size of a NAFNet: channels at full resolution, and blocks on the way down, at the bottom and on the way up."""

    width: int
    enc_blocks: tuple[int, ...]
    mid_blocks: int
    dec_blocks: tuple[int, ...]


SHAPES: dict[str, Shape] = {  # parameters with 3 channels in and out
    "small": Shape(16, (1, 1, 1, 2), 2, (1, 1, 1, 1)),  # 1.7 million: shipped, for laptops
    "medium": Shape(32, (1, 1, 1, 4), 4, (1, 1, 1, 1)),  # 11.5 million
    "gopro-width32": Shape(32, (1, 1, 1, 28), 1, (1, 1, 1, 1)),  # 17.1 million, as published
    "gopro-width64": Shape(64, (1, 1, 1, 28), 1, (1, 1, 1, 1)),  # 67.9 million, as published
    "sidd-width32": Shape(32, (2, 2, 4, 8), 12, (2, 2, 2, 2)),  # 29.2 million, as published
    "sidd-width64": Shape(64, (2, 2, 4, 8), 12, (2, 2, 2, 2)),  # 116.0 million, as published
}


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of each pixel."""

    def __init__(self, channels: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        rows = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return rows.permute(0, 3, 1, 2)


class SimpleGate(nn.Module):
    """The product of the two halves of the channels (equation 6)."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return first * second


class Pool(nn.Module):
    """Mean over the image, or over a window around each pixel once `use_local_pooling` has set one.

    The window is TLC (Chu et al. 2022, "Improving Image Restoration by Revisiting Global Information Aggregation"):
    a network trained on patches then pools over an area of about the training size, on images of any size.
    """

    window_px: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.window_px is None or max(x.shape[2:]) <= self.window_px:
            return x.mean((2, 3), keepdim=True)
        return local_mean(x, self.window_px)


def local_mean(x: Tensor, window_px: int) -> Tensor:
    """Mean over the ``window_px`` square around each pixel, shifted to stay inside the image. ``[B, C, H, W]``.

    Uses an integral image. The mean of each plane is subtracted first, which keeps float32 sums exact enough.
    """
    height, width = x.shape[2:]
    h, w = min(window_px, height), min(window_px, width)
    offset = x.float().mean((2, 3), keepdim=True)
    sums = F.pad((x.float() - offset).cumsum(2).cumsum(3), (1, 0, 1, 0))
    total = sums[:, :, h:, w:] - sums[:, :, :-h, w:] - sums[:, :, h:, :-w] + sums[:, :, :-h, :-w]
    above, left = (height - total.shape[2]) // 2, (width - total.shape[3]) // 2
    below, right = height - total.shape[2] - above, width - total.shape[3] - left
    mean = F.pad(total / (h * w), (left, right, above, below), mode="replicate") + offset
    return mean.to(x.dtype)


class NAFBlock(nn.Module):
    """Depthwise convolution with simplified channel attention, then a gated pointwise layer; both residual."""

    def __init__(self, channels: int):
        super().__init__()
        wide = 2 * channels
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.sca = nn.Sequential(Pool(), nn.Conv2d(channels, channels, 1))
        self.sg = SimpleGate()
        self.conv4 = nn.Conv2d(channels, wide, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.norm1 = LayerNorm2d(channels)
        self.norm2 = LayerNorm2d(channels)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.sg(self.conv2(self.conv1(self.norm1(x))))
        x = x + self.conv3(y * self.sca(y)) * self.beta
        y = self.conv5(self.sg(self.conv4(self.norm2(x))))
        return x + y * self.gamma


class NAFNet(nn.Module):
    """The U-Net.

    Args:
        in_channels, out_channels: of the images.
        width: channels at full resolution; doubled at every level down.
        enc_blocks, dec_blocks: blocks per level, from full resolution down, and from the deepest level up.
        mid_blocks: blocks at the bottom.
        residual: add the first ``out_channels`` input channels to the output, as published.

    `SHAPES` has the published ones.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        width: int = 32,
        enc_blocks: Sequence[int] = (1, 1, 1, 28),
        mid_blocks: int = 1,
        dec_blocks: Sequence[int] = (1, 1, 1, 1),
        residual: bool = True,
    ):
        super().__init__()
        if len(enc_blocks) != len(dec_blocks):
            raise ValueError(f"enc_blocks = {enc_blocks}, dec_blocks = {dec_blocks}: wanted as many levels in both")
        if residual and out_channels > in_channels:
            raise ValueError(f"residual wants out_channels <= in_channels, saw {out_channels} > {in_channels}")
        self.layout = torch.channels_last  # of images in memory
        self.residual = residual
        self.out_channels = out_channels
        self.intro = nn.Conv2d(in_channels, width, 3, padding=1)
        self.ending = nn.Conv2d(width, out_channels, 3, padding=1)
        self.encoders, self.downs, self.ups, self.decoders = (nn.ModuleList() for _ in range(4))
        channels = width
        for num in enc_blocks:
            self.encoders.append(nn.Sequential(*(NAFBlock(channels) for _ in range(num))))
            self.downs.append(nn.Conv2d(channels, 2 * channels, 2, stride=2))
            channels *= 2
        self.middle_blks = nn.Sequential(*(NAFBlock(channels) for _ in range(mid_blocks)))
        for num in dec_blocks:
            self.ups.append(nn.Sequential(nn.Conv2d(channels, 2 * channels, 1, bias=False), nn.PixelShuffle(2)))
            channels //= 2
            self.decoders.append(nn.Sequential(*(NAFBlock(channels) for _ in range(num))))

    @property
    def multiple_px(self) -> int:
        """Images are padded (with zeros, right and below) to a multiple of this."""
        return 2 ** len(self.encoders)

    def forward(self, image: Tensor) -> Tensor:
        """``[B, in_channels, H, W]`` to ``[B, out_channels, H, W]``, any size."""
        height, width = image.shape[2:]
        padded = F.pad(image, (0, -width % self.multiple_px, 0, -height % self.multiple_px))
        x = self.unet(padded.contiguous(memory_format=self.layout))[:, :, :height, :width]
        return x + image[:, : self.out_channels] if self.residual else x

    def unet(self, image: Tensor) -> Tensor:
        """As `forward`, without padding and residual: sides are multiples of `multiple_px`."""
        x, skips = self.intro(image), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle_blks(x)
        for decoder, up in zip(self.decoders, self.ups, strict=True):
            x = decoder(up(x) + skips.pop())
        return self.ending(x)


def use_local_pooling(network: NAFNet, train_patch_px: int | None) -> None:
    """Pool over windows of 1.5 training patches (at each level's resolution), as TLC does; None: over the image."""
    levels = [*enumerate(network.encoders), (len(network.encoders), network.middle_blks)]
    levels += [(len(network.decoders) - 1 - i, decoder) for i, decoder in enumerate(network.decoders)]
    for level, blocks in levels:
        for module in blocks.modules():
            if isinstance(module, Pool):
                module.window_px = None if train_patch_px is None else max(1, round(1.5 * train_patch_px) >> level)
