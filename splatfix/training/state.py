"""The saved state of a training run, with which it resumes as if it had never stopped."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from splatfix.files import drop_leftovers
from splatfix.runs import refuse_changes
from splatfix.saved_states import decode_state, write_state


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

    planned: int
    step: int = 0
    segment: int = 0
    unfinished: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
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
        saved_tag, _ = saved["tag"], TrainingState(**saved["progress"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: cannot be read as a training state ({reason}); start over with --fresh") from None
    if tag is not None:
        refuse_changes(path, {name: saved_tag.get(name) for name in tag}, tag)
    return saved


def restore_state(
    saved: dict[str, Any],
    network: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None = None,
) -> TrainingState:
    """Load what `read_state` returned into network, averaged weights and optimizer, in place."""
    network.load_state_dict(saved["network"])
    ema.load_state_dict(saved["ema"])
    optimizer.load_state_dict(saved["optimizer"])
    if scaler is not None and saved.get("scaler"):
        scaler.load_state_dict(saved["scaler"])
    return TrainingState(**saved["progress"])
