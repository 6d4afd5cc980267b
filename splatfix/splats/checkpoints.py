"""Read and write checkpoints: a state with the identity of its fit, so that no other fit resumes from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from splatfix.saved_states import decode_state, explain_mismatch, write_state
from splatfix.splats.optimizers import ParameterGroup

CHECKPOINT_SCHEMA = 4  # increase it when the layout of a checkpoint or the default of a fit's setting changes

SHAPES = {"means": (3,), "scales": (3,), "quats": (4,), "opacities": (), "sh0": (1, 3)}  # of a Gaussian's parameters


def write_checkpoint(path: Path, identity: str, state: dict) -> None:
    """Write a state, whole or not at all. ``identity`` identifies its fit (`splats.scene.fit_identity`)."""
    write_state(path, {"schema": CHECKPOINT_SCHEMA, "identity": identity, "state": state})


def read_checkpoint(path: Path, identity: str | None, device: torch.device) -> dict:
    """Read the state from a checkpoint; its tensors are put on ``device``.

    An ``identity`` of None reads that of any fit: to look at it, never to resume.

    Raises:
        ValueError: the file is damaged, was written by another version, or belongs to another ``identity``.
        MemoryError, torch.OutOfMemoryError: there is no memory for it.
    """
    path = Path(path)
    try:
        checkpoint = decode_state(path.read_bytes())
        schema, found, state = checkpoint.get("schema", 1), checkpoint["identity"], checkpoint["state"]
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged checkpoint ({error}); delete it to start again") from error
    if schema != CHECKPOINT_SCHEMA:
        raise ValueError(
            f"{path}: checkpoint of another version of splatfix (schema {schema}, wanted {CHECKPOINT_SCHEMA}), "
            "whose settings cannot be compared with these; delete it to start again, or finish with that version"
        )
    if identity is not None and found != identity:
        raise ValueError(
            f"{path}: checkpoint of another fit (other capture, photos, config or seed); delete it to start again"
        )
    return _move(state, device)


@contextmanager
def naming_checkpoint(path: Path) -> Iterator[None]:
    """Name the checkpoint in errors of using its state: it lacks a part, or one has another shape or type."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
        reason = explain_mismatch(error)
        raise ValueError(f"{path}: damaged checkpoint ({reason}); delete it to start again") from error


def check_shapes(params: Mapping[str, torch.Tensor], optimizers: Mapping[str, ParameterGroup]) -> None:
    """Check the parameters of a fit and the moments of their optimizers. ValueError names the first misfit."""
    num = len(params["means"])
    for name, value in params.items():
        shape = (num, *SHAPES.get(name, value.shape[1:]))
        if value.shape != shape:
            raise ValueError(f"{name} is {tuple(value.shape)}, wanted {shape}")
        if state := optimizers[name].own_state:
            for moment in ("exp_avg", "exp_avg_sq"):
                if state[moment].shape != shape:
                    raise ValueError(f"{moment} of {name} is {tuple(state[moment].shape)}, wanted {shape}")


def _move(value: Any, device: torch.device) -> Any:
    """Move the tensors in dicts and lists to a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: _move(each, device) for name, each in value.items()}
    return type(value)(_move(each, device) for each in value) if isinstance(value, list | tuple) else value
