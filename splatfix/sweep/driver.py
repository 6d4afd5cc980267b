"""The driver of a sweep: baselines of all cases, trials, reruns of the best config, and the files with the results."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from splatfix.config import to_public_tree
from splatfix.lease import hold_lease
from splatfix.loop.cases import BASELINE_FILES, BASELINES, SHARED, Case, find_cases, fit_baselines, silence_loops
from splatfix.mirror import TOP, Mirror, open_mirror
from splatfix.process import progress, using_threads
from splatfix.report.sweep.results import SWEEP, SweepResults, read_sweep
from splatfix.runs import Run, check_run, describe_run, open_run, read_run
from splatfix.shared_folder import refuse_relative_output, shared_token
from splatfix.stages import Stage, StagePlan
from splatfix.sweep.analysis import best_trial
from splatfix.sweep.checks import check_sweep, restorer_inputs
from splatfix.sweep.config import SweepConfig, resolve_paths
from splatfix.sweep.files import OUTPUT_FILES, SweepWriter, format_value
from splatfix.sweep.live_metrics import LiveMetrics
from splatfix.sweep.mlflow_runs import SweepTracker
from splatfix.sweep.record import AttemptEnd, TrialRecord, read_record, trial_name, trial_part
from splatfix.sweep.reruns import RERUN_FILES, run_reruns
from splatfix.sweep.scheduler import SweepScheduler
from splatfix.sweep.settings import apply
from splatfix.sweep.state import STATE, SweepState, read_state, write_state
from splatfix.sweep.trial import TRIAL_FILES, prune_trial, run_trial
from splatfix.telemetry import Telemetry
from splatfix.tracking import TRACKING_FILES
from splatfix.workers import (
    RunAborted,
    connect_ray,
    joins_cluster,
    num_local_cpus,
    resolve_workers,
    runs_in_process,
    workers_for_device,
)
from splatfix.workers.cuda_errors import CUDA_IS_BROKEN

log = logging.getLogger(__name__)

MAY_CHANGE = (  # settings that a resumed sweep may change
    *("workers", "tracking", "reruns", "held_out", "keep_splats"),
    *("search.trials", "search.parallel"),
)
SWEEP_FILES = (  # glob patterns of all that a sweep writes, besides MLflow's database
    *(STATE, *OUTPUT_FILES, *TRACKING_FILES, "shared/*/*.pt"),
    *(f"trials/*/{name}" for name in TRIAL_FILES),
    *(f"{BASELINES}/*/{name}" for name in BASELINE_FILES),
    *(f"reruns/{folder}/{name}" for folder in ("*/*", "*/held_out/*") for name in RERUN_FILES),
)


def run_sweep(config: SweepConfig, out: Path | str, *, fresh: bool = False, source: str = "config") -> SweepResults:
    """Search the loop's config, and write the sweep's folder; returns what ``sweep.json`` holds.

    An interrupted sweep in the folder is resumed; of a finished one, what it wrote is returned.

    Args:
        config: the sweep.
        out: folder, on a cluster one that every node sees, or a URL of an object store.
        fresh: start over.
        source: of the config, for messages.

    Raises:
        ValueError: a setting or a capture is not usable, or ``out`` holds another run; nothing was started.
        RunAborted: no further trial can work, or none was completed.
    """
    refuse_relative_output(out)
    mirror = open_mirror(out)
    out = mirror.path
    config = resolve_paths(config)
    config = replace(config, workers=workers_for_device(config.workers, config.loop.device))
    num_trials = check_sweep(config, source=source)
    inputs = restorer_inputs(config)
    record = describe_run(config, command="sweep", inputs=inputs, files=SWEEP_FILES)
    mirror.pull(TOP)
    with mirror.name_errors():
        check_run(out, record, may_change=MAY_CHANGE, fresh=fresh)  # before the lease, which is in the folder
    with hold_lease(mirror.place, "splatfix sweep"), mirror.name_errors():
        mirror.pull(skip=[] if fresh else [SHARED])
        run = open_run(
            out,
            config,
            command="sweep",
            inputs=inputs,
            may_change=MAY_CHANGE,
            files=SWEEP_FILES,
            is_complete=_is_complete(config, out),
            fresh=fresh,
        )
        if run.is_finished:
            log.info("%s: this sweep is finished", mirror.place)
            return read_sweep(out)
        mirror.begin()
        with mirror.drive():
            return _run_or_resume(config, run, mirror, num_trials, source)


def _is_complete(config: SweepConfig, out: Path) -> bool:
    """Whether a finished sweep has all that the settings ask for: as many trials, and all reruns without an error."""
    earlier = read_run(out)
    if earlier is None or earlier["command"] != "sweep" or not (out / SWEEP).is_file():
        return False
    before, now = (dict(tree) for tree in (earlier["settings"], to_public_tree(config)))
    before["search"], now["search"] = ({**tree["search"], "parallel": None} for tree in (before, now))
    if any(before.get(name) != now[name] for name in ("search", "reruns", "held_out")):
        return False
    try:
        reruns = read_sweep(out).reruns
    except ValueError as error:  # of another version: the sweep writes it again
        log.debug("%s", error)
        return False
    return reruns is None or all(row.error is None for row in reruns.rows)


def _run_or_resume(config: SweepConfig, run: Run, mirror: Mirror, num_trials: int, source: str) -> SweepResults:
    """Run what the folder lacks."""
    out, state = run.path, read_state(run.path)
    with _connect(config) as ray:
        workers = _plan_workers(config, state, ray)
        run.seconds = dict(state.seconds) if state is not None else {}
        write_state(out, parallel=workers.parallel, seconds=run.seconds)
        on_nodes = nullcontext(None) if ray is None else shared_token(mirror.place)
        with SweepTracker(config, out) as tracker, on_nodes as token:
            try:
                return _run_stages(_Sweep(config, run, mirror, source, num_trials, workers, tracker, token))
            finally:
                write_state(out, parallel=workers.parallel, seconds=run.seconds)


@dataclass(frozen=True)
class _Workers:
    """How many trials run at once, the share of a GPU of each, and how far the proposals look ahead."""

    num: int
    gpus: float
    parallel: int


@dataclass(frozen=True)
class _Sweep:
    """What all stages of a sweep need.

    Attributes:
        token: in the sweep's folder, which every node must see; None where trials run in this process.
    """

    config: SweepConfig
    run: Run
    mirror: Mirror
    source: str
    num_trials: int
    workers: _Workers
    tracker: SweepTracker
    token: str | None


def _run_stages(sweep: _Sweep) -> SweepResults:
    """Measure the baselines, run the trials, rerun the best config beside the default, and write what was found."""
    config, run = sweep.config, sweep.run
    cases = find_cases(config.captures, config.seeds)
    stages = [
        Stage("baselines", f"sparse fit and control of each capture and seed, {len(cases)} in all", {}),
        Stage("trials", f"{sweep.num_trials} trials, each with other settings of the loop", {}),
    ]
    if config.reruns > 0:
        stages.append(Stage("reruns", "the default and the best settings once more, with other seeds", {}))
    run.plan = StagePlan(stages)
    with run.stage("baselines"):
        workers, token = config.workers, sweep.token
        baselines = fit_baselines(cases, config.loop, workers, sweep.mirror, command="sweep", token=token)
    writer = SweepWriter(config, run, cases, baselines, num_trials=sweep.num_trials, parallel=sweep.workers.parallel)
    earlier = [record for folder in run.path.glob("trials/*") if (record := read_record(folder)) is not None]
    with _resumed_stage(run, earlier):
        records = _run_trials(sweep, cases, writer, {record.number for record in earlier if record.has_ended})
    best = best_trial(records, config.objectives[0])
    if best is None:
        writer.write(records, state="finished")
        raise RunAborted("no trial was completed; sweep.html says why")
    best_config = apply(config.loop, best.values)
    writer.write(records, state="running")
    if config.reruns > 0 and best_config != config.loop:
        with run.stage("reruns"):
            for rows in run_reruns(config, best_config, trial_name(best.number), sweep.mirror, sweep.token):
                writer.reruns = rows
                writer.update(records)
                sweep.mirror.push(TOP)
    for record in records:
        prune_trial(run.path, record.number, keep_splats=config.keep_splats or record.number == best.number)
    results = writer.write(records, state="finished")
    run.write_provenance(seed=config.search.seed, device=torch.device("cpu"), role="driver")
    sweep.tracker.conclude(results)
    return results


def _run_trials(sweep: _Sweep, cases: Sequence[Case], writer: SweepWriter, found: set[int]) -> list[TrialRecord]:
    """Run all trials, in this process or on Ray Tune; returns their records. ``found``: those that ended earlier.

    Raises:
        RunAborted: no further trial can work, or some were not run.
    """
    config, out, workers, mirror = sweep.config, sweep.run.path, sweep.workers, sweep.mirror
    objective = config.objectives[0]
    if found:
        log.info("%d trials found, %d remain", len(found), max(sweep.num_trials - len(found), 0))
    with (
        Telemetry("sweep", mirror.place) as telemetry,
        progress(total=sweep.num_trials, description="trials") as bar,
    ):

        def on_change(record: TrialRecord) -> None:
            part = trial_part(record.number)
            mirror.pull(part)
            sweep.tracker.update_trial(record)
            live_metrics.update(record)
            if record.has_ended:
                if record.number not in found:
                    _log_trial(record, objective)
                prune_trial(out, record.number, keep_splats=True)
                best = best_trial(scheduler.records, objective)
                if best is not None:
                    bar.set_postfix_str(f"best {best.figure(objective):+.3f}", refresh=False)
                bar.update()
                writer.update(scheduler.records)
            mirror.push(part, TOP)

        scheduler = SweepScheduler(
            config,
            out,
            parallel=workers.parallel,
            source=sweep.source,
            start_time=time.time() - sweep.run.seconds["trials"],
            on_change=on_change,
        )
        live_metrics = LiveMetrics(telemetry, scheduler, objective, bar)
        if sweep.token is None:
            _run_in_process(scheduler, config, cases, mirror)
        else:
            from splatfix.sweep.ray_tune import run_on_tune

            def refresh() -> None:
                bar.update(0)
                live_metrics.count_errors()

            resources: dict[str, Any] = {"num": workers.num, "gpus": workers.gpus}
            run_on_tune(scheduler, config, cases, mirror, token=sweep.token, **resources, on_step=refresh)
    if scheduler.abort_reason is not None:
        raise scheduler.abort_reason
    if not scheduler.is_finished:
        raise RunAborted("some trials were not run; run the sweep again")
    return scheduler.records


def _run_in_process(scheduler: SweepScheduler, config: SweepConfig, cases: Sequence[Case], mirror: Mirror) -> None:
    """Run one trial after another in this process."""
    while (record := scheduler.next_trial()) is not None:
        reports = run_trial(mirror, record.number, record.values, config.loop, cases, config.metric)
        continues = True
        while continues:
            with using_threads(config.workers.cpus), silence_loops():
                report = next(reports)
            continues = scheduler.report(record.number, report)
            if isinstance(report, AttemptEnd) and report.breaks_process:
                raise RunAborted(f"trial {record.number}: {report.error}: {CUDA_IS_BROKEN}")


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
    elif ray is not None and config.workers.num is None and state is None:
        log.info("search.parallel is not set: %d trials at once, for which the cluster has room now", num)
    if ray is not None and joins_cluster(config.workers.address) and config.workers.gpus is None and gpus == 0:
        log.info("the cluster has no GPU now: trials run on CPUs; set workers.gpus if nodes with GPUs start later")
    parallel = (state.parallel if state is not None else wanted) or num
    if wanted not in (None, parallel):
        log.warning("search.parallel stays %d, as at the start of the sweep", parallel)
    return _Workers(num, gpus, parallel)


@contextmanager
def _resumed_stage(run: Run, earlier: Sequence[TrialRecord]) -> Iterator[None]:
    """The stage of the trials; its seconds continue from the last trial that ended, also after a kill."""
    run.seconds["trials"] = max(run.seconds.get("trials", 0.0), *(record.elapsed or 0.0 for record in earlier), 0.0)
    with run.stage("trials"):
        yield


def _log_trial(record: TrialRecord, objective: str) -> None:
    if record.status == "failed":
        log.warning("trial %d failed: %s", record.number, record.error)
    else:
        values = (f"{field.removeprefix('repair.')} {format_value(value)}" for field, value in record.values.items())
        figure = format_value(record.figure(objective))
        log.info("trial %d %s: %s %s (%s)", record.number, record.status, objective, figure, ", ".join(values))
