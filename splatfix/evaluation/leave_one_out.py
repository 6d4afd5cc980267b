"""An estimate of the quality of a fit that no photo is left to test on: fits that leave out one training photo each."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from splatfix.evaluation.results import Estimate, Metrics, mean_if_known
from splatfix.metrics import compute_metrics
from splatfix.rendering import render
from splatfix.runs import Run
from splatfix.splats.initial_points import InitializationConfig
from splatfix.splats.phases import TrainingPhase, train_phase
from splatfix.splats.scene import SparseScene, fit_identity, start_fit
from splatfix.splats.train import FitConfig
from splatfix.views import pick_evenly

MIN_PHOTOS = 3  # from which a fit without one of them says anything


def estimate_quality(
    run: Run,
    scene: SparseScene,
    initial: InitializationConfig,
    fit: FitConfig,
    *,
    num: int,
    steps: int,
    seed: int,
    checkpoint_seconds: float,
) -> Estimate | None:
    """Estimate the PSNR and SSIM of the sparse fit of all photos, by leave-one-out cross-validation.

    Each of ``num`` photos, spread evenly over their names, is left out of a further fit with the same settings and
    seed, and its render is compared with it. A photo that is left out is farther from the others than most views
    between them, so the estimate is rather too low.

    Args:
        run: takes the checkpoints, so that an interrupted estimate is resumed.
        scene: all photos.
        initial, fit: settings of the sparse fit.
        num: number of photos to leave out; 0 for no estimate.
        steps: steps of the sparse fit.
        seed: of the sparse fit.
        checkpoint_seconds: seconds between checkpoints.

    Returns:
        The means over the photos; None without an estimate: ``num`` is 0, there are fewer than three photos, or the
        fit starts from a splat that may know all of them.
    """
    if num < 1 or initial.start is not None or len(scene.cameras) < MIN_PHOTOS:
        return None
    with run.stage("estimate"):
        indices = pick_evenly(range(len(scene.cameras)), num)
        measured = []
        for number, index in enumerate(indices, start=1):
            others = scene.leave_out(index)
            left_out = start_fit(others, fit, initial, seed=seed)
            phase = TrainingPhase(
                name=f"left_out_{number}",
                title=f"fit without {scene.cameras[index].name} ({number} of {len(indices)})",
                last_step=steps,
                seed=seed,
                identity=fit_identity(others, initial=initial, fit=fit, seed=seed, steps=steps),
            )
            train_phase(run, left_out, others, phase, checkpoint_seconds=checkpoint_seconds)
            with torch.no_grad():
                rgb = render(left_out.splat(), [scene.cameras[index]]).rgb[0].clamp(0, 1)
            given = (scene.photos[index], scene.masks[index], scene.validities[index])
            metrics, _ = compute_metrics(rgb, *given)
            measured.append(metrics)
    return _average([scene.cameras[index].name for index in indices], measured)


def _average(names: Sequence[str], measured: Sequence[Metrics]) -> Estimate:
    return Estimate(
        photos=tuple(names),
        psnr=mean_if_known(metrics["psnr"] for metrics in measured),
        ssim=mean_if_known(metrics["ssim"] for metrics in measured),
    )
