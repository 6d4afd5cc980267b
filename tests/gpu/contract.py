"""The contract between gsplat and us as functions that fail when it is broken; `test_gsplat_contract` calls them.

Each compares our CPU kernels with gsplat's own Python over `emulated_gsplat`.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from typing import Any

import gsplat
import pytest
import torch
from gsplat.strategy import DefaultStrategy, MCMCStrategy
from torch import Tensor

from splatfix.gaussians import Gaussians, Splat
from splatfix.rendering import render
from splatfix.splats.densify import DensifyConfig
from splatfix.splats.losses import TrainingView
from splatfix.splats.train import Fit, FitConfig, advance
from tests.gpu.checks import SCENES, Drawn, drawn
from tests.gpu.emulated_gsplat import render_through_gsplat
from tests.rendering.scenes import camera, cloud, leaves

# Both sides round to float32, at other places. Measured: images 1e-5 (depth relative to its largest value), gradients
# 4e-5 of their norm, the PSNR of fits 1e-5 dB. Where rounding decides whether a Gaussian reaches alpha 1/255, or is the
# last one of a pixel, the pixel may differ by more: at most one of some thousand.
IMAGE_TOLERANCE, OUTLIER_SHARE, GRADIENT_TOLERANCE, FIT_TOLERANCE_DB = 2e-4, 1e-3, 2e-4, 1e-3

CONTRACT_SCENES = SCENES | {
    "dense": (cloud(1500, log_scale=-3.0, opacity=1.0, degree=2), [camera(80, 70)]),
    # many of these Gaussians are culled, behind the camera or beside the image
    "around": (cloud(300, spread=3.0, degree=1, seed=11), [camera(80, 60, focal=0.4)]),
}
# The parameters of `gsplat.rasterization` that we leave at their defaults, which are part of what the CPU kernels copy.
RASTERIZATION_DEFAULTS = {
    **{"near_plane": 0.01, "far_plane": 1e10, "radius_clip": 0.0, "eps2d": 0.3, "tile_size": 16, "sparse_grad": False},
    **{
        "sh_degree": None,
        "channel_chunk": 32,
        "distributed": False,
        "camera_model": "pinhole",
        "segmented": False,
        "covars": None,
    },
    **{"with_ut": False, "with_eval3d": False, "radial_coeffs": None, "tangential_coeffs": None},
    **{"thin_prism_coeffs": None, "ftheta_coeffs": None, "viewmats_rs": None},
    "rolling_shutter": gsplat.rendering.RollingShutterType.GLOBAL,
}
# The settings of the strategies and their defaults; `Densifier` sets some of them.
DEFAULT_SETTINGS = {
    **{"prune_opa": 0.005, "grow_grad2d": 2e-4, "grow_scale3d": 0.01, "grow_scale2d": 0.05, "prune_scale3d": 0.1},
    **{"prune_scale2d": 0.15, "refine_scale2d_stop_iter": 0, "refine_start_iter": 500, "refine_stop_iter": 15_000},
    **{"reset_every": 3000, "refine_every": 100, "pause_refine_after_reset": 0, "absgrad": False},
    **{"revised_opacity": False, "verbose": False, "key_for_gradient": "means2d"},
}
MCMC_SETTINGS = {
    **{"cap_max": 1_000_000, "noise_lr": 5e5, "refine_start_iter": 500, "refine_stop_iter": 25_000},
    **{"refine_every": 100, "min_opacity": 0.005, "verbose": False},
}


def check_call() -> None:
    """Bind the arguments of our call to gsplat's signature, and compare the defaults that we rely on."""
    signature, calls = inspect.signature(gsplat.rasterization), []

    def record(**arguments: Any) -> tuple[Tensor, Tensor, dict]:
        calls.append(arguments)
        return torch.zeros(1, 10, 20, 4), torch.zeros(1, 10, 20, 1), {}

    with pytest.MonkeyPatch.context() as patch, render_through_gsplat():
        patch.setattr(gsplat, "rasterization", record)
        render(Splat(cloud(3)), [camera(20, 10)])
    [arguments] = calls
    signature.bind(**arguments)
    defaults = {name: p.default for name, p in signature.parameters.items() if name not in arguments}
    assert defaults == RASTERIZATION_DEFAULTS, f"gsplat {gsplat.__version__}: other defaults of rasterization"


def check_images_and_gradients(gaussians: Gaussians, views: list, mode: str) -> None:
    """Compare images and gradients of both renderers."""
    wanted = drawn(gaussians, views, mode, "cpu")
    with render_through_gsplat():
        found = drawn(gaussians, views, mode, "cpu")
    compare(found, wanted)


def compare(found: Drawn, wanted: Drawn) -> None:
    """Compare every pixel, and every gradient relative to its norm."""
    for name, image in wanted.images.items():
        assert found.images[name].shape == image.shape, f"{name}: {found.images[name].shape}, wanted {image.shape}"
        errors = (found.images[name] - image).abs() / image.abs().max().clamp(min=1)
        share = (~(errors < IMAGE_TOLERANCE)).float().mean()
        assert share < OUTLIER_SHARE, f"{name}: {100 * share:.1f} % of the values differ, by up to {errors.max():.1e}"
    missing = wanted.gradients.keys() - found.gradients.keys()
    assert not missing, f"no gradient of {sorted(missing)}"
    for name, gradient in wanted.gradients.items():
        error = (found.gradients[name] - gradient).norm() / gradient.norm().clamp(min=1e-12)
        assert error < GRADIENT_TOLERANCE, f"gradient of {name}: relative error {error:.1e}"


def check_info(gaussians: Gaussians, views: list, mode: str) -> None:
    """Compare what `Rendering.info` promises of both renderers, where a Gaussian is seen, and gsplat's own info."""
    rasterization, infos = gsplat.rasterization, []

    def record(**arguments: Any) -> tuple[Tensor, Tensor, dict]:
        images, alphas, info = rasterization(**arguments)
        infos.append(info)
        return images, alphas, info

    wanted = render(Splat(leaves(gaussians), mode), views).info
    with pytest.MonkeyPatch.context() as patch, render_through_gsplat():
        patch.setattr(gsplat, "rasterization", record)
        found = render(Splat(leaves(gaussians), mode), views).info
    [original] = infos
    missing = wanted.keys() - original.keys()
    assert not missing, f"gsplat {gsplat.__version__}: info has no {sorted(missing)}"
    for name in ("width", "height", "n_cameras", "gaussian_ids"):
        values = (original[name], found[name], wanted[name])
        assert len(set(values)) == 1, f"info[{name!r}] of gsplat, of ours on CUDA and on the CPU: {values}"
    assert found["radii"].dtype == torch.int32, f"info['radii'] is {found['radii'].dtype}"
    assert torch.equal(found["radii"], wanted["radii"]), "info: other radii"
    seen = (wanted["radii"] > 0).all(-1)
    for name in ("means2d", "depths", "conics", "opacities"):
        assert found[name].shape == wanted[name].shape, f"info[{name!r}] has shape {tuple(found[name].shape)}"
        torch.testing.assert_close(found[name][seen], wanted[name][seen], rtol=1e-4, atol=1e-4)
    assert found["means2d"].requires_grad, "info['means2d'] is not in the graph"


def check_settings() -> None:
    """Compare the settings of gsplat's strategies with those that we know."""
    for strategy, wanted in ((DefaultStrategy, DEFAULT_SETTINGS), (MCMCStrategy, MCMC_SETTINGS)):
        found = {field.name: field.default for field in dataclasses.fields(strategy)}
        assert found == wanted, f"gsplat {gsplat.__version__}: other settings of {strategy.__name__}"


def check_fit(strategy: str, max_gaussians: int = 230) -> None:
    """Fit through both renderers: the same number of Gaussians, the same PSNR of the photos."""
    ours = fit_small_scene(strategy, max_gaussians)
    with render_through_gsplat():
        theirs = fit_small_scene(strategy, max_gaussians)
    counts = [len(fit.params["means"]) for fit, _ in (theirs, ours)]
    assert counts[0] == counts[1], f"{counts[0]} Gaussians through gsplat, {counts[1]} on the CPU"
    assert strategy == "none" or 200 < counts[1] <= max_gaussians, f"{counts[1]} Gaussians: no growth, or too much"
    difference = theirs[1] - ours[1]
    assert abs(difference) < FIT_TOLERANCE_DB, f"PSNR through gsplat minus that on the CPU: {difference:.4f} dB"


def fit_small_scene(strategy: str, max_gaussians: int) -> tuple[Fit, float]:
    """Fit for 40 steps, with growth from step 5 to 35; returns the fit and the PSNR of its photos in dB."""
    truth = cloud(300, seed=0, degree=0, log_scale=-2.5, spread=0.5)
    cameras = [camera(48, 36, angle_rad=angle) for angle in (0.0, 1.6, 3.1, 4.7)]
    with torch.no_grad():
        photos = [TrainingView(view, render(Splat(truth), [view]).rgb[0].clamp(0, 1)) for view in cameras]
    densify = DensifyConfig(
        **{"strategy": strategy, "max_gaussians": max_gaussians, "every": 5, "start": 0.0, "stop": 0.9},
        **{"grow_gradient": 1e-3, "prune_opacity": 0.15, "noise": 1.0},
    )
    start = cloud(200, seed=1, degree=1, log_scale=-2.5, spread=0.5)
    config = FitConfig(steps=40, exposure_lr=1e-3, opacity_decay=1.0, densify=densify)
    fit = Fit(start, config, scene_scale=4.0, num_photos=len(photos))
    advance(fit, photos, 40, seed=0)
    with torch.no_grad():
        images = torch.stack([render(fit.splat(), [photo.camera]).rgb[0] for photo in photos])
    error = (images - torch.stack([photo.rgb for photo in photos])).square().mean()
    return fit, -10 * math.log10(error)
