"""The driver of a sweep: baselines of all cases, trials, reruns of the best config, and the files with the results."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from splatfix.process import progress, using_threads
from splatfix.report.sweep.results import SweepResults
from splatfix.runs import Run, open_run
from splatfix.sweep.analysis import best_trial
from splatfix.sweep.cases import Case, find_cases, measure_baselines, silence_loops
from splatfix.sweep.checks import check_sweep
from splatfix.sweep.config import SweepConfig, hide_password, resolve_paths
from splatfix.sweep.files import SweepWriter, format_value
from splatfix.sweep.mlflow_runs import SweepTracker
from splatfix.sweep.record import TrialRecord, read_record
from splatfix.sweep.reruns import run_reruns
from splatfix.sweep.scheduler import SweepScheduler
from splatfix.sweep.settings import apply
from splatfix.sweep.state import SweepState, lock_folder, read_state, write_state
from splatfix.sweep.trial import prune_trial, run_trial
from splatfix.workers import RunAborted, connect_ray, num_local_cpus, resolve_workers, runs_in_process

log = logging.getLogger(__name__)


def run_sweep(config: SweepConfig, out: Path, *, resume: bool = False, source: str = "config") -> SweepResults:
    """Search the loop's config, and write the sweep's folder; returns what ``sweep.json`` holds.

    Args:
        config: the sweep.
        out: folder; on a cluster one that every node sees.
        resume: continue the sweep in that folder.
        source: of the config, for messages.

    Raises:
        ValueError: a setting or a capture is not usable, or ``out`` holds another sweep; nothing was started.
        RunAborted: no further trial can work, or none was completed.
    """
    out = Path(out).resolve()
    config = resolve_paths(config)
    num_trials = check_sweep(config, source=source)
    state = read_state(out, config, resume=resume)
    run = open_run(out, hide_password(config))
    with lock_folder(out), _connect(config) as ray:
        workers = _plan_workers(config, state, ray)
        run.seconds = dict(state.seconds) if state is not None else {}
        write_state(out, config, parallel=workers.parallel, seconds=run.seconds)
        with SweepTracker(config, out) as tracker:
            try:
                return _run_stages(_Sweep(config, run, source, num_trials, workers, tracker), ray)
            finally:
                write_state(out, config, parallel=workers.parallel, seconds=run.seconds)


@dataclass(frozen=True)
class _Workers:
    """How many trials run at once, the share of a GPU of each, and how far the proposals look ahead."""

    num: int
    gpus: float
    parallel: int


@dataclass(frozen=True)
class _Sweep:
    """What all stages of a sweep need."""

    config: SweepConfig
    run: Run
    source: str
    num_trials: int
    workers: _Workers
    tracker: SweepTracker


def _run_stages(sweep: _Sweep, ray: Any) -> SweepResults:
    """Measure the baselines, run the trials, rerun the best config beside the default, and write what was found."""
    config, run = sweep.config, sweep.run
    cases = find_cases(config.captures, config.seeds)
    with run.stage("references"):
        baselines = measure_baselines(cases, config, run.path)
    writer = SweepWriter(config, run, cases, baselines, num_trials=sweep.num_trials, parallel=sweep.workers.parallel)
    with _resumed_stage(run):
        records = _run_trials(sweep, cases, writer, ray)
    best = best_trial(records, config.objectives[0])
    if best is None:
        writer.write(records, state="finished")
        raise RunAborted("no trial was completed; sweep.html says why")
    best_config = apply(config.loop, best.values)
    writer.write(records, state="running")
    if config.reruns > 0 and best_config != config.loop:
        with run.stage("reruns"):
            for rows in run_reruns(config, best_config, f"trial-{best.name}", run.path):
                writer.reruns = rows
                writer.update(records)
    for record in records:
        prune_trial(run.path, record.number, keep_splats=config.keep_splats or record.number == best.number)
    results = writer.write(records, state="finished")
    run.write_provenance(command="sweep", seed=config.search.seed, device=torch.device("cpu"), role="driver")
    sweep.tracker.conclude(results)
    return results


def _run_trials(sweep: _Sweep, cases: Sequence[Case], writer: SweepWriter, ray: Any) -> list[TrialRecord]:
    """Run all trials, in this process or on Ray Tune; returns their records.

    Raises:
        RunAborted: no further trial can work, or some were not run.
    """
    config, out, workers = sweep.config, sweep.run.path, sweep.workers
    objective = config.objectives[0]
    with progress(total=sweep.num_trials, description="trials") as bar:

        def on_change(record: TrialRecord) -> None:
            sweep.tracker.update_trial(record)
            if record.has_ended:
                _log_trial(record, objective)
                prune_trial(out, record.number, keep_splats=True)
                best = best_trial(scheduler.records, objective)
                if best is not None:
                    bar.set_postfix_str(f"best {best.figure(objective):+.3f}", refresh=False)
                bar.update()
                writer.update(scheduler.records)

        scheduler = SweepScheduler(
            config,
            out,
            parallel=workers.parallel,
            source=sweep.source,
            start_time=time.time() - sweep.run.seconds["trials"],
            on_change=on_change,
        )
        if ray is None:
            _run_in_process(scheduler, config, cases, out)
        else:
            from splatfix.sweep.ray_tune import run_on_tune

            refresh = lambda: bar.update(0)  # noqa: E731
            run_on_tune(scheduler, config, cases, out, num=workers.num, gpus=workers.gpus, on_step=refresh)
    if scheduler.abort_reason is not None:
        raise scheduler.abort_reason
    if not scheduler.is_finished:
        raise RunAborted("some trials were not run; --resume runs them")
    return scheduler.records


def _run_in_process(scheduler: SweepScheduler, config: SweepConfig, cases: Sequence[Case], out: Path) -> None:
    """Run one trial after another in this process."""
    while (record := scheduler.next_trial()) is not None:
        reports = run_trial(out, record.number, record.values, config.loop, cases, config.metric)
        continues = True
        while continues:
            with using_threads(config.workers.cpus), silence_loops():
                report = next(reports)
            continues = scheduler.report(record.number, report)


def _connect(config: SweepConfig) -> AbstractContextManager[Any]:
    """A connection to Ray; None where trials run in this process."""
    workers = config.workers
    if runs_in_process(workers):
        return nullcontext(None)
    return connect_ray(workers.address, num_cpus=num_local_cpus(workers), gpus=workers.gpus or 0)


def _plan_workers(config: SweepConfig, state: SweepState | None, ray: Any) -> _Workers:
    """How many trials run at once; a resumed sweep keeps its ``parallel``, which the proposals depend on."""
    num, gpus = (1, 0.0) if ray is None else resolve_workers(ray, config.workers)
    wanted = config.search.parallel
    if config.workers.num is None and wanted is not None:
        num = wanted  # not all nodes of a growing cluster are up yet
    parallel = (state.parallel if state is not None else wanted) or num
    if wanted not in (None, parallel):
        log.warning("search.parallel stays %d, as at the start of the sweep", parallel)
    return _Workers(num, gpus, parallel)


@contextmanager
def _resumed_stage(run: Run) -> Iterator[None]:
    """The stage of the trials; its seconds continue from the last trial that ended, also after a kill."""
    ended = [record.elapsed or 0.0 for folder in (run.path / "trials").glob("*") if (record := read_record(folder))]
    run.seconds["trials"] = max([run.seconds.get("trials", 0.0), *ended])
    with run.stage("trials"):
        yield


def _log_trial(record: TrialRecord, objective: str) -> None:
    if record.status == "failed":
        log.warning("trial %d failed: %s", record.number, record.error)
    else:
        values = (f"{field.removeprefix('repair.')} {format_value(value)}" for field, value in record.values.items())
        figure = format_value(record.figure(objective))
        log.info("trial %d %s: %s %s (%s)", record.number, record.status, objective, figure, ", ".join(values))
