"""Regularizers of a training step: dropout of Gaussians, decay of opacities, and a step towards flat minima."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from splatfix.gaussians import Gaussians, covariances
from splatfix.profiling import section
from splatfix.shapes import Float

InfoT = TypeVar("InfoT")


def draw_uniform(num: int, generator: torch.Generator, device: torch.device) -> Float[Tensor, " N"]:
    """Draw uniform numbers from 0 to 1, on the device itself, which is faster than a copy from the CPU."""
    if device.type != "cpu":
        seed = int(torch.randint(2**62, (), generator=generator))
        generator = torch.Generator(device).manual_seed(seed)
    return torch.rand(num, generator=generator, device=device)


def compensate_dropout(gaussians: Gaussians, dropout: float) -> Gaussians:
    """Raise opacities to compensate for the share of Gaussians that a step drops (DropGaussian, Park et al. 2025).

    Without this, the exported splat, in which no Gaussian is dropped, would be too opaque.
    """
    opacities = (gaussians.opacities / (1 - dropout)).clamp(max=0.99)
    return replace(gaussians, opacity_logits=torch.logit(opacities))


@torch.no_grad()
def decay_opacities(logits: Float[Tensor, " P"], factor: float) -> None:
    """Multiply opacities by a factor in (0, 1), in place, given as logits.

    The logit of ``f / (1 + exp(-x))`` is ``log f - log((1 - f) + exp(-x))``, which no opacity makes infinite.
    """
    rest = torch.full((), math.log1p(-factor), dtype=logits.dtype, device=logits.device)
    logits.copy_(math.log(factor) - torch.logaddexp(rest, -logits))


def backpropagate_at_worst(
    means: torch.nn.Parameter,
    gaussians: Callable[[], Gaussians],
    compute_loss: Callable[[], tuple[Float[Tensor, ""], InfoT]],
    radius: float,
) -> tuple[Float[Tensor, ""], InfoT]:
    """Set the gradients of a loss to those with all Gaussians displaced to where it is worst nearby; returns it there.

    A step with these gradients leads to flat minima (sharpness-aware minimization, Foret et al. 2021, eq. 3): the loss
    is low also where Gaussians are a little out of place, as they are to views that were not trained on.

    Args:
        means: positions, displaced during the call only.
        gaussians: returns the Gaussians with the present positions.
        compute_loss: renders these and returns the loss, and whatever else.
        radius: of the displacement (`find_worst_offsets`).
    """
    loss, _ = compute_loss()
    with section("autograd"):
        (gradient,) = torch.autograd.grad(loss, means)
    before = means.detach().clone()
    with torch.no_grad():
        means.add_(find_worst_offsets(gaussians(), gradient, radius))
    loss, info = compute_loss()
    with section("autograd"):
        loss.backward()
    with torch.no_grad():
        means.copy_(before)  # exactly, which subtracting would not be
    return loss, info


@torch.no_grad()
def find_worst_offsets(gaussians: Gaussians, gradient: Float[Tensor, "N 3"], radius: float) -> Float[Tensor, "N 3"]:
    """Find the offset of each Gaussian that raises the loss most, within ``radius`` standard deviations of its center.

    This is the ascent step of sharpness-aware minimization (Foret et al. 2021, eq. 2) for positions, in the metric of
    each Gaussian's covariance S: ``radius * S g / sqrt(g' S g)``, in world units; 0 where the gradient ``g`` is 0.
    """
    scaled = torch.einsum("nij,nj->ni", covariances(gaussians.quats, gaussians.log_scales.exp()), gradient)
    length = (scaled * gradient).sum(dim=1, keepdim=True).clamp_min(0).sqrt()
    return torch.where(length > 0, radius * scaled / length.clamp_min(torch.finfo(length.dtype).tiny), 0.0)
