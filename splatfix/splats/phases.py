"""Phases of a fit: training up to a step, with a separate checkpoint in the run folder for each phase."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from splatfix.gaussians import Gaussians, RenderMode, Splat
from splatfix.process import LOG_SECONDS, progress, stopping_at_progress
from splatfix.runs import Run
from splatfix.splats.checkpoints import naming_checkpoint, read_checkpoint
from splatfix.splats.losses import TrainingView
from splatfix.splats.scene import SparseScene
from splatfix.splats.train import PARAMETERS, Fit, advance
from splatfix.stages import STEP

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingPhase:
    """Training up to a step, with a checkpoint.

    Attributes:
        name: name of the checkpoint.
        title: title of the progress bar.
        last_step: step at which the phase ends.
        seed: seed of its random choices.
        identity: hash of the fit, stored in the checkpoint (`splats.scene.fit_identity`).
        repaired: repaired views, to train on besides the photos.
        repaired_probability: share of the steps that use a repaired view.
    """

    name: str
    title: str
    last_step: int
    seed: int
    identity: str
    repaired: Sequence[TrainingView] = ()
    repaired_probability: float = 0.0


@dataclass(frozen=True, eq=False)
class SavedSplat:
    """The splat in a checkpoint: after how many steps of its fit, and how many seconds of training."""

    splat: Splat
    step: int
    seconds: float


def read_saved_splat(
    path: Path, *, mode: RenderMode = "classic", background: Sequence[float] | None = None
) -> SavedSplat:
    """Read the splat in the checkpoint of any fit, also while the fit goes on: checkpoints are replaced whole.

    ``mode`` and ``background`` are those of the fit, which the checkpoint does not hold.

    Raises:
        ValueError: the file is no checkpoint of a fit, is damaged, or was written by another version.
    """
    state = read_checkpoint(path, None, torch.device("cpu"))
    with naming_checkpoint(path):
        gaussians = Gaussians(*(state["params"][name] for name in PARAMETERS))
        return SavedSplat(Splat(gaussians.detach(), mode, background), int(state["step"]), float(state["seconds"]))


def checkpoint_path(run: Run, name: str) -> Path:
    """Path of a checkpoint in the run folder."""
    return run.path / "checkpoints" / f"{name}.pt"


def train_phase(run: Run, fit: Fit, scene: SparseScene, phase: TrainingPhase, *, checkpoint_seconds: float) -> None:
    """Train a fit to the last step of a phase, saving a checkpoint every ``checkpoint_seconds`` and at the end.

    A stop signal acts after the step that is running, whose state is saved, too; a second one acts at once. Resumes
    from the checkpoint of the phase, if there is one.

    Raises:
        ValueError: the checkpoint is damaged or belongs to another fit.
    """
    checkpoint = checkpoint_path(run, phase.name)
    if checkpoint.is_file():
        first_step = fit.step
        fit.load(checkpoint, phase.identity)
        if run.plan is not None:
            run.plan.skip(STEP, fit.step - first_step)
        if fit.step >= phase.last_step:
            log.info("%s: done earlier, from %s", phase.title, checkpoint)
            return
        log.info("%s: resuming at step %d from %s", phase.title, fit.step, checkpoint)
    start = saved = time.monotonic()
    earlier_seconds = fit.seconds
    num_steps = max(phase.last_step - fit.step, 0)
    bar_of = progress(total=num_steps, description=phase.title, quiet=num_steps == 0, log_after=LOG_SECONDS)
    with bar_of as bar, stopping_at_progress():

        def save() -> None:
            nonlocal saved
            fit.seconds = earlier_seconds + time.monotonic() - start
            fit.save(checkpoint, phase.identity)
            saved = time.monotonic()

        def on_step(fit: Fit) -> None:
            if run.plan is not None and (left := run.plan.tick()) is not None:
                bar.set_postfix_str(left, refresh=False)
            try:
                bar.update()
            except KeyboardInterrupt:
                save()
                log.info("the state after step %d is saved", fit.step)
                raise
            if time.monotonic() - saved > checkpoint_seconds:
                save()

        advance(
            fit,
            scene.views(),
            num_steps,
            seed=phase.seed,
            repaired=phase.repaired,
            repaired_probability=phase.repaired_probability,
            on_step=on_step,
        )
    run.count_steps(num_steps, time.monotonic() - start)
    fit.seconds = earlier_seconds + time.monotonic() - start
    if num_steps > 0:
        fit.save(checkpoint, phase.identity)
