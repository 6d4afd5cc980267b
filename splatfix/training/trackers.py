"""Where a training is tracked: in MLflow, and beside it in TensorBoard or Weights & Biases, by Accelerate's trackers.

None of them can end a training: one that fails is left out from then on, with one warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker

from splatfix.config import to_yaml
from splatfix.deadlines import call_within
from splatfix.messages import readable
from splatfix.process import log
from splatfix.tracking import Tracker, TrackingConfig, open_tracker
from splatfix.training.config import TENSORBOARD, TrainConfig, TrainTrackingConfig
from splatfix.training.data import Data
from splatfix.training.records import track_settings, tracked_settings

ANSWER_SECONDS = 60.0  # that a tracker may take to start, to take numbers or to end
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}  # by the names in tracking.also


@dataclass(frozen=True, eq=False)
class TrainTrackers:
    """MLflow's tracker of a training, and the accelerator that passes numbers to the others."""

    mlflow: Tracker
    accelerator: Accelerator

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log values at a step everywhere."""
        self.mlflow.metrics(values, step)
        if self.accelerator.trackers:
            self.accelerator.log(dict(values), step=step)

    def artifact(self, path: Path, folder: str = "") -> None:
        """Store a file or folder of the run in MLflow."""
        self.mlflow.artifact(path, folder)


def require_trackers(config: TrainTrackingConfig) -> None:
    """Refuse trackers that are not installed: a ValueError names the package."""
    for name in config.also if config.enabled else ():
        if find_spec(PACKAGES[name]) is None:
            raise ValueError(
                f"tracking.also = {name}: the package {PACKAGES[name]} is not installed: pip install {PACKAGES[name]}, "
                "or leave it out"
            )


@contextmanager
def open_trackers(
    accelerator: Accelerator, config: TrainConfig, data: Data, out: Path, step: int
) -> Iterator[TrainTrackers]:
    """Track a training in ``out`` from after a step; on other processes than the main one nothing is tracked.

    What was logged of later steps, by a process that was killed before it saved its state, is replaced.
    """
    is_main = accelerator.is_main_process
    with open_tracker(out, config.tracking if is_main else TrackingConfig(enabled=False)) as mlflow:
        track_settings(mlflow, config, data)
        accelerator.trackers = []
        if is_main and config.tracking.enabled:
            accelerator.log_with = [_OPEN[name](config, out, step, mlflow.key) for name in config.tracking.also]
            settings = tracked_settings(config, data) if step == 0 else None
            accelerator.init_trackers(config.tracking.experiment, settings)
        try:
            yield TrainTrackers(mlflow, accelerator)
        finally:
            for tracker in accelerator.trackers:
                tracker.finish()


class PatientTracker(GeneralTracker):
    """Another tracker whose failures are logged once; it gets nothing more after the first."""

    requires_logging_directory = False

    def __init__(self, inner: GeneralTracker) -> None:
        self.name = inner.name
        self._inner, self._is_lost = inner, False
        super().__init__()

    @property
    def tracker(self) -> Any:
        """The library's own object."""
        return self._inner.tracker

    def start(self) -> None:
        """See `GeneralTracker`."""
        self._try(self._inner.start)

    def store_init_configuration(self, values: dict) -> None:
        """See `GeneralTracker`. TensorBoard's own way would add a further run to the list at each start."""
        if self.name == "tensorboard":
            text = "    " + to_yaml(values).rstrip().replace("\n", "\n    ")  # indented: code in Markdown
            self._try(lambda: self._inner.log({"settings": text}, step=0))
        else:
            self._try(lambda: self._inner.store_init_configuration(values))

    def log(self, values: dict, step: int | None = None, **more: Any) -> None:
        """See `GeneralTracker`."""
        self._try(lambda: self._inner.log(values, step=step, **more))

    def finish(self) -> None:
        """See `GeneralTracker`."""
        self._try(self._inner.finish)

    def _try(self, call: Callable[[], object]) -> None:
        if self._is_lost:
            return
        try:
            call_within(ANSWER_SECONDS, call)
        except Exception as error:  # of any library, which must not end the training
            self._is_lost = True
            reason = readable(" ".join(str(error).split()) or type(error).__name__, 200)
            log.warning(
                "tracking.also: %s failed and gets no more numbers (%s); the training goes on", self.name, reason
            )


def _open_tensorboard(_config: TrainConfig, out: Path, step: int, _key: str | None) -> PatientTracker:
    # what the folder has of these steps and later ones is hidden: a killed process logged them after its last state
    later = {"purge_step": step + 1 if step else 0}
    return PatientTracker(TensorBoardTracker(TENSORBOARD, str(out), **later))


def _open_wandb(config: TrainConfig, out: Path, _step: int, key: str | None) -> PatientTracker:
    # with the same id a run is continued; wandb takes no steps before its last one
    same_run = {"id": key, "resume": "allow", "name": config.tracking.name or out.resolve().name, "dir": str(out)}
    return PatientTracker(WandBTracker(config.tracking.experiment, **same_run))


_OPEN: dict[str, Callable[[TrainConfig, Path, int, str | None], PatientTracker]] = {
    "tensorboard": _open_tensorboard,
    "wandb": _open_wandb,
}
