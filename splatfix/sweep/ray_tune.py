"""Run the trials of a sweep on Ray Tune: it places them on nodes, shares GPUs, grows the cluster and shows them.

What Tune does here: a placement group for each trial, which also asks the autoscaler for nodes; at most ``num`` trials
at once; a trial whose node is preempted runs again and loses no attempt; names in Ray's dashboard. What the
`SweepScheduler` does: proposals, halving, attempts and records. Tune's own searchers, ASHA and `Tuner.restore` depend
on the order in which results arrive, and a killed driver loses what it had not saved.
"""

from __future__ import annotations

import logging
import pickle
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from splatfix.files import scratch_folder
from splatfix.loop import LoopConfig
from splatfix.loop.cases import Case, silence_loops
from splatfix.mirror import Mirror
from splatfix.process import quiet, setting_environment, using_threads
from splatfix.sweep.config import SweepConfig
from splatfix.sweep.placement import BoundedWait, SlowRounds, avoidable_nodes
from splatfix.sweep.record import AttemptEnd, report_from_json, report_to_json, trial_name
from splatfix.sweep.scheduler import SweepScheduler
from splatfix.sweep.trial import run_trial
from splatfix.workers import Failure, WorkersConfig, classify_failure
from splatfix.workers.cluster import select_nodes, worker_resources
from splatfix.workers.failures import describe_slow_task
from splatfix.workers.host import take_gpu_share

log = logging.getLogger(__name__)

ENVIRONMENT = {  # switches of Tune that have no argument
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no copy of each report as JSON, CSV and TensorBoard files
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours ends the sweep, and MLflow's runs
    "RAY_AIR_NEW_OUTPUT": "0",  # its table of trials is printed even where ``verbose`` is 0
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # the programs of `command` restorers are found by relative paths
}


def run_on_tune(
    scheduler: SweepScheduler,
    config: SweepConfig,
    cases: Sequence[Case],
    mirror: Mirror,
    *,
    token: str,
    num: int,
    gpus: float,
    on_step: Callable[[], object],
) -> None:
    """Run the scheduler's trials, at most ``num`` at once, each with ``gpus`` of a GPU; Ray is connected.

    ``token`` is that in the sweep's folder, which each trial checks; ``on_step`` is called about ten times a second.

    Raises:
        RunAborted: no other trial can work, or none could start for ``workers.wait_minutes``.
    """
    work = _Work(mirror, token, config.loop, tuple(cases), config.metric, config.workers, gpus)
    driver = _Driver(scheduler, on_step, partial(_choose_avoided, config.workers, gpus))
    with (
        setting_environment(ENVIRONMENT),
        quiet("ray.tune", level=logging.CRITICAL),  # the scheduler logs failed attempts
        scratch_folder("tune") as storage,  # of the driver alone
    ):
        tuner = tune.Tuner(
            type("Trial", (TuneTrial,), {"work": work, "__qualname__": "Trial"}),  # the name in Ray's dashboard
            tune_config=tune.TuneConfig(
                search_alg=_TuneSearcher(driver),
                scheduler=_TuneScheduler(driver),
                num_samples=-1,
                max_concurrent_trials=num,
                reuse_actors=False,  # each trial has a separate process, with its name and log, and a sound CUDA
                trial_name_creator=_name_trial,
                trial_dirname_creator=_name_trial,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(storage),
                # a checkpoint would be looked for in ``storage`` on the node of the trial, which has no such folder
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[_TuneCallback(driver, config.workers, work.resources)],
                failure_config=tune.FailureConfig(max_failures=0),  # the scheduler retries trials
                verbose=0,
            ),
        )
        tuner.fit()


@dataclass(frozen=True)
class _Work:
    """What all trials need, on their nodes."""

    mirror: Mirror
    token: str
    default: LoopConfig
    cases: tuple[Case, ...]
    metric: str
    workers: WorkersConfig
    gpus: float

    @property
    def resources(self) -> dict[str, float]:
        """Of a trial, by Ray's names."""
        return worker_resources(self.workers, self.gpus)


class TuneTrial(tune.Trainable):
    """The actor of an attempt at a trial: each step is a round, the last one the end."""

    work: ClassVar[_Work]

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Place the trial on a node with the wanted labels that it does not avoid."""
        labels = select_nodes(cls.work.workers.labels, config["avoid"])
        selector: dict[str, Any] = {"bundle_label_selector": [labels]} if labels else {}
        return tune.PlacementGroupFactory([cls.work.resources], **selector)

    def setup(self, config: dict[str, Any]) -> None:
        work = self.work
        take_gpu_share(work.gpus)
        self._reports = run_trial(
            work.mirror, config["number"], config["values"], work.default, work.cases, work.metric, work.token
        )
        self._node = ray.get_runtime_context().get_node_id()

    def step(self) -> dict[str, Any]:
        with using_threads(self.work.workers.cpus), silence_loops():
            report = next(self._reports)
        return {"report": report_to_json(report), "node": self._node, "done": isinstance(report, AttemptEnd)}

    def __repr__(self) -> str:
        return trial_name(self.config["number"])


def _name_trial(trial: Any) -> str:
    return trial_name(trial.config["number"])


def _choose_avoided(workers: WorkersConfig, gpus: float, avoided: set[str]) -> list[str]:
    return avoidable_nodes(ray.nodes(), avoided, workers, gpus)


class _Driver:
    """The scheduler, shared by all of Tune's parts. Tune pickles these for `Tuner.restore`, which is not used."""

    def __init__(
        self,
        scheduler: SweepScheduler | None = None,
        on_step: Callable[[], object] = lambda: None,
        choose_avoided: Callable[[set[str]], list[str]] = sorted,
    ) -> None:
        self._scheduler, self.on_step, self.choose_avoided = scheduler, on_step, choose_avoided

    @property
    def scheduler(self) -> SweepScheduler:
        assert self._scheduler is not None, "unpickled: only the original has a scheduler"
        return self._scheduler

    def report(self, trial: Any, result: Mapping[str, Any]) -> bool:
        """Pass on a trial's report; returns whether it continues."""
        return self.scheduler.report(trial.config["number"], report_from_json(result["report"]), result["node"])

    def __reduce__(self) -> Any:
        return _Driver, ()


class _TuneSearcher(Searcher):
    """Takes the next trial from the scheduler."""

    def __init__(self, driver: _Driver) -> None:
        super().__init__()
        self._driver = driver

    def suggest(self, trial_id: str) -> Any:  # noqa: ARG002
        scheduler = self._driver.scheduler
        if (record := scheduler.next_trial()) is None:
            return Searcher.FINISHED if scheduler.is_finished else None
        avoid = self._driver.choose_avoided(scheduler.nodes_to_avoid(record.number))
        return {"number": record.number, "values": record.values, "avoid": avoid}

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Do nothing; Tune requires this method. `_TuneScheduler` and `_TuneCallback` report ends."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing; Tune requires this method. The scheduler keeps its records on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, as above."""


class _TuneScheduler(FIFOScheduler):
    """Reports each round and the end of a trial, and stops the trial where halving says so."""

    def __init__(self, driver: _Driver) -> None:
        super().__init__()
        self._driver = driver

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:  # noqa: ARG002
        return TrialScheduler.CONTINUE if self._driver.report(trial, result) else TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict) -> None:  # noqa: ARG002
        if isinstance(report_from_json(result["report"]), AttemptEnd):  # else halving has stopped it
            self._driver.report(trial, result)


class _TuneCallback(tune.Callback):
    """Reports the deaths of trials, with the reason that Tune's scheduler does not get, and ends an aborted sweep."""

    def __init__(self, driver: _Driver, workers: WorkersConfig, resources: Mapping[str, float]) -> None:
        self._driver, self._workers = driver, workers
        self._wait = BoundedWait(workers.wait_minutes, resources)
        self._rounds = SlowRounds(workers.task_minutes)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:  # noqa: ARG002
        failure = _read_failure(trial)
        reason, trace = ("no reason is known", None) if failure is None else (failure.reason, failure.traceback)
        if trial.trial_id in self._rounds.ended:
            reason, trace = describe_slow_task(self._workers.task_minutes), None
        end = AttemptEnd(outcome="error", error=f"its worker died: {reason}", traceback=trace)
        self._driver.scheduler.report(trial.config["number"], end, _node_of(trial))

    def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:  # noqa: ARG002
        """Log that Tune starts a trial again; it counts no failure where the node was preempted."""
        log.warning("trial %d: its node was preempted; it runs again and loses no attempt", trial.config["number"])

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:  # noqa: ARG002
        """End the sweep where no trial can work; called about ten times a second."""
        if (reason := self._driver.scheduler.abort_reason) is not None:
            raise reason
        counts = Counter(trial.status for trial in trials)
        self._wait.check(num_waiting=counts[Trial.PENDING], num_running=counts[Trial.RUNNING])
        for trial in trials:
            is_running = trial.status == Trial.RUNNING and trial.temporary_state.ray_actor is not None
            num_rounds = trial.run_metadata.last_result.get("training_iteration", 0)  # `last_result` asks the actor
            name = f"trial {trial.config['number']}"
            if self._rounds.is_over(trial.trial_id, name, num_rounds if is_running else None):
                ray.kill(trial.temporary_state.ray_actor)
        self._driver.on_step()


def _read_failure(trial: Any) -> Failure | None:
    """Why a trial's actor died, from the exception that Tune keeps on the driver's disk."""
    path = trial.pickled_error_file
    if path is None or not Path(path).is_file():
        return None
    return classify_failure(pickle.loads(Path(path).read_bytes()))


def _node_of(trial: Any) -> str | None:
    """The living node on which a trial's actor died; None where that is not known."""
    address = trial.last_result.get("node_ip")
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeManagerAddress"] == address]
    return nodes[0] if len(nodes) == 1 else None
