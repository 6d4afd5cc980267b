"""The stages of a loop, with their work: for its progress, and for an estimate before it runs."""

from __future__ import annotations

from splatfix.evaluation.evaluate import NUM_VIDEO_FRAMES
from splatfix.evaluation.leave_one_out import MIN_PHOTOS
from splatfix.fit import list_fit_stages
from splatfix.loop.config import LoopConfig
from splatfix.stages import REPAIR, START, STEP, Stage, measuring_stages

NUM_ARMS = 4  # before, control, after and post


def loop_stages(config: LoopConfig, *, num_train: int, num_test: int) -> list[Stage]:
    """The stages of a loop from so many photos to fit from and to test on."""
    repair, has_start = config.repair, config.initial.start is not None
    first_steps = 0 if has_start else config.fit.steps
    last_step = first_steps + repair.num_steps
    stages = [] if has_start else list_fit_stages(config)
    title = f"the control, {repair.num_steps} more steps without repair"
    stages.append(Stage("control", title, {STEP: repair.num_steps}))
    if repair.siblings:
        fits = "a second fit" if repair.siblings == 1 else f"{repair.siblings} further fits"
        title = f"{fits} with other seeds (siblings), to tell artifacts from the scene, {last_step} steps each"
        stages.append(Stage("siblings", title, {START: repair.siblings, STEP: repair.siblings * last_step}))
    for number in range(1, repair.rounds + 1):
        where = f"round {number} of {repair.rounds}: "
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
