"""Render, repair, retrain: the closed loop over one capture.

The sparse fit (`before`) is continued twice from the same state: `control` on the photos alone, `after` on the photos
and on repaired novel views, round by round. Both use the same seed, steps and schedule.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from splatfix.cameras import Camera
from splatfix.config import require
from splatfix.evaluation.arms import evaluate_arms
from splatfix.evaluation.layout import repair_path
from splatfix.fit import fit_scene, fit_siblings, prepare
from splatfix.flawed import FlawedView, coverage, render_flawed, render_references
from splatfix.gaussians import Gaussians, read_ply, write_ply
from splatfix.images import write_image
from splatfix.restoration import Repaired, open_restorer
from splatfix.runs import Run, choose_device, progress, write_json
from splatfix.splats.choose import ChooseConfig
from splatfix.splats.initialise import InitialiseConfig
from splatfix.splats.scene import SparseScene
from splatfix.splats.train import Fit, FitConfig, TrainingView, advance
from splatfix.views import ViewsConfig, repair_cameras

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


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """The whole loop over one capture.

    Attributes:
        restorer: a name (identity, warp, classical, nafnet, ...) or the folder of a checkpoint.
        seed: everything random follows it.
        device: auto, cpu, cuda or cuda:N.
        video: write a before/after video along a path between and beyond the training cameras.
        checkpoint_seconds: seconds between checkpoints of the sparse fit.
        views: which photos, at which size.
        initial: where the Gaussians start.
        fit: the sparse fit.
        choose: how the sparse fit is stopped.
        repair: the rounds.
    """

    restorer: str = "nafnet"
    seed: int = 0
    device: str = "auto"
    video: bool = True
    checkpoint_seconds: float = 30.0
    views: ViewsConfig = field(default_factory=ViewsConfig)
    initial: InitialiseConfig = field(default_factory=InitialiseConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    choose: ChooseConfig = field(default_factory=ChooseConfig)
    repair: RepairConfig = field(default_factory=RepairConfig)


def run_loop(capture_path: Path, out: Path, config: LoopConfig, *, resume: bool = False) -> dict[str, Any]:
    """Run the loop and write the run folder; returns what ``results.json`` holds.

    Raises:
        ValueError: the capture, the split or a setting is not usable; the message names it.
    """
    restorer = open_restorer(config.restorer, device=choose_device(config.device))
    run, capture, split, scene, device = prepare(capture_path, out, config, config.views, config.device, config.seed)
    history: list[dict[str, Any]] = []
    fit = fit_scene(
        run,
        scene,
        config.initial,
        config.fit,
        config.choose,
        seed=config.seed,
        resume=resume,
        checkpoint_seconds=config.checkpoint_seconds,
        history=history,
    )

    control, after = fit.copy(), fit
    with run.stage("control"):
        _continue(control, scene, (), config, "control", history, config.repair.rounds * config.repair.steps)
    write_ply(run.path / "control.ply", control.gaussians())

    with run.stage("siblings"):
        siblings = fit_siblings(
            scene,
            config.initial,
            config.fit,
            num_steps=after.step + config.repair.rounds * config.repair.steps,
            seed=config.seed,
            num=config.repair.siblings,
        )
    shown: list[tuple[int, Camera]] = []
    kept: list[list[TrainingView]] = []
    for round_index in range(config.repair.rounds):
        with run.stage("repair"):
            views = flawed_views([after.gaussians().detach(), *siblings], scene, config.repair, round_index)
            repaired = restorer.repair(views, seed=config.seed + round_index) if views else []
            _write_round(run, round_index + 1, views, repaired)
        shown += [(round_index + 1, view.camera) for view in views]
        kept = [*kept, trusted(views, repaired, config.repair)][-config.repair.keep_rounds :]
        with run.stage("retrain"):
            repaired_views = [view for group in kept for view in group]
            name = f"round {round_index + 1} of {config.repair.rounds}"
            _continue(after, scene, repaired_views, config, name, history, config.repair.steps)
    write_ply(run.path / "after.ply", after.gaussians())
    write_json(run.path / "history.json", history)

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


def flawed_views(
    fits: Sequence[Gaussians], scene: SparseScene, config: RepairConfig, round_index: int
) -> list[FlawedView]:
    """The novel views of one round, without those that the render hardly covers.

    Coverage is the share of pixels with alpha above one half. It is compared with the median of the training views,
    since in a capture of an object on a plain background no view is covered.
    """
    cameras = repair_cameras(
        scene.cameras,
        num=config.views,
        round_index=round_index,
        num_rounds=config.rounds,
        outward=config.outward,
        depth=scene.depth,
    )
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


def _continue(
    fit: Fit,
    scene: SparseScene,
    repaired: Sequence[TrainingView],
    config: LoopConfig,
    name: str,
    history: list[dict[str, Any]],
    num_steps: int,
) -> None:
    arm = "after" if repaired else "control"
    with progress(total=num_steps, description=name) as bar:

        def on_step(current: Fit, loss: float) -> None:
            bar.update()
            if current.step % 25 == 0:
                history.append({"arm": arm, "step": current.step, "loss": loss})

        advance(
            fit,
            scene.views(),
            num_steps,
            seed=config.seed,
            background=scene.background,
            repaired=repaired,
            repaired_probability=config.repair.probability,
            on_step=on_step,
        )


def _write_round(run: Run, number: int, views: Sequence[FlawedView], repaired: Sequence[Repaired]) -> None:
    for view, made in zip(views, repaired, strict=True):
        write_image(repair_path(run.path, number, view.camera.name, "render"), view.rgb.cpu().numpy())
        write_image(repair_path(run.path, number, view.camera.name, "repaired"), made.rgb.cpu().numpy())
