"""Fits that `tests.gpu.sections` times: on photos drawn of a made-up cloud, so that no file is needed."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from splatfix.cameras import Camera, stack_cameras
from splatfix.gaussians import Splat
from splatfix.rendering import render
from splatfix.splats.densify import DensifyConfig
from splatfix.splats.losses import TrainingView
from splatfix.splats.train import Fit, FitConfig, advance
from tests.rendering.scenes import camera, cloud

NUM_GAUSSIANS = 30_000
NUM_PHOTOS = 6
STEPS = 200  # of a whole fit
TIMED_LOSSES = 20
TIMED_STEPS = 60


def make_views(size_px: int, device: str) -> list[TrainingView]:
    """Draw six photos of a cloud from around it, ``size_px`` wide."""
    truth = Splat(cloud(20_000, seed=0, degree=1, log_scale=-3.5, spread=0.6).to(device))
    height_px = size_px * 3 // 4
    cameras = [camera(size_px, height_px, angle_rad=6.28 * k / NUM_PHOTOS) for k in range(NUM_PHOTOS)]
    with torch.no_grad():
        return [TrainingView(view, render(truth, [view]).rgb[0].clamp(0, 1)) for view in cameras]


def make_fit(device: str, strategy: str, num_gaussians: int = NUM_GAUSSIANS) -> Fit:
    """Start a fit from another cloud."""
    densify = DensifyConfig(strategy=strategy, max_gaussians=2 * num_gaussians, every=20)
    start = cloud(num_gaussians, seed=1, degree=1, log_scale=-3.5, spread=0.6).to(device)
    return Fit(start, FitConfig(steps=STEPS, densify=densify), scene_scale=4.0, num_photos=NUM_PHOTOS)


def mean_psnr(fit: Fit, views: list[TrainingView]) -> float:
    """Compute the mean PSNR in dB over the photos of a fit."""
    with torch.no_grad():
        renders = [render(fit.splat(), [view.camera]).rgb[0].clamp(0, 1) for view in views]
    errors = [(image - view.rgb).square().mean() for image, view in zip(renders, views, strict=True)]
    return statistics.fmean(-10 * float(error.log10()) for error in errors)


def measure_fit(device: str, *, size_px: int, strategy: str, num_gaussians: int = NUM_GAUSSIANS) -> dict[str, Any]:
    """Time the steps of a fit, and compare two fits of the same seed.

    ``host_ms`` is the time in which the host issues a step; where it is near ``step_ms``, the host limits the speed.
    """
    views = make_views(size_px, device)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    fits = [make_fit(device, strategy, num_gaussians) for _ in range(2)]
    before = mean_psnr(fits[0], views)
    for fit in fits:
        advance(fit, views, STEPS, seed=0)
    quality = [mean_psnr(fit, views) for fit in fits]
    fit = make_fit(device, "none", num_gaussians)
    advance(fit, views, 5, seed=0)
    _wait(device)
    start = time.perf_counter()
    advance(fit, views, TIMED_STEPS, seed=0)
    issued = time.perf_counter() - start
    _wait(device)
    seconds = time.perf_counter() - start
    return {
        "size_px": size_px,
        "strategy": strategy,
        "steps_per_second": TIMED_STEPS / seconds,
        "step_ms": 1000 * seconds / TIMED_STEPS,
        "host_ms": 1000 * issued / TIMED_STEPS,
        "plain_gsplat_ms": None if device == "cpu" else 1000 * _time_plain_gsplat(fit, views),
        "gaussians": len(fits[0].params["means"]),
        "start_db": before,
        "psnr_db": quality[0],
        "spread_db": abs(quality[0] - quality[1]),
        "peak_gb": None if device == "cpu" else torch.cuda.max_memory_allocated() / 1e9,
        "kernels": find_slow_kernels(lambda: advance(fit, views, 5, seed=0), device),
    }


def measure_loss(device: str, size_px: int) -> dict[str, Any]:
    """The loss of a step with its gradient: as `l1_and_ssim` chooses, and with the functions of torch."""
    from splatfix.rendering.ssim import choose_loss, l1_and_ssim_with_torch

    chosen = choose_loss(torch.device(device))
    a, b = torch.rand(2, size_px * 3 // 4, size_px, 3, device=device)
    a = a.clone().requires_grad_()
    found: dict[str, Any] = {"size_px": size_px, "with_torch": chosen is l1_and_ssim_with_torch}
    for name, loss in (("loss_ms", chosen), ("torch_loss_ms", l1_and_ssim_with_torch)):
        for timed in (False, True):
            _wait(device)
            start = time.perf_counter()
            for _ in range(TIMED_LOSSES if timed else 2):
                loss(a, b, 0.2).backward()
            _wait(device)
            found[name] = 1000 * (time.perf_counter() - start) / TIMED_LOSSES
    return found


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _time_plain_gsplat(fit: Fit, views: list[TrainingView]) -> float:
    """Time a step of a minimal loop around gsplat's own rasterization, on the same Gaussians: L1 loss and Adam."""
    from gsplat import rasterization

    params = {name: value.detach().clone().requires_grad_() for name, value in fit.params.items()}
    optimizer = torch.optim.Adam(list(params.values()), lr=1e-3, fused=True)

    def step(view: TrainingView) -> None:
        poses, intrinsics = _stack(view.camera)
        image, _, _ = rasterization(
            params["means"],
            params["quats"],
            params["scales"].exp(),
            params["opacities"].sigmoid(),
            torch.cat([params["sh0"], params["shN"]], dim=1),
            poses,
            intrinsics,
            view.camera.width_px,
            view.camera.height_px,
            sh_degree=1,
            packed=False,
        )
        F.l1_loss(image[0], view.rgb).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for view in views:
        step(view)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for index in range(TIMED_STEPS):
        step(views[index % len(views)])
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / TIMED_STEPS


def _stack(view: Camera) -> tuple[torch.Tensor, torch.Tensor]:
    return stack_cameras([view], device=torch.device("cuda"))


def find_slow_kernels(call: Callable[[], object], device: str, num: int = 5) -> str:
    """List the kernels that take most time, with their share, as text."""
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device != "cpu")
    with profile(activities=kinds) as found:
        call()
        _wait(device)
    key = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
    events = sorted(found.key_averages(), key=lambda event: -getattr(event, key))
    total = sum(getattr(event, key) for event in events) or 1
    return "; ".join(f"{event.key[:40]} {100 * getattr(event, key) / total:.0f} %" for event in events[:num])


def resume_fit(device: str, *, strategy: str, size_px: int = 320, num_gaussians: int = 5000) -> dict[str, Any]:
    """Fit twice without a break, and once saved half way and resumed in a new object."""
    views = make_views(size_px, device)
    whole = [make_fit(device, strategy, num_gaussians) for _ in range(2)]
    for fit in whole:
        advance(fit, views, STEPS, seed=0)
    first = make_fit(device, strategy, num_gaussians)
    advance(first, views, STEPS // 2, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        first.save(Path(folder) / "fit.pt", "fit")
        second = make_fit(device, strategy, num_gaussians)
        second.load(Path(folder) / "fit.pt", "fit")
    advance(second, views, STEPS - STEPS // 2, seed=0)
    quality = [mean_psnr(fit, views) for fit in (*whole, second)]
    return {
        "strategy": strategy,
        "whole_db": quality[0],
        "spread_db": abs(quality[0] - quality[1]),
        "resumed_db": quality[2],
    }


FIT_ALONE = """
import sys, time
from tests.gpu.fits import make_fit, make_views
from splatfix.splats.train import advance
device, seconds = sys.argv[1], float(sys.argv[2])
views = make_views(320, device)
fit = make_fit(device, "none", 5000)
advance(fit, views, 5, seed=0)
print("ready", flush=True)
sys.stdin.readline()
start, steps = time.perf_counter(), 0
while time.perf_counter() - start < seconds:
    advance(fit, views, 5, seed=0)
    float(fit.params["means"].sum())
    steps += 5
print(steps / (time.perf_counter() - start))
"""


def run_fits_side_by_side(num: int, device: str, seconds: float = 5.0) -> float:
    """Run fits in so many processes at once; returns the steps a second of all together."""
    command = [sys.executable, "-c", FIT_ALONE, device, str(seconds)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(num)]
    try:
        for process in processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line == "ready\n", f"a process did not start: {line!r}"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return sum(float(process.communicate(timeout=60 + 4 * seconds)[0]) for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
