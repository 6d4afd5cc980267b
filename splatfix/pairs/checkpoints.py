"""Checkpoints of long fits in the output, so that a fit whose worker died or was preempted resumes elsewhere.

A task may train several fits, one after another. Its checkpoint ``.checkpoints/<stem>.pt`` holds those that are
finished and the state of the one in progress, and is deleted when the task is committed. Short fits write none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Container, Sequence
from typing import Any

import torch

from splatfix import storage
from splatfix.files import hash_text
from splatfix.gaussians import Gaussians, Splat
from splatfix.saved_states import decode_state, encode_state
from splatfix.splats.losses import TrainingView
from splatfix.splats.train import PARAMETERS, Fit, advance

log = logging.getLogger(__name__)

CHECKPOINTS, SUFFIX = ".checkpoints", ".pt"
SAVE_SECONDS = 60.0  # least time between two checkpoints
MAX_SAVE_SHARE = 0.05  # of the time that is spent on writing them


class FitCheckpoints:
    """Trains the fits of a task in turn, from where an earlier attempt at the task was interrupted.

    On the CPU, the result is the same as without interruption, bit for bit.

    Attributes:
        resumed_step: step at which the fit in progress was resumed; None if the task began anew.
    """

    def __init__(self, url: str | None = None, identity: str = "", device: torch.device | None = None) -> None:
        """Read the checkpoint at ``url``, if there is one of this ``identity``. None as ``url`` writes none."""
        self.resumed_step: int | None = None
        self._url, self._identity = url, hash_text(identity)
        self._finished: list[dict[str, Any]] = []  # parameters of the fits
        self._state: dict[str, Any] | None = None  # of the fit in progress
        self._num_trained = 0
        self._saved, self._save_seconds = time.monotonic(), 0.0
        if url is not None and (content := _read(url, self._identity, device)) is not None:
            self._finished, self._state = list(content["finished"]), content["state"]

    def train(self, fit: Fit, photos: Sequence[TrainingView], num_steps: int, *, seed: int) -> Splat:
        """Train a fit that has just been started, and return its splat. The calls of all attempts have to be equal."""
        number = self._num_trained
        self._num_trained += 1
        if number >= len(self._finished):
            if self._state is not None:
                fit.load_state(self._state)
                self._state, self.resumed_step = None, fit.step
            advance(fit, photos, num_steps - fit.step, seed=seed, on_step=self._save_sometimes if self._url else None)
            self._finished.append({name: value.detach() for name, value in fit.params.items()})
        gaussians = Gaussians(*(self._finished[number][name] for name in PARAMETERS))
        return Splat(gaussians, fit.config.mode, fit.background)

    def delete(self) -> None:
        """Delete the checkpoint, if there is one."""
        if self._url is not None:
            try:
                storage.delete(self._url)
            except OSError as error:
                log.debug("%s: cannot be deleted (%s)", self._url, error)  # the driver tries again

    def _save_sometimes(self, fit: Fit) -> None:
        start = time.monotonic()
        if start - self._saved < max(SAVE_SECONDS, self._save_seconds / MAX_SAVE_SHARE):
            return
        content = encode_state({"identity": self._identity, "finished": self._finished, "state": fit.state()})
        try:
            storage.write_bytes(str(self._url), content)
        except OSError as error:  # not fatal: the fit continues, and its commit reports what is wrong with the output
            log.debug("%s: cannot be written (%s)", self._url, error)
        self._saved = time.monotonic()
        self._save_seconds = self._saved - start


def checkpoint_url(out: str, stem: str) -> str:
    """Return the place of a task's checkpoint."""
    return storage.join(storage.join(out, CHECKPOINTS), stem + SUFFIX)


def remove_checkpoints(out: str, stems: Container[str] | None = None) -> None:
    """Remove the checkpoints of some tasks, or of all."""
    folder = storage.join(out, CHECKPOINTS)
    storage.drop_leftovers(folder)
    for name in storage.list_names(folder):
        if stems is None or name.removesuffix(SUFFIX) in stems:
            storage.delete(storage.join(folder, name))
    storage.remove_empty_folder(folder)


def _read(url: str, identity: str, device: torch.device | None) -> dict[str, Any] | None:
    """Read a checkpoint; None if there is none, or none that this fit can resume from."""
    try:
        content = decode_state(storage.read_bytes(url), device)
        return content if content["identity"] == identity else None
    except storage.MissingFileError:
        return None
    except Exception as error:  # stores raise many kinds; of a damaged file, the fit starts again
        log.debug("%s: cannot be read (%s)", url, error)
        return None
