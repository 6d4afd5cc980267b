"""The stages of a loop, with their work: for its progress, and for an estimate before it runs."""

from __future__ import annotations

from splatfix.evaluation.evaluate import NUM_VIDEO_FRAMES
from splatfix.evaluation.leave_one_out import MIN_PHOTOS
from splatfix.fit import list_fit_stages
from splatfix.loop.config import LoopConfig
from splatfix.loop.validation import why_not_validated
from splatfix.stages import REPAIR, START, STEP, Stage, measuring_stages

NUM_ARMS = 4  # before, control, after and post


def loop_stages(
    config: LoopConfig,
    *,
    num_train: int,
    num_test: int,
    num_rounds: int | None = None,
    repeats_control: bool = False,
) -> list[Stage]:
    """The stages of a loop from so many photos to fit from and to test on.

    ``num_rounds``: fewer than configured. ``repeats_control``: `LoopConfig.repeats_control`, on the device of the run.
    """
    repair, has_start = config.repair, config.initial.start is not None
    num_rounds = repair.rounds if num_rounds is None else num_rounds
    control_steps = (num_rounds or repair.rounds) * repair.steps
    first_steps = 0 if has_start else config.fit.steps
    last_step = first_steps + repair.num_steps
    stages = [] if has_start else list_fit_stages(config)
    if why_not_validated(config, num_train=num_train) is None:
        stages.append(_validation_stage(config, num_train, last_step))
    title = f"the control, {control_steps} more steps without repair"
    stages.append(Stage("control", title, {STEP: control_steps}))
    if repeats_control:
        title = f"the control once more, {control_steps} steps, for the run-to-run spread"
        stages.append(Stage("repeat", title, {STEP: control_steps}))
    if repair.siblings and num_rounds:
        fits = "a second fit" if repair.siblings == 1 else f"{repair.siblings} further fits"
        title = f"{fits} with other seeds (siblings), to tell artifacts from the scene, {last_step} steps each"
        stages.append(Stage("siblings", title, {START: repair.siblings, STEP: repair.siblings * last_step}))
    for number in range(1, num_rounds + 1):
        where = f"round {number} of {num_rounds}: "
        stages.append(Stage("repair", f"{where}repair of {repair.views} novel views", {REPAIR: repair.views}))
        title = f"{where}training on photos and repaired views, {repair.steps} steps"
        stages.append(Stage("retrain", title, {STEP: repair.steps}))
    num_estimates = 0 if has_start or num_train < MIN_PHOTOS else min(config.estimate, num_train)
    return stages + measuring_stages(
        num_test=num_test,
        num_estimates=num_estimates,
        steps=config.fit.steps,
        num_arms=NUM_ARMS,
        num_frames=2 * NUM_VIDEO_FRAMES if config.video else 0,
    )


def _validation_stage(config: LoopConfig, num_train: int, last_step: int) -> Stage:
    """The loops without one photo each: their steps are shorter than those of the run, as their images are smaller."""
    repair, num = config.repair, min(config.validate.photos, num_train)
    loops = "a loop" if num == 1 else f"{num} loops"
    size = f"{100 * config.validate.scale:.0f} % of the size"
    steps = (1 + repair.siblings) * last_step + repair.num_steps
    work = {
        STEP: num * steps * config.validate.scale,
        REPAIR: num * repair.rounds * repair.views * config.validate.scale**2,
    }
    return Stage("validate", f"{loops} without one photo each, at {size}, to validate the rounds", work)
