"""Rounds of render, repair, retrain on top of a sparse fit."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from splatfix.cameras import Camera
from splatfix.evaluation.layout import repair_path
from splatfix.fit import Stage, train_stage
from splatfix.flawed import FlawedView, coverage, render_flawed, render_references
from splatfix.gaussians import Splat
from splatfix.images import write_image
from splatfix.loop.config import LoopConfig, RepairConfig
from splatfix.restoration import Repaired, Restorer, RestorerChoice
from splatfix.runs import Run
from splatfix.splats.checkpoints import read_checkpoint, write_checkpoint
from splatfix.splats.scene import SparseScene, fit_identity
from splatfix.splats.train import Fit, TrainingView
from splatfix.views import repair_cameras

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Round:
    """One round as it ended: its number from 1, the fit, where repaired views stand, and seconds of their repair."""

    number: int
    fit: Fit
    cameras: tuple[Camera, ...]
    repair_seconds: float


def repair_rounds(
    run: Run,
    scene: SparseScene,
    before: Fit,
    siblings: Sequence[Splat],
    restorer: Restorer,
    config: LoopConfig,
    *,
    resume: bool,
) -> Iterator[Round]:
    """Render, repair, retrain, from the sparse fit on; yields each round as it ends.

    ``before`` stays as it is; the fit of all rounds is one and the same, so look at it before the next one.
    ``resume`` takes what has a checkpoint in the run's folder from there.
    """
    repair = config.repair
    device = before.exposure.device
    identity = fit_identity(
        scene,
        initial=config.initial,
        fit=config.fit,
        seed=config.seed,
        before=before.step,
        restorer=RestorerChoice.of(config.restorer),
        repair=repair,
    )
    fit = before.copy()
    kept: list[list[TrainingView]] = []
    for number in range(1, repair.rounds + 1):
        with run.stage("repair"):
            checkpoint = run.path / "checkpoints" / f"views_{number}.pt"
            begun = time.monotonic()
            if resume and checkpoint.is_file():
                stored = read_checkpoint(checkpoint, identity, device)
            else:
                flawed = flawed_views([fit.splat(), *siblings], scene, repair, number - 1)
                repaired = restorer.repair(flawed, seed=config.seed + number - 1) if flawed else []
                _write_pictures(run, number, flawed, repaired)
                stored = {"views": _stored(trusted(flawed, repaired, repair)), "seconds": time.monotonic() - begun}
                write_checkpoint(checkpoint, identity, stored)
            views = _restored(stored["views"], scene, repair, number - 1)
        kept = [*kept, views][-repair.keep_rounds :]
        with run.stage("retrain"):
            stage = Stage(
                f"round_{number}",
                f"round {number} of {repair.rounds}",
                before.step + number * repair.steps,
                config.seed,
                identity,
                [view for group in kept for view in group],
                repair.probability,
            )
            train_stage(run, fit, scene, stage, config, resume=resume)
        yield Round(number, fit, tuple(view.camera for view in views), stored["seconds"])


def repair_cameras_of(scene: SparseScene, config: RepairConfig, round_index: int) -> list[Camera]:
    """Where the novel views of a round stand (`views.repair_cameras`)."""
    return repair_cameras(
        scene.cameras,
        num=config.views,
        round_index=round_index,
        num_rounds=config.rounds,
        outward=config.outward,
        depth=scene.depth,
    )


def flawed_views(
    splats: Sequence[Splat], scene: SparseScene, config: RepairConfig, round_index: int
) -> list[FlawedView]:
    """The novel views of one round, without those that the render hardly covers.

    Coverage is the share of pixels with alpha above one half. It is compared with the median of the training views,
    since in a capture of an object on a plain background no view is covered.
    """
    cameras = repair_cameras_of(scene, config, round_index)
    references = render_references(splats, scene.cameras, scene.photos)
    usual = float(torch.tensor([coverage(reference.alpha) for reference in references]).median())
    views = render_flawed(splats, cameras, references, scene.depth, config.num_references)
    covered = [view for view in views if coverage(view.alpha) >= config.min_coverage * usual]
    if len(covered) < len(views):
        dropped = len(views) - len(covered)
        log.info("round %d: %d of %d views dropped: too little in them", round_index + 1, dropped, len(views))
    return covered


def trusted(views: Sequence[FlawedView], repaired: Sequence[Repaired], config: RepairConfig) -> list[TrainingView]:
    """Repaired views as weighted training views, trusted per pixel.

    Trust is the restorer's confidence, where it gives one, times ``exp(-spread / spread_scale)`` of the fits where
    that is asked for.
    """
    trusted_views = []
    for view, made in zip(views, repaired, strict=True):
        trust = made.confidence
        if view.spread is not None and config.spread_scale is not None:
            agreement = torch.exp(-view.spread / config.spread_scale)
            trust = agreement if trust is None else trust * agreement
        trusted_views.append(TrainingView(view.camera, made.rgb.clamp(0, 1), config.weight, trust))
    return trusted_views


def _stored(views: Sequence[TrainingView]) -> dict[str, Any]:
    """Repaired views for a checkpoint, in 8 bits; training takes them from there, so that a resumed run does too."""
    return {
        view.camera.name: {
            "rgb": _to_8_bits(view.rgb),
            "confidence": None if view.confidence is None else _to_8_bits(view.confidence),
        }
        for view in views
    }


def _restored(stored: dict[str, Any], scene: SparseScene, config: RepairConfig, round_index: int) -> list[TrainingView]:
    cameras = {camera.name: camera for camera in repair_cameras_of(scene, config, round_index)}
    return [
        TrainingView(
            cameras[name],
            view["rgb"].float() / 255,
            config.weight,
            None if view["confidence"] is None else view["confidence"].float() / 255,
        )
        for name, view in stored.items()
    ]


def _to_8_bits(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def _write_pictures(run: Run, number: int, views: Sequence[FlawedView], repaired: Sequence[Repaired]) -> None:
    for view, made in zip(views, repaired, strict=True):
        write_image(repair_path(run.path, number, view.camera.name, "render"), view.rgb.cpu().numpy())
        write_image(repair_path(run.path, number, view.camera.name, "repaired"), made.rgb.cpu().numpy())
