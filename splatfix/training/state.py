"""The saved state of a training run, with which it resumes as if it had never stopped."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import nn

from splatfix.files import drop_leftovers
from splatfix.records import parse_record
from splatfix.runs import refuse_changes
from splatfix.saved_states import decode_state, explain_mismatch, write_state

REMEDY = "start over with --fresh"
PARTS = ("network", "ema", "optimizer", "tag")
RECORD_FIELDS = {"step", "loss", "validation"}  # of each segment, which later ones are compared with
MOMENTS = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"}  # of optimizers: one number per weight


@dataclass
class TrainingState:
    """How far a training run is.

    Attributes:
        step: optimizer steps done.
        segment: segments done; the state is saved at the end of each.
        unfinished: figures of the steps of the segment in progress, where the run was interrupted in it.
        seconds: training time so far, over all runs.
        planned: steps of the schedule: ``steps``, or as many as fit into ``max_seconds``.
        limits: the settings ``steps`` and ``max_seconds`` that ``planned`` was computed from.
        best: mean validation PSNR gain in dB of the saved checkpoint.
        history: one record per segment.
    """

    planned: PositiveInt
    step: NonNegativeInt = 0
    segment: NonNegativeInt = 0
    unfinished: list[dict[str, float]] = field(default_factory=list)
    seconds: NonNegativeFloat = 0.0
    limits: list[float | None] = field(default_factory=list)
    best: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


def save_state(
    path: Path,
    state: TrainingState,
    network: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    tag: dict[str, Any],
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Write the state whole. ``tag``: the settings that must be the same when it is resumed."""
    drop_leftovers(path.parent, path.name)
    write_state(
        path,
        {
            "progress": asdict(state),  # the name in files since the first version
            "network": network.state_dict(),
            "ema": ema.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "tag": tag,
        },
    )


def read_state(path: Path, tag: dict[str, Any] | None = None) -> dict[str, Any]:
    """Read a saved state to the CPU, without unpickling code.

    Raises:
        ValueError: the file is damaged, or belongs to other settings than ``tag``.
    """
    try:
        saved = decode_state(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as a training state ({error}); {REMEDY}") from None
    wanted = {"progress", *PARTS}
    if not isinstance(saved, dict) or not wanted <= saved.keys():
        missing = min(wanted - saved.keys()) if isinstance(saved, dict) else "everything"
        raise ValueError(f"{path}: cannot be read as a training state ({missing} is missing); {REMEDY}")
    for name in PARTS:
        if not isinstance(saved[name], dict):
            raise ValueError(f"{path}: {name} is a {type(saved[name]).__name__}, wanted a mapping; {REMEDY}")
    state = parse_record(TrainingState, saved["progress"], source=str(path), remedy=REMEDY)
    if missing_fields := [name for record in state.history for name in sorted(RECORD_FIELDS - record.keys())]:
        raise ValueError(f"{path}: history has a record without {missing_fields[0]}; {REMEDY}")
    saved_tag = saved["tag"]
    if tag is not None:
        refuse_changes(path, {name: saved_tag.get(name) for name in tag}, tag)
    return saved


def restore_state(
    path: Path,
    saved: dict[str, Any],
    network: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None = None,
) -> TrainingState:
    """Load what `read_state` returned from ``path`` into network, averaged weights and optimizer, in place.

    Raises:
        ValueError: a part is of another network or optimizer.
    """
    try:
        network.load_state_dict(saved["network"])
        ema.load_state_dict(saved["ema"])
        optimizer.load_state_dict(saved["optimizer"])
        _check_optimizer(optimizer)
        if scaler is not None and saved.get("scaler"):
            scaler.load_state_dict(saved["scaler"])
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: does not fit this training ({explain_mismatch(error)}); {REMEDY}") from None
    return TrainingState(**saved["progress"])


def _check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Check what torch does not: a state for every weight or for none, with moments of the weight's shape."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    states = [optimizer.state[weight] for weight in weights if optimizer.state.get(weight)]
    if states and len(states) < len(weights):
        raise ValueError(f"the optimizer has a state for {len(states)} of {len(weights)} weights")
    wanted = {"step", "exp_avg", "exp_avg_sq"} if "betas" in optimizer.defaults else set()  # of Adam and its kin
    for weight, state in zip(weights, states, strict=False):
        if not wanted <= state.keys():
            raise ValueError(f"{min(wanted - state.keys())} of the optimizer is missing")
        if state.keys() != states[0].keys():
            raise ValueError("the optimizer's states differ in what they hold")
        for name in MOMENTS & state.keys():
            if state[name].shape != weight.shape:
                raise ValueError(f"{name} of the optimizer is {tuple(state[name].shape)}, wanted {tuple(weight.shape)}")
