"""Estimate time, memory and disk of a loop or a fit before it runs (``--dry-run``): nothing is written.

The sparse fit is started and trained for a few steps on this machine, one view is repaired, and one is measured. The
seconds of these, times the work of each stage, are the estimate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from splatfix.cameras import Camera
from splatfix.captures import Capture, draw_on, fetch_photos, open_capture
from splatfix.depth_models import estimate_depths
from splatfix.evaluation.evaluate import NUM_VIDEO_FRAMES
from splatfix.fit import FitRunConfig, fit_run_stages, with_absolute_paths
from splatfix.flawed import render_flawed, render_references
from splatfix.jit import is_compiled
from splatfix.loop.config import LoopConfig
from splatfix.loop.plan import NUM_ARMS, loop_stages
from splatfix.messages import format_bytes, rough_duration
from splatfix.metrics import compute_metrics
from splatfix.process import choose_device, peak_memory_mb, quiet, seed_everything
from splatfix.rendering import render
from splatfix.rendering.cpu.compositing import composite_backward
from splatfix.restoration import open_restorer
from splatfix.sfm import count_photos, needs_poses
from splatfix.splats.scene import SparseScene, load_scene, start_fit
from splatfix.splats.train import Fit, advance
from splatfix.stages import FRAME, REPAIR, START, STEP, STEPS_PER_UNIT, TEST_VIEW, Stage
from splatfix.views import Split, make_split, resolve_masks, resolve_size

WARM_STEPS, MAX_STEPS, MAX_STEP_SECONDS = 5, 60, 5.0
FASTER, SLOWER = 0.6, 1.7  # the range of a real run over its estimate; Gaussians that are added slow it down further
COMPILE_SECONDS = 45.0
STATE_BYTES, PLY_BYTES = 12 * 59, 4 * 62  # of a Gaussian with degree 3 in a checkpoint (with Adam's moments) and .ply
PIXEL_BYTES = 1.0  # of a pixel of a picture as PNG
MEMORY_MARGIN = 1.15  # of a run over what was measured: pictures, video, several splats


@dataclass(frozen=True)
class RunEstimate:
    """What a run takes.

    Attributes:
        capture: its name, photos, split and sizes, as a sentence.
        stages: with the seconds of each.
        compile_seconds: before the first stage; 0 where the kernels are compiled.
        memory_bytes: peak resident memory.
        disk_bytes: size of the run folder.
        probe_seconds: that the estimate took.
        grows: whether Gaussians are added, which makes later steps slower.
    """

    capture: str
    stages: tuple[tuple[Stage, float], ...]
    compile_seconds: float
    memory_bytes: float
    disk_bytes: float
    probe_seconds: float
    grows: bool

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.compile_seconds + sum(seconds for _, seconds in self.stages)

    def text(self) -> str:
        """Format the estimate for the terminal."""
        low, high = self.seconds * FASTER, self.seconds * SLOWER * (2 if self.grows else 1)
        rows = [(f"{number}. {stage.title}", seconds) for number, (stage, seconds) in enumerate(self.stages, start=1)]
        if self.compile_seconds:
            rows.insert(0, ("-  compiling kernels, once", self.compile_seconds))
        lines = [f"  {rough_duration(seconds):>10}  {title}" for title, seconds in rows]
        growth = "; Gaussians are added, which slows later steps" if self.grows else ""
        return "\n".join(
            [
                self.capture,
                *lines,
                f"time: about {rough_duration(self.seconds)} ({rough_duration(low)} to {rough_duration(high)}{growth})",
                f"memory: about {format_bytes(self.memory_bytes)}; disk: about {format_bytes(self.disk_bytes)}",
                f"an estimate, from {rough_duration(self.probe_seconds)} of measuring on this machine as it is now; "
                "nothing was written",
            ]
        )


def estimate_run(capture_path: str | Path, config: FitRunConfig) -> RunEstimate:
    """Estimate what a loop (with a `LoopConfig`) or a fit of a capture takes.

    Raises:
        ValueError: the capture, the split or a setting is not usable, or the photos have no cameras yet.
    """
    start = time.monotonic()
    if needs_poses(capture_path):
        num = count_photos(capture_path)
        what = "a video" if num is None else f"{num} photos"
        raise ValueError(
            f"{capture_path}: {what} without cameras, which take time of their own; run splatfix pose {capture_path} "
            "--out CAPTURE first, and estimate a run on CAPTURE"
        )
    device = choose_device(config.device)
    config = with_absolute_paths(replace(config, views=resolve_masks(resolve_size(config.views))))
    capture = open_capture(capture_path, longest_side_px=config.views.size_px, options=config.views.photo_options)
    split = make_split(capture, config.views)
    fetch_photos(capture.view(name) for name in (*split.train_ids, *split.test_ids[:1]))
    seed_everything(config.seed)
    capture = draw_on(capture, device, (*split.train_ids, *split.test_ids[:1]))
    scene = estimate_depths(load_scene(capture, split.train_ids, device), config.initial.depth_model)
    is_warm = device.type != "cpu" or is_compiled(composite_backward)
    with quiet("splatfix"):
        rates, fit = _measure(capture, split, scene, config)
    nums = {"num_train": len(split.train_ids), "num_test": len(split.test_ids)}
    if isinstance(config, LoopConfig):
        stages = loop_stages(config, **nums, repeats_control=config.repeats_control(device))
    else:
        stages = fit_run_stages(config, **nums)
    camera = scene.cameras[0]
    return RunEstimate(
        capture=(
            f"{capture.name}: {len(capture.views)} photos at {camera.width_px} x {camera.height_px} px, "
            f"{nums['num_train']} to fit from, {nums['num_test']} to test on; on {device}"
        ),
        stages=tuple((stage, sum(amount * rates[unit] for unit, amount in stage.work.items())) for stage in stages),
        compile_seconds=0.0 if is_warm else COMPILE_SECONDS,
        memory_bytes=MEMORY_MARGIN * (peak_memory_mb() or 0) * 2**20,
        disk_bytes=_estimate_disk(config, len(fit.splat().gaussians), camera, nums["num_test"]),
        probe_seconds=time.monotonic() - start,
        grows=fit.config.densify.strategy != "none",
    )


def _measure(capture: Capture, split: Split, scene: SparseScene, config: FitRunConfig) -> tuple[dict[str, float], Fit]:
    """The seconds of each unit of work, and the fit that was begun."""
    device = scene.photos[0].device
    rates = dict.fromkeys(STEPS_PER_UNIT, 0.0)
    begun: list[Fit] = []
    rates[START] = _time(lambda: begun.append(start_fit(scene, config.fit, config.initial, seed=config.seed)), device)
    [fit] = begun
    advance(fit, scene.views(), WARM_STEPS, seed=config.seed)
    first = _time(lambda: advance(fit, scene.views(), 1, seed=config.seed), device)
    num = max(1, min(MAX_STEPS, round(MAX_STEP_SECONDS / max(first, 1e-4))))
    rates[STEP] = _time(lambda: advance(fit, scene.views(), num, seed=config.seed), device) / num
    splat = fit.splat()
    name = split.test_ids[0] if split.test_ids else split.train_ids[0]
    view = capture.view(name)
    photo = torch.from_numpy(view.load().rgb).to(device)

    def measure() -> None:
        with torch.no_grad():
            compute_metrics(render(splat, [view.camera]).rgb[0].clamp(0, 1), photo)

    with torch.no_grad():
        render(splat, [view.camera])
        rates[FRAME] = _time(lambda: render(splat, [view.camera]), device)
    measure()
    rates[TEST_VIEW] = _time(measure, device)
    if isinstance(config, LoopConfig):
        restorer = open_restorer(config.restorer, device=device)
        references = render_references([splat], scene.cameras, scene.photos, scene.validities)
        flawed = render_flawed([splat], [view.camera] * 2, references, scene.depth, config.repair.num_references)
        restorer.repair(flawed[:1], seed=config.seed)  # may load weights
        repair = _time(lambda: restorer.repair(flawed[1:], seed=config.seed), device)
        rates[REPAIR] = repair + 2 * (1 + config.repair.siblings) * rates[FRAME]
        rates[TEST_VIEW] += repair / NUM_ARMS  # one of the arms is a repair
    return rates, fit


def _time(work: Callable[[], object], device: torch.device) -> float:
    start = time.monotonic()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic() - start


def _estimate_disk(config: FitRunConfig, num_gaussians: int, camera: Camera, num_test: int) -> float:
    """The size of a run folder, in bytes."""
    num_px, num_arms, num_states, num_repaired = camera.width_px * camera.height_px, 1, 1, 0
    if isinstance(config, LoopConfig):
        num_arms = NUM_ARMS
        num_states = 2 + config.repair.siblings + config.repair.rounds
        num_repaired = config.repair.views * config.repair.rounds
    splats = num_gaussians * (STATE_BYTES * num_states + PLY_BYTES * num_arms)
    pictures = num_px * PIXEL_BYTES * (num_test * (1 + 2 * num_arms) + 3 * num_repaired)
    checkpoints = num_px * 4 * num_repaired
    video = 0.02 * num_px * NUM_VIDEO_FRAMES * min(num_arms, 2) if config.video else 0.0
    return splats + pictures + checkpoints + video
