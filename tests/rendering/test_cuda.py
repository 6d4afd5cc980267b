"""gsplat on CUDA and the CPU kernels draw the same: images and gradients on the same scenes."""

from __future__ import annotations

import pytest
import torch

from splatfix.rendering import render, ssim
from tests.rendering.scenes import camera, cloud, leaves

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

SCENES = {
    "few": (cloud(200), [camera(100, 80)]),
    "crowded": (cloud(20_000, log_scale=-3.5, opacity=1.0), [camera(200, 150)]),
    "piles": (cloud(300, log_scale=-0.8, opacity=1.5, degree=1), [camera(90, 70)]),
    "batch": (cloud(2000, log_scale=-3.0, degree=2), [camera(96, 64), camera(96, 64, angle_rad=-0.7)]),
    # several sizes: gsplat's limits of the Jacobian follow the common size, so stay clear of the border
    "sizes": (cloud(2000, log_scale=-3.0, spread=0.5, degree=0), [camera(96, 64), camera(60, 90, angle_rad=-0.7)]),
}


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
@pytest.mark.parametrize("scene", SCENES)
def test_same_images_and_gradients(scene: str, mode: str) -> None:
    gaussians, views = SCENES[scene]
    results = {}
    for device in ("cpu", "cuda"):
        g = leaves(gaussians, device=device)
        drawn = render(g, views, background=[0.2, 0.5, 0.9], mode=mode)
        drawn.info["means2d"].retain_grad()
        random = torch.Generator().manual_seed(0)
        weights = [torch.randn(i.shape, generator=random).to(device) for i in (drawn.rgb, drawn.alpha, drawn.depth)]
        loss = sum((i * w).sum() for i, w in zip((drawn.rgb, drawn.alpha, drawn.depth), weights, strict=True))
        loss.backward()
        images = {"rgb": drawn.rgb, "alpha": drawn.alpha, "depth": drawn.depth}
        found = {name: t.grad.cpu() for name, t in vars(g).items() if t.grad is not None}
        found["means2d"] = drawn.info["means2d"].grad.cpu()
        results[device] = ({n: i.detach().cpu() for n, i in images.items()}, found, drawn.info["radii"].cpu())
    ours, theirs = results["cpu"], results["cuda"]
    for name, image in ours[0].items():
        assert ((image - theirs[0][name]).abs() < 1e-3).float().mean() > 0.99, name
    for name, gradient in ours[1].items():
        assert (gradient - theirs[1][name]).norm() < 1e-2 * gradient.norm(), name
    seen, also = (ours[2] > 0).all(-1), (theirs[2] > 0).all(-1)
    assert (seen == also).float().mean() > 0.999


def test_keep() -> None:
    gaussians, view = cloud(100), camera(40, 40)
    keep = torch.arange(100) % 3 > 0
    ours = render(gaussians, [view], keep=keep).rgb
    theirs = render(gaussians.to("cuda"), [view], keep=keep.cuda()).rgb.cpu()
    assert ((ours - theirs).abs() < 1e-3).float().mean() > 0.99


def test_ssim() -> None:
    random = torch.Generator().manual_seed(0)
    a, b = (torch.rand(50, 70, 3, generator=random) for _ in range(2))
    values, found = [], []
    for device in ("cpu", "cuda"):
        image = a.to(device).detach().requires_grad_()
        value = ssim(image, b.to(device))
        value.backward()
        values.append(value.item())
        found.append(image.grad.cpu())
    assert abs(values[0] - values[1]) < 1e-4
    assert (found[0] - found[1]).norm() < 1e-2 * found[0].norm()
