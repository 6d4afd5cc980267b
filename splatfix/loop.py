"""Render, repair, retrain: the closed loop over one capture.

The sparse fit (`before`) is continued twice from the same state: `control` on the photos alone, `after` on the photos
and on repaired novel views, round by round. Both use the same seed, steps and schedule.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splatfix.cameras import Camera
from splatfix.config import require
from splatfix.evaluation.arms import evaluate_arms
from splatfix.evaluation.layout import repair_path
from splatfix.fit import FitRunConfig, Stage, fit_scene, fit_siblings, history, prepare, train_stage
from splatfix.flawed import FlawedView, coverage, render_flawed, render_references
from splatfix.gaussians import Gaussians, read_ply, write_ply
from splatfix.images import write_image
from splatfix.restoration import Repaired, Restorer, open_restorer
from splatfix.runs import Run, choose_device, write_json
from splatfix.splats.scene import SparseScene, fit_identity
from splatfix.splats.train import TrainingView, read_checkpoint, write_checkpoint
from splatfix.views import repair_cameras

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RepairConfig:
    """How repaired views are made and how far they are trusted.

    Attributes:
        rounds: rounds of render, repair, retrain.
        views: number of novel views per round.
        steps: training steps per round.
        outward: how far the last round steps outwards, as a fraction of the median distance of neighbouring cameras.
        probability: share of the steps that show a repaired view instead of a photo.
        weight: factor of the loss of repaired views.
        min_coverage: a view is dropped where its render covers less than this share of what training views cover.
        num_references: training photos given to the restorer with each view.
        keep_rounds: views of this many latest rounds are trained on.
        siblings: further sparse fits with other seeds, trained for as many steps as the control; their renders are
            averaged with the fit's own before the repair, since what only one fit shows is an artifact. They are
            not exported.
        spread_scale: standard deviation between the fits, in colour, at which trust in a pixel falls to 1/e; None
            trusts all alike.
    """

    rounds: int = 2
    views: int = 24
    steps: int = 400
    outward: float = 0.5
    probability: float = 0.5
    weight: float = 1.0
    min_coverage: float = 0.5
    num_references: int = 2
    keep_rounds: int = 2
    siblings: int = 2
    spread_scale: float | None = None

    def __post_init__(self) -> None:
        require(self.rounds >= 1, "repair.rounds", self.rounds, "at least 1 round")
        require(self.views >= 1, "repair.views", self.views, "at least 1 view per round")
        require(self.steps >= 1, "repair.steps", self.steps, "at least 1 step per round")
        require(self.outward >= 0, "repair.outward", self.outward, "0 or more")
        require(0 <= self.probability <= 1, "repair.probability", self.probability, "a share from 0 to 1")
        require(self.weight >= 0, "repair.weight", self.weight, "0 or more")
        require(self.siblings >= 0, "repair.siblings", self.siblings, "0 or more")
        require(self.keep_rounds >= 1, "repair.keep_rounds", self.keep_rounds, "at least 1 round")
        require(self.min_coverage >= 0, "repair.min_coverage", self.min_coverage, "0 or more")
        require(self.num_references >= 0, "repair.num_references", self.num_references, "0 or more")
        scale = self.spread_scale
        require(scale is None or scale > 0, "repair.spread_scale", scale, "above 0, or null")

    @property
    def num_steps(self) -> int:
        """Steps of all rounds together."""
        return self.rounds * self.steps


@dataclass(frozen=True, kw_only=True)
class LoopConfig(FitRunConfig):
    """The whole loop over one capture: a sparse fit, and what follows it.

    Attributes:
        restorer: a name (identity, warp, classical, nafnet, ...) or the folder of a checkpoint.
        seed: everything random follows it.
        device: auto, cpu, cuda or cuda:N.
        video: write a before/after video along a path between and beyond the training cameras.
        checkpoint_seconds: seconds between checkpoints.
        views: which photos, at which size.
        initial: where the Gaussians start.
        fit: the sparse fit.
        choose: how the sparse fit is stopped.
        repair: the rounds.
    """

    restorer: str = "nafnet"
    repair: RepairConfig = field(default_factory=RepairConfig)


def run_loop(capture_path: Path, out: Path, config: LoopConfig, *, resume: bool = False) -> dict[str, Any]:
    """Run the loop and write the run folder; returns what ``results.json`` holds. ``resume`` goes on where it stopped.

    Raises:
        ValueError: the capture, the split or a setting is not usable; the message names it.
    """
    restorer = open_restorer(config.restorer, device=choose_device(config.device))
    run, capture, split, scene, device = prepare(capture_path, out, config, resume=resume)
    before = fit_scene(run, scene, config, resume=resume)

    last_step = before.step + config.repair.num_steps
    control = before.copy()
    with run.stage("control"):  # its checkpoint serves every restorer
        identity = fit_identity(scene, config.initial, config.fit, config.seed, before.step, last_step)
        stage = Stage("control", "control", last_step, config.seed, identity)
        train_stage(run, control, scene, stage, config, resume=resume)
    write_ply(run.path / "control.ply", control.gaussians())

    with run.stage("siblings"):
        siblings = fit_siblings(run, scene, config, num=config.repair.siblings, num_steps=last_step, resume=resume)
    shown: list[tuple[int, Camera]] = []
    after = before
    for made in repair_rounds(run, scene, before, siblings, restorer, config, resume=resume):
        after = made.fit
        shown += [(made.number, camera) for camera in made.cameras]
    write_ply(run.path / "after.ply", after.gaussians())
    later = history({"control": control, "after": after}, after_step=before.step)
    write_json(run.path / "history.json", history({"before": before}) + later)

    arms = {name: read_ply(run.path / f"{name}.ply").to(device) for name in ("before", "control", "after")}
    results = evaluate_arms(
        run,
        capture,
        split,
        arms,
        restorer=restorer,
        restorer_name=config.restorer,
        seed=config.seed,
        num_references=config.repair.num_references,
        video=config.video,
        mode=config.fit.mode,
        scene=scene,
        repair_views=shown,
    )
    run.write_provenance(command="loop", seed=config.seed, device=device, notes=list(capture.notes))
    return results


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
    siblings: Sequence[Gaussians],
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
    identity = fit_identity(scene, config.initial, config.fit, config.seed, before.step, config.restorer, repair)
    fit = before.copy()
    kept: list[list[TrainingView]] = []
    for number in range(1, repair.rounds + 1):
        with run.stage("repair"):
            checkpoint = run.path / "checkpoints" / f"views_{number}.pt"
            begun = time.monotonic()
            if resume and checkpoint.is_file():
                stored = read_checkpoint(checkpoint, identity, device)
            else:
                flawed = flawed_views([fit.gaussians().detach(), *siblings], scene, repair, number - 1)
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
    fits: Sequence[Gaussians], scene: SparseScene, config: RepairConfig, round_index: int
) -> list[FlawedView]:
    """The novel views of one round, without those that the render hardly covers.

    Coverage is the share of pixels with alpha above one half. It is compared with the median of the training views,
    since in a capture of an object on a plain background no view is covered.
    """
    cameras = repair_cameras_of(scene, config, round_index)
    references = render_references(fits, scene.cameras, scene.photos, scene.background)
    usual = float(torch.tensor([coverage(reference.alpha) for reference in references]).median())
    views = render_flawed(fits, cameras, references, scene.background, scene.depth, config.num_references)
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
