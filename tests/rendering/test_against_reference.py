"""The CPU kernels against the float64 reference: images, and the gradient of every parameter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from splatfix.gaussians import Gaussians, Splat
from splatfix.rendering import render
from tests.rendering import reference
from tests.rendering.scenes import camera, cloud, leaves

BACKGROUND = torch.tensor([0.2, 0.5, 0.9])


def compare(gaussians: Gaussians, view, mode: str, sh_degree: int | None = None, tolerance: float = 1e-4) -> None:
    """Images to 1e-5 (depth to 1e-4) and gradients to ``tolerance``, relative to the norm of each parameter's."""
    random = torch.Generator().manual_seed(7)
    h, w = view.height_px, view.width_px
    weights = [torch.randn(shape, generator=random) for shape in ((h, w, 3), (h, w), (h, w))]

    ours = leaves(gaussians)
    drawn = render(Splat(ours, mode, BACKGROUND), [view], sh_degree=sh_degree)
    images = (drawn.rgb[0], drawn.alpha[0], drawn.depth[0])
    drawn.info["means2d"].retain_grad()
    sum((image * weight).sum() for image, weight in zip(images, weights, strict=True)).backward()

    theirs = leaves(gaussians, torch.float64)
    wanted = reference.render(theirs, view, BACKGROUND.double(), mode, sh_degree)
    assert wanted.margin > 2e-6, "the scene is too near a threshold to compare; choose another seed"
    wanted.means2d.retain_grad()
    references = (wanted.rgb, wanted.alpha, wanted.depth)
    sum((image * weight).sum() for image, weight in zip(references, weights, strict=True)).backward()

    assert (images[0] - wanted.rgb).abs().max() < 1e-5
    assert (images[1] - wanted.alpha).abs().max() < 1e-5
    assert (images[2] - wanted.depth).abs().max() < 1e-4
    pairs = {name: (getattr(ours, name).grad, getattr(theirs, name).grad) for name in vars(ours)}
    pairs["means2d"] = (drawn.info["means2d"].grad[0], wanted.means2d.grad)
    for name, (found, expected) in pairs.items():
        if expected is None:
            assert found is None or not found.any(), name
            continue
        error = (found.double() - expected).norm() / expected.norm().clamp(min=1e-12)
        assert error < tolerance, f"gradient of {name}: relative error {error:.2e}"


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_images_and_gradients(mode: str, degree: int) -> None:
    compare(cloud(40, degree=degree, seed=degree), camera(45, 38), mode)


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_small_gaussians(mode: str) -> None:
    """Below a pixel in size, where the low-pass decides."""
    compare(cloud(60, log_scale=-4.5, opacity=1.0, degree=1, seed=5), camera(40, 33), mode)


def test_wide_field_of_view() -> None:
    """Gaussians beside and around the camera: the Jacobian's limits, and boxes far outside the image."""
    compare(cloud(40, spread=3.0, degree=1, seed=11), camera(40, 30, focal=0.4), "classic")


def test_opaque_pile() -> None:
    """Deep stacks that reach the transmittance at which pixels finish."""
    compare(cloud(150, log_scale=-0.8, opacity=1.5, degree=0, seed=3), camera(24, 20), "classic")


def test_lower_degree_than_stored() -> None:
    compare(cloud(30, degree=3, seed=9), camera(33, 17), "classic", sh_degree=1)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_crowded_scene(mode: str) -> None:
    """Where single precision may decide otherwise at a threshold, nearly all pixels still agree."""
    gaussians, view = cloud(1500, log_scale=-3.0, opacity=1.0, degree=2), camera(80, 70)
    drawn = render(Splat(gaussians, mode, BACKGROUND), [view])
    wanted = reference.render(gaussians, view, BACKGROUND.double(), mode)
    for image, expected in ((drawn.rgb[0], wanted.rgb), (drawn.alpha[0], wanted.alpha)):
        near = (image - expected).abs() < 1e-4
        assert near.float().mean() > 0.999


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_tall_image(mode: str) -> None:
    """Gaussians from below a pixel to half the image, thin ones at every angle, over many rows of tiles."""
    gaussians = cloud(300, log_scale=-2.5, opacity=0.5, degree=1, seed=21)
    stretched = gaussians.log_scales + torch.tensor([1.6, -1.0, -1.0])
    gaussians = replace(gaussians, log_scales=torch.where(torch.arange(300)[:, None] % 3 == 0, stretched, -3.5))
    view = camera(75, 210)
    drawn = render(Splat(gaussians, mode, BACKGROUND), [view])
    wanted = reference.render(gaussians, view, BACKGROUND.double(), mode)
    for image, expected in ((drawn.rgb[0], wanted.rgb), (drawn.alpha[0], wanted.alpha)):
        near = (image - expected).abs() < 1e-4
        assert near.float().mean() > 0.999
