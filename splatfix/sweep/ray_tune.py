"""Run the trials of a sweep on Ray Tune, which gives each an actor and its share of a GPU.

Tune's own searchers, ASHA and `Tuner.restore` depend on the order in which results arrive, and a killed driver loses
what it had not saved. The classes here only connect Tune to the `SweepScheduler`, which depends on neither.
"""

from __future__ import annotations

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
from splatfix.loop.cases import Case, silence_loops
from splatfix.process import quiet, using_threads
from splatfix.sweep.config import SweepConfig
from splatfix.sweep.record import AttemptEnd, report_from_json, report_to_json
from splatfix.sweep.scheduler import SweepScheduler
from splatfix.sweep.trial import run_trial
from splatfix.workers import classify_failure

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the scheduler keeps the records
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours ends the sweep
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Tune's state is not used
    "RAY_AIR_NEW_OUTPUT": "0",  # nor is its table of trials
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths stay valid
}


def run_on_tune(
    scheduler: SweepScheduler,
    config: SweepConfig,
    cases: Sequence[Case],
    sweep: Path,
    *,
    num: int,
    gpus: float,
    on_step: Callable[[], object],
) -> None:
    """Run the scheduler's trials, at most ``num`` at once, each with ``gpus`` of a GPU; Ray is connected.

    ``on_step`` is called about once a second.
    """
    trainable = tune.with_resources(
        tune.with_parameters(
            _TuneTrainable,
            sweep=sweep.absolute(),
            default=config.loop,
            cases=list(cases),
            metric=config.metric,
            num_threads=config.workers.cpus,
        ),
        {"CPU": config.workers.cpus, "GPU": gpus},
    )
    driver = _Driver(scheduler, on_step)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(num)  # actors that start at the same time
    # without Tune's own lines about failed trials: the sweep logs them
    with quiet("ray.tune", level=logging.CRITICAL), tempfile.TemporaryDirectory(prefix="splatfix-tune-") as storage:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=_TuneSearcher(driver, num),
                scheduler=_TuneScheduler(driver),
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=storage,
                stop=_TuneStopper(driver),
                callbacks=[_TuneCallback(driver)],
                failure_config=tune.FailureConfig(max_failures=0),  # the scheduler retries trials
                verbose=0,
            ),
        )
        tuner.fit()


class _Driver:
    """The scheduler, shared by all of Tune's parts. Tune copies and pickles these for its own checkpoints: unused."""

    def __init__(self, scheduler: SweepScheduler | None = None, on_step: Callable[[], object] = lambda: None) -> None:
        self._scheduler, self.on_step = scheduler, on_step

    @property
    def scheduler(self) -> SweepScheduler:
        assert self._scheduler is not None, "unpickled: only the original has a scheduler"
        return self._scheduler

    def __reduce__(self) -> Any:
        return _Driver, ()

    def __deepcopy__(self, memo: dict) -> _Driver:
        return self


class _TuneTrainable(tune.Trainable):
    """The actor of a trial: each step is a round, the last one the end."""

    def setup(  # type: ignore[override]  # with_parameters adds all but the first
        self,
        config: dict[str, Any],
        sweep: Path,
        default: LoopConfig,
        cases: Sequence[Case],
        metric: str,
        num_threads: int,
    ) -> None:
        self._reports = run_trial(sweep, config["number"], config["values"], default, cases, metric)
        self._num_threads = num_threads

    def step(self) -> dict[str, Any]:
        with using_threads(self._num_threads), silence_loops():
            report = next(self._reports)
        return {"report": report_to_json(report), "done": isinstance(report, AttemptEnd)}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)  # type: ignore[call-arg]  # as above
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Do nothing: a trial resumes from its own folder."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Do nothing, as above."""


class _TuneSearcher(Searcher):
    """Takes the next trial from the scheduler."""

    def __init__(self, driver: _Driver, num: int) -> None:
        super().__init__()
        self._driver, self._num = driver, num

    def suggest(self, trial_id: str) -> Any:  # noqa: ARG002
        scheduler = self._driver.scheduler
        if scheduler.num_running >= self._num:
            return None
        if (record := scheduler.next_trial()) is not None:
            return {"number": record.number, "values": record.values}
        return Searcher.FINISHED if scheduler.is_finished else None

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Do nothing: `_TuneCallback` reports ends."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the scheduler keeps its records on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, as above."""


class _TuneScheduler(FIFOScheduler):
    """Reports each round, and stops the trial where halving says so."""

    def __init__(self, driver: _Driver) -> None:
        super().__init__()
        self._driver = driver

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:  # noqa: ARG002
        continues = self._driver.scheduler.report(trial.config["number"], report_from_json(result["report"]))
        return TrialScheduler.CONTINUE if continues else TrialScheduler.STOP


class _TuneCallback(tune.Callback):
    """Reports the ends of trials, which Tune does not pass to its scheduler."""

    def __init__(self, driver: _Driver) -> None:
        self._driver = driver

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:  # noqa: ARG002
        report = report_from_json(result["report"])
        if isinstance(report, AttemptEnd):
            self._driver.scheduler.report(trial.config["number"], report)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:  # noqa: ARG002
        end = AttemptEnd(outcome="error", error=_describe_death(trial))
        self._driver.scheduler.report(trial.config["number"], end)

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:  # noqa: ARG002
        self._driver.on_step()


class _TuneStopper(Stopper):
    """Stops all trials once the sweep is aborted."""

    def __init__(self, driver: _Driver) -> None:
        self._driver = driver

    def __call__(self, trial_id: str, result: dict) -> bool:  # noqa: ARG002
        return False

    def stop_all(self) -> bool:
        return self._driver.scheduler.abort_reason is not None


def _describe_death(trial: Any) -> str:
    """Why a trial's actor died, as Ray reports it."""
    path, reason = trial.pickled_error_file, "no reason is known"
    if path is not None and Path(path).is_file():
        reason = classify_failure(pickle.loads(Path(path).read_bytes())).reason
    return f"its worker died: {reason}"
