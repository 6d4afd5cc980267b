"""What must hold on a CUDA device, as plain functions: for pytest, and for ``python -m tests.gpu.run`` without it.

Imports torch, numpy and what of splatfix needs no more than these. A check takes the device, so that the checks
themselves are tested on the CPU.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from splatfix.cameras import Camera
from splatfix.gaussians import Gaussians, Splat
from splatfix.rendering import l1_and_ssim, render, ssim
from splatfix.restoration.nafnet.architecture import NAFNet
from splatfix.splats.densify import DensifyConfig
from splatfix.splats.losses import TrainingView
from splatfix.splats.train import Fit, FitConfig, advance
from splatfix.training.losses import charbonnier
from tests.rendering import reference
from tests.rendering.scenes import camera, cloud, leaves

BACKGROUND = (0.2, 0.5, 0.9)
MAX_FOR_REFERENCE = 2000  # Gaussians: it draws every one at every pixel, and keeps all of that for the gradients


class Skip(Exception):  # noqa: N818 - no error
    """A check that cannot be made here; the message says why."""


def needs(package: str) -> None:
    """Skip where a package is missing."""
    if find_spec(package) is None:
        raise Skip(f"{package} is not installed")


@dataclass(frozen=True)
class Drawn:
    """Images of some cameras, padded alike, and gradients of a fixed weighted sum of them, all on the CPU."""

    images: dict[str, Tensor]
    gradients: dict[str, Tensor]


def drawn(gaussians: Gaussians, views: Sequence[Camera], mode: str, device: str) -> Drawn:
    """By `render`."""
    g = leaves(gaussians, device=device)
    made = render(Splat(g, mode, BACKGROUND), views)
    made.info["means2d"].retain_grad()
    images = {"rgb": made.rgb, "alpha": made.alpha, "depth": made.depth}
    _weighted_sum(images).backward()
    gradients = {name: t.grad for name, t in vars(g).items()}
    if len(set(made.sizes)) == 1:  # on CUDA, none reaches it otherwise
        gradients["means2d"] = made.info["means2d"].grad
    return _on_cpu(images, gradients)


def drawn_by_reference(gaussians: Gaussians, views: Sequence[Camera], mode: str) -> Drawn:
    """By the float64 reference; for few Gaussians."""
    g = leaves(gaussians, torch.float64)
    made = [reference.render(g, view, torch.tensor(BACKGROUND).double(), mode) for view in views]
    width, height = max(view.width_px for view in views), max(view.height_px for view in views)
    for one in made:
        one.means2d.retain_grad()
    images = {
        name: torch.stack([_padded(getattr(one, name), width, height) for one in made])
        for name in ("rgb", "alpha", "depth")
    }
    _weighted_sum(images).backward()
    gradients = {name: t.grad for name, t in vars(g).items()}
    if len({(view.width_px, view.height_px) for view in views}) == 1:
        gradients["means2d"] = torch.stack([one.means2d.grad for one in made])
    return _on_cpu(images, gradients)


def _padded(image: Tensor, width: int, height: int) -> Tensor:
    beside, below = width - image.shape[1], height - image.shape[0]
    return F.pad(image, (*(0, 0) * (image.ndim - 2), 0, beside, 0, below))


def _weighted_sum(images: dict[str, Tensor]) -> Tensor:
    random = torch.Generator().manual_seed(0)
    weights = [torch.randn(image.shape, generator=random).to(image) for image in images.values()]
    return sum((image * weight).sum() for image, weight in zip(images.values(), weights, strict=True))


def _on_cpu(images: dict[str, Tensor], gradients: dict[str, Tensor | None]) -> Drawn:
    return Drawn(
        {name: image.detach().cpu() for name, image in images.items()},
        {name: gradient.cpu() for name, gradient in gradients.items() if gradient is not None},
    )


SCENES: dict[str, tuple[Gaussians, list[Camera]]] = {
    "few": (cloud(200), [camera(100, 80)]),
    "crowded": (cloud(20_000, log_scale=-3.5, opacity=1.0), [camera(200, 150)]),
    "piles": (cloud(300, log_scale=-0.8, opacity=1.5, degree=1), [camera(90, 70)]),
    "batch": (cloud(500, log_scale=-2.5, degree=2), [camera(96, 64), camera(96, 64, angle_rad=-0.7)]),
    "sizes": (cloud(500, log_scale=-2.5, degree=0), [camera(96, 64), camera(60, 90, angle_rad=-0.7)]),
}


def same_images_and_gradients(device: str, *, scene: str, mode: str) -> None:
    """`render` on the device against the CPU kernels; without numba, and for the CPU itself, against the reference."""
    gaussians, views = SCENES[scene]
    kernels = device != "cpu" and find_spec("numba") is not None
    if not kernels and len(gaussians) > MAX_FOR_REFERENCE:
        raise Skip("too many Gaussians for the float64 reference, and there are no CPU kernels to compare with")
    needs("numba" if device == "cpu" else "gsplat")
    found = drawn(gaussians, views, mode, device)
    wanted = drawn(gaussians, views, mode, "cpu") if kernels else drawn_by_reference(gaussians, views, mode)
    for name, image in wanted.images.items():
        near = ((image - found.images[name]).abs() < 1e-3).float().mean()
        assert near > 0.99, f"{name}: {100 * (1 - near):.1f} % of the values differ by more than 0.001"
    for name, gradient in wanted.gradients.items():
        error = (gradient - found.gradients[name]).norm() / gradient.norm().clamp(min=1e-12)
        assert error < 1e-2, f"gradient of {name}: relative error {error:.1e}"


def dropped_gaussians_are_left_out(device: str) -> None:
    """`keep` on the device draws what the kept Gaussians alone draw, and gives the others no gradient."""
    needs("numba" if device == "cpu" else "gsplat")
    gaussians, view = leaves(cloud(100), device=device), camera(40, 40)
    keep = (torch.arange(100) % 3 > 0).to(device)
    dropped = render(Splat(gaussians), [view], keep=keep).rgb
    alone = render(Splat(gaussians.detach()[keep]), [view]).rgb
    assert ((dropped - alone).abs() < 1e-3).float().mean() > 0.99
    dropped.square().sum().backward()
    assert not gaussians.means.grad[~keep].any()
    assert gaussians.means.grad[keep].any()


def same_ssim(device: str) -> None:
    """Value and gradient against the float64 reference."""
    if device == "cpu":
        needs("numba")
    random = torch.Generator().manual_seed(0)
    a, b = (torch.rand(50, 70, 3, generator=random) for _ in range(2))
    ours, theirs = a.to(device, copy=True).requires_grad_(), a.double().requires_grad_()
    value, wanted = ssim(ours, b.to(device)), reference.ssim(theirs, b).mean()
    assert abs(value.item() - wanted.item()) < 1e-4
    value.backward()
    wanted.backward()
    assert (ours.grad.cpu() - theirs.grad).norm() < 1e-2 * theirs.grad.norm()


def same_loss(device: str) -> None:
    """The loss of a fit against float64: value and gradient, of sizes that are no multiple of a block."""
    needs("numba" if device == "cpu" else "triton")
    for height, width in ((37, 61), (130, 90), (1, 30)):
        random = torch.Generator().manual_seed(0)
        b = torch.rand(height, width, 3, generator=random)
        a = (b + 0.2 * torch.randn(height, width, 3, generator=random)).clamp(0, 1)
        theirs, ours = a.double().requires_grad_(), a.to(device).requires_grad_()
        value = l1_and_ssim(ours, b.to(device), 0.2)
        wanted = 0.8 * (theirs - b.double()).abs().mean() + 0.2 * (1 - reference.ssim(theirs, b).mean())
        assert abs(value.item() - wanted.item()) < 1e-6, f"{height} x {width}: {value.item()}, wanted {wanted.item()}"
        value.backward()
        wanted.backward()
        error = float((ours.grad.cpu() - theirs.grad).norm() / theirs.grad.norm())
        assert error < 1e-4, f"{height} x {width}: gradients differ by {error:.1e}"


def a_fit_lowers_its_error(device: str, *, strategy: str) -> None:
    """Photos drawn of one cloud, a fit that starts from another; growth reaches its cap and stops there."""
    needs("gsplat")
    if device == "cpu":
        needs("numba")
    truth = cloud(300, seed=0, degree=0, log_scale=-2.5, spread=0.5).to(device)
    cameras = [camera(48, 36, angle_rad=angle) for angle in (0.0, 1.6, 3.1, 4.7)]
    with torch.no_grad():
        photos = [TrainingView(view, render(Splat(truth), [view]).rgb[0].clamp(0, 1)) for view in cameras]
    densify = DensifyConfig(strategy=strategy, max_gaussians=230, every=5, start=0.0, stop=0.7, grow_gradient=1e-9)
    start = cloud(200, seed=1, degree=1, log_scale=-2.5, spread=0.5).to(device)
    config = FitConfig(steps=80, exposure_lr=1e-3, densify=densify)
    fit = Fit(start, config, scene_scale=4.0, num_photos=len(photos))

    def error() -> float:
        with torch.no_grad():
            made = [render(fit.splat(), [photo.camera]).rgb[0] for photo in photos]
        return float(sum((image - photo.rgb).abs().mean() for image, photo in zip(made, photos, strict=True)))

    before = error()
    advance(fit, photos, config.steps, seed=0)
    assert all(value.device.type == device for value in fit.params.values())
    assert len(fit.params["means"]) == (200 if strategy == "none" else 230)
    assert error() < 0.9 * before, f"error {error():.3f}, at the start {before:.3f}"


def a_step_waits_for_nothing(device: str) -> None:
    """No operation of ours makes the host wait for the device (gsplat itself fetches the number of its tile hits)."""
    if device == "cpu":
        raise Skip("a CPU has nothing to wait for")
    needs("gsplat")
    truth = cloud(300, degree=1, log_scale=-2.5, spread=0.5).to(device)
    photos = [TrainingView(view, torch.rand(36, 48, 3, device=device)) for view in [camera(48, 36)] * 2]
    photos[1] = replace(photos[1], nearness=torch.rand(36, 48, device=device))
    still = FitConfig(
        steps=6, exposure_lr=1e-3, flat_radius=0.3, flat_start=0.5, densify=DensifyConfig(strategy="none")
    )
    fit = Fit(truth, still, scene_scale=4.0, num_photos=len(photos))
    fit.depth_photos = (True, True)
    advance(fit, photos, 2, seed=0)  # compiles, and fills what is kept on the device
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            advance(fit, photos, 5, seed=0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waited = sorted({f"{w.filename}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)})
    ours = [place for place in waited if "gsplat" not in place]
    assert not ours, f"the step waits for the device in {', '.join(ours)}"


def same_stereo(device: str) -> None:
    """Depth maps of a photo and matched descriptors, by torch on the device against those of the CPU."""
    needs("numba")
    from tests.gpu.stereo import compare_matches, compare_stereo

    found = compare_stereo(device, 160, 120) | compare_matches(device)
    assert found["masks_differ"] < 2e-3, found
    assert found["depths_differ"] < 2e-3, found
    assert found["pairs_differ"] < 2e-3, found


def a_nafnet_learns_as_on_the_cpu(device: str, *, dtype: torch.dtype) -> None:
    """Losses of three training steps against float32 on the CPU."""
    torch.manual_seed(0)
    network = NAFNet(5, 3, width=8, enc_blocks=(1, 1), mid_blocks=1, dec_blocks=(1, 1))
    inputs, clean, weight = torch.rand(2, 5, 30, 44), torch.rand(2, 3, 30, 44), torch.ones(2, 1, 30, 44)

    def losses(place: str, precision: torch.dtype) -> list[float]:
        twin = copy.deepcopy(network).to(place)
        optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-2)
        values = []
        for _ in range(3):
            with torch.autocast(place, precision, enabled=precision != torch.float32):
                made = twin(inputs.to(place))
            loss = charbonnier(made.float(), clean.to(place), weight.to(place))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            values.append(loss.item())
        return values

    found, wanted = losses(device, dtype), losses("cpu", torch.float32)
    allowed = 1e-2 if dtype == torch.float32 else 5e-2
    assert all(abs(a - b) < allowed * b for a, b in zip(found, wanted, strict=True)), f"{found}, wanted {wanted}"
    assert found[-1] < found[0]


def flux_repairs_as_in_float32(device: str, *, offload: str) -> None:
    """FLUX with ControlNets (tiny random models) in bfloat16 on the device against float32 on the CPU."""
    for package in ("diffusers", "transformers", "cv2", "pydantic"):
        needs(package)
    from splatfix.flawed import FlawedView
    from splatfix.restoration.flux.controlnet import FluxControlnetRestorer
    from splatfix.restoration.flux.options import FluxControlnetOptions, LoadingOptions, SizeOptions
    from tests.restoration.flux.tiny import write_models

    size = (41, 50)
    rgb = F.interpolate(torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(0)), size=size, mode="bilinear")
    view = FlawedView(camera(50, 41), rgb[0].permute(1, 2, 0), torch.ones(size), torch.ones(size))
    with tempfile.TemporaryDirectory() as folder:
        tiny = write_models(Path(folder))

        def repaired(place: str, seed: int, **loading: str) -> Tensor:
            options = FluxControlnetOptions(
                model=tiny.flux,
                edge_controlnet=tiny.edge,
                depth_controlnet=tiny.depth,
                depth_model=tiny.depth_anything,
                steps=4,
                size=SizeOptions(min_side_px=0),
                loading=LoadingOptions(**loading),
            )
            [result] = FluxControlnetRestorer.open(options, torch.device(place)).repair([view], seed=seed)
            return result.rgb

        wanted, other = (repaired("cpu", seed, dtype="float32") for seed in (1, 2))
        found = repaired(device, 1, dtype="bfloat16", offload=offload)
    assert found.isfinite().all()
    # the random autoencoder amplifies rounding: the same image, not the same values
    error, spread = (found - wanted).abs().mean(), (other - wanted).abs().mean()
    assert error < 0.6 * spread, f"mean error {error:.4f}; another seed changes the image by {spread:.4f}"


CHECKS: dict[str, Callable[[str], None]] = {
    **{
        f"render, {scene}, {mode}": partial(same_images_and_gradients, scene=scene, mode=mode)
        for scene in SCENES
        for mode in ("classic", "antialiased")
    },
    "render, dropped Gaussians": dropped_gaussians_are_left_out,
    "SSIM": same_ssim,
    "loss": same_loss,
    **{
        f"fit, strategy {strategy}": partial(a_fit_lowers_its_error, strategy=strategy)
        for strategy in ("none", "default", "mcmc")
    },
    "fit, a step waits for nothing": a_step_waits_for_nothing,
    "stereo": same_stereo,
    "NAFNet, float32": partial(a_nafnet_learns_as_on_the_cpu, dtype=torch.float32),
    **{
        f"FLUX, bfloat16, offload {offload}": partial(flux_repairs_as_in_float32, offload=offload)
        for offload in ("none", "model")
    },
    "NAFNet, bfloat16": partial(a_nafnet_learns_as_on_the_cpu, dtype=torch.bfloat16),
}
