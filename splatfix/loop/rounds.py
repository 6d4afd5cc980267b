"""Rounds of render, repair, retrain on top of a sparse fit."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch

from splatfix.cameras import Camera
from splatfix.evaluation.layout import repair_path
from splatfix.evaluation.repairs import RepairRecord
from splatfix.flawed import FlawedView, compute_coverage, render_flawed, render_references
from splatfix.gaussians import Splat
from splatfix.images import write_image
from splatfix.loop.config import LoopConfig, RepairConfig
from splatfix.loop.repaired_views import RepairedView, make_training_views, prepare_repairs, record_repairs
from splatfix.restoration import Restorer, RestorerChoice
from splatfix.runs import Run
from splatfix.splats.checkpoints import naming_checkpoint, read_checkpoint, write_checkpoint
from splatfix.splats.phases import TrainingPhase, checkpoint_path, train_phase
from splatfix.splats.scene import SparseScene, fit_identity
from splatfix.splats.train import Fit
from splatfix.stages import REPAIR
from splatfix.views import place_repair_cameras

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Round:
    """A finished round.

    Attributes:
        number: its number, from 1.
        fit: the fit after it.
        cameras: cameras of its repaired views.
        repairs: what was done to each of them before training.
        repair_seconds: seconds that rendering and repairing them took.
    """

    number: int
    fit: Fit
    cameras: tuple[Camera, ...]
    repairs: tuple[RepairRecord, ...]
    repair_seconds: float


def repair_rounds(
    run: Run,
    scene: SparseScene,
    before: Fit,
    siblings: Sequence[Splat],
    restorer: Restorer,
    config: LoopConfig,
) -> Iterator[Round]:
    """Render, repair and retrain, starting from the sparse fit; yields each round as it ends.

    ``before`` is not changed. All rounds train the same fit: read what is needed of it before the next round. Finished
    repairs and training steps come from the checkpoints in the run folder.
    """
    repair = config.repair
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
    kept: list[list[RepairedView]] = []
    for number in range(1, repair.rounds + 1):
        with run.stage("repair"):
            checkpoint = checkpoint_path(run, f"views_{number}")
            if checkpoint.is_file():
                state = read_checkpoint(checkpoint, identity, fit.device)
                with naming_checkpoint(checkpoint):
                    views, seconds = [RepairedView.from_state(view) for view in state["views"]], float(state["seconds"])
            else:
                views, seconds = _repair_views(run, scene, [fit.splat(), *siblings], restorer, config, number)
                run.note(REPAIR, repair.views, seconds)
                state = {"views": [view.to_state() for view in views], "seconds": seconds}
                write_checkpoint(checkpoint, identity, state)
        kept = [*kept, views][-repair.keep_rounds :]
        with run.stage("retrain"):
            phase = TrainingPhase(
                name=f"round_{number}",
                title=f"retraining, round {number} of {repair.rounds}",
                last_step=before.step + number * repair.steps,
                seed=config.seed,
                identity=identity,
                repaired=make_training_views(list(chain(*kept)), repair.weight),
                repaired_probability=repair.probability,
            )
            train_phase(run, fit, scene, phase, checkpoint_seconds=config.checkpoint_seconds)
        cameras, records = tuple(view.camera for view in views), tuple(record_repairs(views, number))
        yield Round(number, fit, cameras, records, seconds)


def _repair_views(
    run: Run, scene: SparseScene, splats: Sequence[Splat], restorer: Restorer, config: LoopConfig, number: int
) -> tuple[list[RepairedView], float]:
    """Render the novel views of a round, repair them and write all as pictures; also the seconds that this took."""
    start = time.monotonic()
    views = render_novel_views(splats, scene, config.repair, number - 1)
    repaired = restorer.repair(views, seed=config.seed + number - 1) if views else []
    prepared = prepare_repairs(views, repaired, config.repair)
    for view, result, ready in zip(views, repaired, prepared, strict=True):
        rgb = result.rgb if ready.color_fit is None else ready.rgb.float() / 255
        pictures = {"render": view.rgb, "repaired": rgb, "mask": result.mask}
        for kind, picture in pictures.items():
            if picture is not None:
                write_image(repair_path(run.path, number, view.camera.name, kind), picture.float().cpu().numpy())
    _log_color_fits(prepared, number)
    return prepared, time.monotonic() - start


def _log_color_fits(views: Sequence[RepairedView], number: int) -> None:
    """Report the range of the color maps of a round."""
    fits = [view.color_fit for view in views if view.color_fit is not None]
    if fits:
        gains = [gain for fit in fits for gain in fit.gain]
        log.info(
            "round %d: colors of %d repaired views scaled to those of the photos: gains %.3f to %.3f",
            *(number, len(fits), min(gains), max(gains)),
        )


def render_novel_views(
    splats: Sequence[Splat], scene: SparseScene, config: RepairConfig, round_index: int
) -> list[FlawedView]:
    """Render the novel views of a round (from 0), without those of which the renders cover too little.

    Coverage is the share of pixels with alpha above one half. It is compared with the median of the training views,
    since in a capture of an object on a plain background no view is covered.
    """
    cameras = place_repair_cameras(
        scene.cameras,
        num=config.views,
        round_index=round_index,
        num_rounds=config.rounds,
        outward=config.outward,
        depth=scene.depth,
    )
    references = render_references(splats, scene.cameras, scene.photos, scene.validities)
    usual = float(torch.tensor([compute_coverage(reference.alpha) for reference in references]).median())
    views = render_flawed(splats, cameras, references, scene.depth, config.num_references)
    covered = [view for view in views if compute_coverage(view.alpha) >= config.min_coverage * usual]
    if len(covered) < len(views):
        dropped = len(views) - len(covered)
        log.info(
            "round %d: %d of %d views dropped: too little in them (repair.min_coverage)",
            round_index + 1,
            dropped,
            len(views),
        )
    return covered
