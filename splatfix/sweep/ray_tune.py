"""Ray Tune runs the trials: it asks the desk for them, gives each an actor and its share of a GPU, and reports back.

Tune's own searchers, ASHA and `Tuner.restore` follow the order in which results arrive, and a killed driver loses what
it had not saved; here they are thin shells around the `Desk`, which does not mind when a result comes.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from splatfix.loop import LoopConfig
from splatfix.process import quiet, using_threads
from splatfix.sweep.cases import Case, silently
from splatfix.sweep.config import SweepConfig
from splatfix.sweep.scheduler import Desk
from splatfix.sweep.trial import attempt
from splatfix.workers import classify_failure

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the desk writes what is worth keeping
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours ends the sweep
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Tune's state is of no use to us
    "RAY_AIR_NEW_OUTPUT": "0",  # and its lines neither
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths stay what they are
}


def run_on_tune(
    desk: Desk,
    config: SweepConfig,
    cases: Sequence[Case],
    sweep: Path,
    *,
    num: int,
    gpus: float,
    on_step: Callable[[], object],
) -> None:
    """Run what the desk hands out, at most ``num`` trials at once, each with ``gpus`` of a GPU; Ray is connected.

    ``on_step`` is called every second or so.
    """
    kind = tune.with_resources(
        tune.with_parameters(
            _Trainable,
            sweep=sweep.absolute(),
            default=config.loop,
            cases=list(cases),
            metric=config.metric,
            num_threads=config.workers.cpus,
        ),
        {"CPU": config.workers.cpus, "GPU": gpus},
    )
    held = _Held(desk, on_step)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(num)  # actors that start at the same time
    # without Tune's own lines on trials that failed: the desk tells of them
    with quiet("ray.tune", level=logging.CRITICAL), tempfile.TemporaryDirectory(prefix="splatfix-tune-") as storage:
        tuner = tune.Tuner(
            kind,
            tune_config=tune.TuneConfig(
                search_alg=_Proposals(held, num), scheduler=_Rungs(held), num_samples=-1, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=storage,
                stop=_UntilHopeless(held),
                callbacks=[_Ends(held)],
                failure_config=tune.FailureConfig(max_failures=0),  # the desk hands a trial out again
                verbose=0,
            ),
        )
        tuner.fit()


class _Held:
    """The desk, for Tune's shells around it. Tune pickles them to restore them, which we do in another way."""

    def __init__(self, desk: Desk | None = None, on_step: Callable[[], object] = lambda: None) -> None:
        self._desk, self.on_step = desk, on_step

    @property
    def desk(self) -> Desk:
        assert self._desk is not None, "not the driver's own"
        return self._desk

    def __reduce__(self) -> Any:
        return _Held, ()

    def __deepcopy__(self, memo: dict) -> _Held:
        return self


class _Trainable(tune.Trainable):
    """The actor of a trial: each step is a round."""

    def setup(  # type: ignore[override]  # with_parameters adds all but the first
        self,
        config: dict[str, Any],
        sweep: Path,
        default: LoopConfig,
        cases: Sequence[Case],
        metric: str,
        num_threads: int,
    ) -> None:
        self._made = attempt(sweep, config["number"], config["values"], default, cases, metric)
        self._num_threads = num_threads

    def step(self) -> dict[str, Any]:
        with using_threads(self._num_threads), silently():
            made = next(self._made)
        return {"made": json.dumps(made), "done": "end" in made}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)  # type: ignore[call-arg]  # as above
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial goes on from its own folder."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, as above."""


class _Proposals(Searcher):
    """Hands out what the desk proposes."""

    def __init__(self, held: _Held, num: int) -> None:
        super().__init__()
        self._held, self._num = held, num

    def suggest(self, trial_id: str) -> Any:  # noqa: ARG002
        if self._held.desk.num_running >= self._num:
            return None
        if (record := self._held.desk.next()) is not None:
            return {"number": record.number, "values": record.values}
        return Searcher.FINISHED if self._held.desk.is_over else None

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Nothing: `_Ends` tells the desk."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the desk has it on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as above."""


class _Rungs(FIFOScheduler):
    """Tells the desk of each round, and stops the trial where the desk says so."""

    def __init__(self, held: _Held) -> None:
        super().__init__()
        self._held = held

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:  # noqa: ARG002
        goes_on = self._held.desk.take(trial.config["number"], json.loads(result["made"]))
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP


class _Ends(tune.Callback):
    """Tells the desk how trials end: that does not come by the scheduler."""

    def __init__(self, held: _Held) -> None:
        self._held = held

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:  # noqa: ARG002
        made = json.loads(result["made"])
        if "end" in made:
            self._held.desk.take(trial.config["number"], made)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:  # noqa: ARG002
        self._held.desk.take(trial.config["number"], {"end": "error", "error": _reason(trial)})

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:  # noqa: ARG002
        self._held.on_step()


class _UntilHopeless(Stopper):
    def __init__(self, held: _Held) -> None:
        self._held = held

    def __call__(self, trial_id: str, result: dict) -> bool:  # noqa: ARG002
        return False

    def stop_all(self) -> bool:
        return self._held.desk.hopeless is not None


def _reason(trial: Any) -> str:
    """Why a trial's actor died, as Ray says."""
    path, told = trial.pickled_error_file, "no reason is known"
    if path is not None and Path(path).is_file():
        told, _ = classify_failure(pickle.loads(Path(path).read_bytes()))
    return f"its worker died: {told}"
