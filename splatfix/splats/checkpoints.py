"""Checkpoints of a fit: a state on disk, and the identity of what it is a state of.

A checkpoint is only resumed by the fit that wrote it: same cameras, pixels and settings. Settings are hashed by field
name, without those at their default, so that a renamed class or a new field keeps runs in progress alive.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splatfix.cameras import Camera
from splatfix.files import write_whole

SCHEMA = 2  # raise it when the layout of a checkpoint or the default of a setting of a fit changes


def identity_hash(cameras: Sequence[Camera], photos: Sequence[Tensor], settings: dict[str, Any]) -> str:
    """A short hash of cameras, pixels and named settings (values, or config dataclasses)."""
    from splatfix.config import changed_fields  # here: fits import without pydantic and yaml

    digest = hashlib.sha256()
    for camera, photo in zip(cameras, photos, strict=True):
        digest.update(camera.name.encode())
        digest.update(camera.camera_from_world.tobytes() + camera.intrinsics.tobytes())
        digest.update(photo.cpu().numpy().tobytes())
    tree = {"schema": SCHEMA, **{name: changed_fields(value) for name, value in settings.items()}}
    digest.update(json.dumps(tree, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def write_checkpoint(path: Path, identity: str, state: dict) -> None:
    """Write a state, whole or not at all. ``identity`` says what it is a state of (`splats.scene.fit_identity`)."""
    with write_whole(path) as temporary, temporary.open("wb") as file:
        torch.save({"schema": SCHEMA, "identity": identity, "state": state}, file)


def read_checkpoint(path: Path, identity: str, device: torch.device) -> dict:
    """Read a state.

    Raises:
        ValueError: the file is damaged, was written by another version, or is not of ``identity``.
    """
    path = Path(path)
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=True)
        schema, found, state = checkpoint.get("schema", 1), checkpoint["identity"], checkpoint["state"]
    except Exception as error:  # torch.load raises many kinds; each means that the file is not a whole checkpoint
        raise ValueError(f"{path}: not a whole checkpoint ({error}); delete it to start again") from error
    if schema != SCHEMA:
        raise ValueError(
            f"{path}: checkpoint of another version of splatfix (schema {schema}, wanted {SCHEMA}), whose settings "
            "cannot be compared with these; delete it to start again, or finish the run with the version that wrote it"
        )
    if found != identity:
        raise ValueError(
            f"{path}: checkpoint of another fit (other capture, photos, config or seed); delete it to start again"
        )
    return state
