"""Repaired views kept on disk, so that an interrupted run repairs no view twice.

Diffusion takes seconds to minutes a view: a batch is written as soon as it is repaired. A file is found by the content
of its view, the seed and the restorer, so it can be neither mistaken nor out of date.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from splatfix.cameras import Camera
from splatfix.files import drop_leftovers, write_bytes
from splatfix.flawed import FlawedView, Reference
from splatfix.restoration.restorer import Repaired, Restorer
from splatfix.saved_states import digest_tensors

DIGEST = "sha256"  # of the tensors, in the metadata of a file


class RepairCache:
    """A restorer that keeps what another one repairs.

    Args:
        restorer: repairs the views that are not in the folder.
        folder: of the kept views; several processes may use it at once.
        identity: of the restorer: its name, options and weights.
        batch_views: views that are repaired, then written, at a time; an interruption loses at most these. None takes
            the restorer's own ``batch_views``, or 1 where it has none.
    """

    def __init__(self, restorer: Restorer, folder: Path, *, identity: str, batch_views: int | None = None) -> None:
        self._restorer, self._folder, self._identity = restorer, Path(folder), identity
        self._batch_views = batch_views
        self._seconds: dict[str, float] = {}  # by digest of the views that were asked for
        drop_leftovers(self._folder)

    @property
    def batch_views(self) -> int:
        """Number of views that are repaired, then written, at a time."""
        own: int = getattr(self._restorer, "batch_views", 1)
        return own if self._batch_views is None else self._batch_views

    @property
    def seconds_per_view(self) -> float | None:
        """Mean seconds that a view took to repair, in this process or an earlier one; None before the first view."""
        return sum(self._seconds.values()) / len(self._seconds) if self._seconds else None

    def repair(self, views: Sequence[FlawedView], *, seed: int) -> list[Repaired]:
        """See `Restorer`."""
        digests = [digest_view(view, seed=seed, identity=self._identity) for view in views]
        found = {digest: self._read(digest, view) for digest, view in zip(digests, views, strict=True)}
        missing = {d: view for d, view in zip(digests, views, strict=True) if found[d] is None}
        names = list(missing)
        step = min(self.batch_views, len(names)) if names else 1
        for first in range(0, len(names), step):
            batch = names[first : first + step]
            start = time.monotonic()
            repaired = self._restorer.repair([missing[digest] for digest in batch], seed=seed)
            seconds = (time.monotonic() - start) / len(batch)
            for digest, result in zip(batch, repaired, strict=True):
                self._write(digest, result, seconds)
                found[digest] = result
        results = [found[digest] for digest in digests]
        return [result for result in results if result is not None]

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.safetensors"

    def _read(self, digest: str, view: FlawedView) -> Repaired | None:
        """A kept view on the device of the flawed one; None where there is none that can be read."""
        path = self._path(digest)
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                metadata = file.metadata()
                seconds = float(metadata["seconds"])
            if metadata.get(DIGEST, found := digest_tensors(tensors)) != found:
                raise ValueError(f"{path}: does not match its digest")
            repaired = Repaired(**{name: value.to(view.rgb.device) for name, value in tensors.items()})
            self._seconds[digest] = seconds
            return repaired
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):  # broken: the view is repaired again
            path.unlink(missing_ok=True)
            return None

    def _write(self, digest: str, result: Repaired, seconds: float) -> None:
        values = {field.name: getattr(result, field.name) for field in fields(result)}
        tensors = {name: value.detach().cpu().contiguous() for name, value in values.items() if value is not None}
        metadata = {"seconds": repr(seconds), DIGEST: digest_tensors(tensors)}
        write_bytes(self._path(digest), save(tensors, metadata))  # save_file hides that the disk is full
        self._seconds[digest] = seconds


def digest_view(view: FlawedView, *, seed: int, identity: str) -> str:
    """A digest of all that decides a repair: the view with its references, the seed and the restorer."""
    digest = hashlib.sha256(f"{identity}\n{seed}\n".encode())
    parts: list[FlawedView | Reference] = [view, *view.references]
    for part in parts:
        for field in fields(part):
            value = getattr(part, field.name)
            if isinstance(value, Camera):
                digest.update(f"{value.name} {value.width_px} {value.height_px}\n".encode())
                digest.update(value.intrinsics.tobytes() + value.camera_from_world.tobytes())
            elif isinstance(value, Tensor):
                digest.update(f"{field.name} {tuple(value.shape)} {value.dtype}\n".encode())
                digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
