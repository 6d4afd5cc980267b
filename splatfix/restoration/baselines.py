"""Restorers that have learned nothing: what a network has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from splatfix.conditioning import guidance_of
from splatfix.flawed import FlawedView
from splatfix.restoration.restorer import Repaired
from splatfix.shapes import Float


@dataclass(frozen=True)
class Identity:
    """Returns the render itself."""

    def repair(self, views: Sequence[FlawedView], *, seed: int) -> list[Repaired]:  # noqa: ARG002
        """See `Restorer`."""
        return [Repaired(view.rgb.clamp(0, 1)) for view in views]


@dataclass(frozen=True)
class Bilateral:
    """Alpha-weighted bilateral filter (Tomasi and Manduchi 1998), guided by a median against thin stray Gaussians.

    Attributes:
        radius_px: of the square window.
        sigma_px: standard deviation of the spatial weight.
        sigma_color: standard deviation of the colour weight, in [0, 1] sRGB.
    """

    radius_px: int = 3
    sigma_px: float = 1.5
    sigma_color: float = 0.08

    def repair(self, views: Sequence[FlawedView], *, seed: int) -> list[Repaired]:  # noqa: ARG002
        """See `Restorer`. Pixels that the fit does not cover are filled from covered neighbours."""
        return [Repaired(self._filtered(view.rgb.float().clamp(0, 1), view.alpha.float())) for view in views]

    def _filtered(self, rgb: Float[Tensor, "H W 3"], alpha: Float[Tensor, "H W"]) -> Float[Tensor, "H W 3"]:
        image, alpha = rgb.permute(2, 0, 1)[None], alpha[None, None].clamp(0.01, 1)
        guide = _windows(image, 1).median(dim=2).values[:, :, None]
        neighbours, trust = _windows(image, self.radius_px), _windows(alpha, self.radius_px)
        offsets = torch.arange(-self.radius_px, self.radius_px + 1, device=rgb.device)
        squared_px = (offsets[:, None] ** 2 + offsets**2).flatten()[:, None, None]
        squared_color = (neighbours - guide).square().mean(1, keepdim=True)
        exponent = squared_px / (2 * self.sigma_px**2) + squared_color / (2 * self.sigma_color**2)
        weight = trust * torch.exp(-exponent)
        filtered = (neighbours * weight).sum(2) / weight.sum(2).clamp(min=1e-6)
        return filtered[0].permute(1, 2, 0).clamp(0, 1)


@dataclass(frozen=True)
class Warp:
    """Blends photos that depth carries into the view, where they agree with each other and with the render.

    Each pixel is a weighted mean of the render (weight 1) and the warped photos (their validity). Their weight falls
    with the distance from the median of all of them (Welsch's robust weight), so that without two witnesses, or where
    they contradict each other, the render stays.

    Attributes:
        num_references: photos to warp in.
        sigma_color: distance from the median at which a photo's weight is down to exp(-1/2), in sRGB.
    """

    num_references: int = 2
    sigma_color: float = 0.1

    def repair(self, views: Sequence[FlawedView], *, seed: int) -> list[Repaired]:  # noqa: ARG002
        """See `Restorer`. The confidence is that at least one warped photo supports the pixel."""
        return [self._blended(view) for view in views]

    def _blended(self, view: FlawedView) -> Repaired:
        guidance = guidance_of(view, self.num_references)
        colours, validity = guidance.warps[..., :3], guidance.warps[..., 3]
        # Missing warps vote for the render, so that a single photo cannot be the median on its own.
        votes = torch.where((validity > 0.1)[..., None], colours, guidance.rgb)
        consensus = torch.cat([guidance.rgb[None], votes]).median(dim=0).values
        squared = (colours - consensus).square().mean(-1)
        weight = validity * torch.exp(-0.5 * squared / self.sigma_color**2)
        total = guidance.rgb + (weight[..., None] * colours).sum(0)
        rgb = total / (1 + weight.sum(0)[..., None])
        return Repaired(rgb.clamp(0, 1), 1 - (1 - weight).prod(0))


def _windows(image: Float[Tensor, "1 C H W"], radius_px: int) -> Float[Tensor, "1 C K H W"]:
    """The K pixels of the square window around each pixel; the border is repeated."""
    size = 2 * radius_px + 1
    padded = F.pad(image, (radius_px,) * 4, mode="replicate")
    planes = F.unfold(padded, size)
    return planes.view(1, image.shape[1], size * size, *image.shape[2:])
