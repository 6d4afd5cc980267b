"""Restorers without learned parameters: what a network has to beat.

Each is a frozen dataclass that holds its own options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from splatfix.conditioning import compute_conditioning
from splatfix.flawed import FlawedView
from splatfix.restoration.restorer import Repaired
from splatfix.shapes import Float


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Returns the render itself; has no options."""

    def repair(self, views: Sequence[FlawedView], *, seed: int) -> list[Repaired]:  # noqa: ARG002
        """See `Restorer`."""
        return [Repaired(view.rgb.clamp(0, 1)) for view in views]


@dataclass(frozen=True, kw_only=True)
class Bilateral:
    """Alpha-weighted bilateral filter (Tomasi and Manduchi 1998), guided by a median against thin stray Gaussians.

    Attributes:
        radius_px: half the side of the square window, in pixels.
        sigma_px: standard deviation of the spatial weight, in pixels.
        sigma_color: standard deviation of the color weight, in [0, 1] sRGB.
    """

    radius_px: int = 3
    sigma_px: float = 1.5
    sigma_color: float = 0.08

    def __post_init__(self) -> None:
        _require_at_least_1("radius_px", self.radius_px)
        _require_positive("sigma_px", self.sigma_px)
        _require_positive("sigma_color", self.sigma_color)

    def repair(self, views: Sequence[FlawedView], *, seed: int) -> list[Repaired]:  # noqa: ARG002
        """See `Restorer`. Pixels that the fit does not cover are filled from covered neighbors."""
        return [Repaired(self._filter(view.rgb.float().clamp(0, 1), view.alpha.float())) for view in views]

    def _filter(self, rgb: Float[Tensor, "H W 3"], alpha: Float[Tensor, "H W"]) -> Float[Tensor, "H W 3"]:
        image, alpha = rgb.permute(2, 0, 1)[None], alpha[None, None].clamp(0.01, 1)
        guide = _windows(image, 1).median(dim=2).values[:, :, None]
        neighbors, trust = _windows(image, self.radius_px), _windows(alpha, self.radius_px)
        offsets = torch.arange(-self.radius_px, self.radius_px + 1, device=rgb.device)
        squared_px = (offsets[:, None] ** 2 + offsets**2).flatten()[:, None, None]
        squared_color = (neighbors - guide).square().mean(1, keepdim=True)
        exponent = squared_px / (2 * self.sigma_px**2) + squared_color / (2 * self.sigma_color**2)
        weight = trust * torch.exp(-exponent)
        total = weight.sum(2)
        filtered = (neighbors * weight).sum(2) / total.clamp(min=1e-6)
        filtered = torch.where(total < 1e-6, guide[:, :, 0], filtered)  # no neighbor is similar: sigma_color is tiny
        return filtered[0].permute(1, 2, 0).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class Warp:
    """Blends photos that depth carries into the view, where they agree with each other and with the render.

    Each pixel is a weighted mean of the render (weight 1) and the warped photos (their validity). A photo's weight
    falls with its distance from the median of all of them (Welsch's robust weight), so that the render remains where
    fewer than two photos see a point, or where they contradict each other.

    Attributes:
        num_references: number of photos to warp in.
        sigma_color: distance from the median at which a photo's weight falls to exp(-1/2), in [0, 1] sRGB.
    """

    num_references: int = 2
    sigma_color: float = 0.1

    def __post_init__(self) -> None:
        _require_at_least_1("num_references", self.num_references)
        _require_positive("sigma_color", self.sigma_color)

    def repair(self, views: Sequence[FlawedView], *, seed: int) -> list[Repaired]:  # noqa: ARG002
        """See `Restorer`. The confidence is that at least one warped photo supports the pixel."""
        return [self._blend(view) for view in views]

    def _blend(self, view: FlawedView) -> Repaired:
        conditioning = compute_conditioning(view, self.num_references)
        colors, validity = conditioning.warps[..., :3], conditioning.warps[..., 3]
        # Missing warps vote for the render, so that a single photo cannot be the median on its own.
        votes = torch.where((validity > 0.1)[..., None], colors, conditioning.rgb)
        consensus = torch.cat([conditioning.rgb[None], votes]).median(dim=0).values
        squared = (colors - consensus).square().mean(-1)
        weight = validity * torch.exp(-0.5 * squared / self.sigma_color**2)
        total = conditioning.rgb + (weight[..., None] * colors).sum(0)
        rgb = total / (1 + weight.sum(0)[..., None])
        return Repaired(rgb.clamp(0, 1), 1 - (1 - weight).prod(0))


def _windows(image: Float[Tensor, "1 C H W"], radius_px: int) -> Float[Tensor, "1 C K H W"]:
    """The K pixels of the square window around each pixel; the border is repeated."""
    size = 2 * radius_px + 1
    padded = F.pad(image, (radius_px,) * 4, mode="replicate")
    planes = F.unfold(padded, size)
    return planes.view(1, image.shape[1], size * size, *image.shape[2:])


# `splatfix.config.require` would do, but networks and what they import need no pydantic.
def _require_at_least_1(field: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{field} = {value}: wanted at least 1")


def _require_positive(field: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{field} = {value}: wanted a number above 0")
