"""The restorer that a training run keeps: written with each better validation, and again where it was lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from splatfix.process import log
from splatfix.restoration.checkpoint import drop_replacements
from splatfix.runs import Run
from splatfix.training.config import TrainConfig
from splatfix.training.data import Data
from splatfix.training.families import Family, family_of
from splatfix.training.learner import Learner
from splatfix.training.records import describe_weights
from splatfix.training.run import RESTORER, STATE, fixed_settings
from splatfix.training.state import TrainingState, save_state


def save_restorer(learner: Learner, config: TrainConfig, data: Data, record: dict[str, Any], run: Run) -> None:
    """Save the averaged weights; ``record`` is that of the segment that has just ended."""
    strength = record["validation"]["strength"] if record["validation"] else config.strength
    provenance = describe_weights(config, data, record, learner.earlier)
    learner.family.save(run.path / RESTORER, learner.ema.module, config, strength, provenance)


def has_restorer(folder: Path, config: TrainConfig) -> bool:
    """Whether the restorer in a run folder is whole."""
    return _find_fault(folder, family_of(config.network)) is None


def complete_restorer(learner: Learner, config: TrainConfig, data: Data, state: TrainingState, run: Run) -> None:
    """Write the restorer again if it is lost or damaged, although a saved state counts it as written.

    The state holds the weights of the last step. If an earlier validation was better, its weights are lost: a finished
    run keeps the last ones instead, and an unfinished one the next that are validated.
    """
    ends = state.step >= state.planned and not state.unfinished
    if not state.history or (state.best is None and not ends):
        return
    drop_replacements(run.path / RESTORER)
    fault = _find_fault(run.path, learner.family)
    if fault is None:
        return
    last = state.history[-1]
    gain = last["validation"] and last["validation"]["psnr_gain"]
    was_best = gain == state.best
    if ends or (was_best and not state.unfinished):
        save_restorer(learner, config, data, last, run)
        log.warning("%s; written again from %s", fault, STATE)
    if was_best:
        return
    lost = f"the best weights, of {state.best:+.2f} dB, are lost"
    log.warning("%s: %s", run.path / RESTORER, f"{lost}; these are the last, of {gain:+.2f} dB" if ends else lost)
    state.best = gain if ends else None
    save_state(run.path / STATE, state, *learner.stateful, fixed_settings(config, data), learner.accelerator.scaler)


def _find_fault(folder: Path, family: Family) -> str | None:
    """What is wrong with the restorer in a run folder; None if nothing is."""
    try:
        family.load(folder / RESTORER)
    except ValueError as error:
        return str(error)
    return None
