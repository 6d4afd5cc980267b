"""Everything that a training run needs to go on as if it had never stopped."""

from __future__ import annotations

import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from splatfix.files import drop_leftovers, write_whole


@dataclass
class Progress:
    """How far training is.

    Attributes:
        step: optimizer steps done.
        segment: segments done; a checkpoint lies at the end of each.
        seconds: training time so far, over all runs.
        planned: steps that the schedule is for: ``steps``, or what fits into ``max_seconds``.
        limits: the settings ``steps`` and ``max_seconds`` that ``planned`` follows from.
        best: mean validation PSNR gain in dB of the checkpoint that is kept.
        history: one record per segment.
    """

    planned: int
    step: int = 0
    segment: int = 0
    seconds: float = 0.0
    limits: list[float | None] = field(default_factory=list)
    best: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


def save_state(
    path: Path,
    progress: Progress,
    network: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    tag: dict[str, Any],
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Write the state whole. ``tag`` describes what must be the same when it is loaded."""
    drop_leftovers(path.parent, path.name)
    with write_whole(path) as temporary, temporary.open("wb") as file:
        torch.save(
            {
                "progress": asdict(progress),
                "network": network.state_dict(),
                "ema": ema.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "tag": tag,
            },
            file,
        )


def read_state(path: Path, tag: dict[str, Any] | None = None) -> dict[str, Any]:
    """A saved state, on the CPU (without unpickling code).

    Raises:
        ValueError: the file is not whole, or belongs to other settings.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        saved_tag, _ = state["tag"], Progress(**state["progress"])
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: cannot be read as a training state ({reason}); remove it to start anew") from None
    for name in tag or {}:
        if saved_tag.get(name) != (tag or {})[name]:
            raise ValueError(
                f"{path}: was made with {name} = {saved_tag.get(name)}, now it is {(tag or {})[name]}; "
                "go on with the same settings, or train into another folder"
            )
    return state


def restore_state(
    state: dict[str, Any],
    network: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None = None,
) -> Progress:
    """Restore a state in place."""
    network.load_state_dict(state["network"])
    ema.load_state_dict(state["ema"])
    optimizer.load_state_dict(state["optimizer"])
    if scaler is not None and state.get("scaler"):
        scaler.load_state_dict(state["scaler"])
    return Progress(**state["progress"])
