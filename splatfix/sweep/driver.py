"""A sweep from the first sparse fit to ``sweep.html``: references, trials, reruns of the best, and what came out."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import splatfix
from splatfix.config import to_tree
from splatfix.files import read_json, write_json
from splatfix.process import choose_device, progress, using_threads
from splatfix.restoration import RESTORERS, open_restorer
from splatfix.runs import Run, open_run
from splatfix.sweep.analysis import best_of
from splatfix.sweep.cases import Case, find_cases, make_references, silently
from splatfix.sweep.config import SweepConfig
from splatfix.sweep.files import Output, short
from splatfix.sweep.mlflow_runs import TrackedSweep
from splatfix.sweep.proposals import Search
from splatfix.sweep.record import TrialRecord, read_record
from splatfix.sweep.reruns import rerun
from splatfix.sweep.scheduler import ENDED, Desk
from splatfix.sweep.space import apply, check_space
from splatfix.sweep.trial import attempt, tidy
from splatfix.tracking import without_password
from splatfix.workers import RunAborted, connect_ray, num_local_cpus, resolve_workers, runs_in_process

log = logging.getLogger(__name__)

STATE, LOCK = "state.json", ".driver.lock"
MAY_CHANGE = ("workers", "tracking", "reruns", "held_out", "keep_splats")  # of the config, on resuming


@dataclass
class _Sweep:
    """A sweep under way."""

    config: SweepConfig
    run: Run
    cases: list[Case]
    source: str
    parallel: int
    num: int
    gpus: float
    output: Output
    records: Sequence[TrialRecord] = field(default_factory=list)


def run_sweep(config: SweepConfig, out: Path, *, resume: bool = False, source: str = "config") -> dict[str, Any]:
    """Search the loop's config, and write the sweep's folder; returns what ``sweep.json`` holds.

    Args:
        config: the sweep.
        out: folder; on a cluster one that every node sees.
        resume: go on with the sweep in that folder.
        source: of the config, for messages.

    Raises:
        ValueError: a field, a value or a capture is not usable, or ``out`` holds another sweep; nothing was begun.
        RunAborted: no further trial can work, or none was completed.
    """
    out = Path(out).resolve()
    config = _resolved(config)
    num_trials = check_sweep(config, source=source)
    held = _held(config, out, resume=resume)
    run = open_run(out, _public(config))
    with _alone(out), _connection(config) as ray:
        num, gpus = (1, 0.0) if ray is None else resolve_workers(ray, config.workers)
        if config.workers.num is None and config.search.parallel is not None:
            num = config.search.parallel  # of a cluster that grows, not all nodes are there yet
        parallel = held.get("parallel") or config.search.parallel or num
        if config.search.parallel not in (None, parallel):
            log.warning("search.parallel stays %d, as the sweep was begun", parallel)
        cases = find_cases(config.captures, config.seeds)
        output = Output(config, run, cases, num_trials=num_trials, parallel=parallel)
        sweep = _Sweep(config, run, cases, source, parallel, num, gpus, output)
        run.seconds = dict(held.get("seconds", {}))
        _keep(sweep)
        with TrackedSweep(config, out) as tracked:
            try:
                return _run(sweep, tracked, ray)
            finally:
                _keep(sweep)


def _run(sweep: _Sweep, tracked: TrackedSweep, ray: Any) -> dict[str, Any]:
    config, run, output = sweep.config, sweep.run, sweep.output
    with run.stage("references"):
        output.references = make_references(sweep.cases, config, run.path)
    with _stage_of_trials(run):
        _run_trials(sweep, tracked, ray)
    best = best_of(sweep.records, config.objectives[0])
    if best is None:
        output.write(sweep.records, state="finished")
        raise RunAborted("no trial was completed; sweep.html says why")
    found = apply(config.loop, best.values)
    output.write(sweep.records, state="running")
    if config.reruns > 0 and found != config.loop:
        with run.stage("reruns"):
            for rows in rerun(config, found, f"trial-{best.name}", run.path):
                output.reruns = rows
                output.show(sweep.records)
    for record in sweep.records:
        tidy(run.path, record.number, keep_splats=config.keep_splats or record.number == best.number)
    results = output.write(sweep.records, state="finished")
    run.write_provenance(command="sweep", seed=config.search.seed, device=torch.device("cpu"), role="driver")
    tracked.concluded(*output.conclusion(results))
    return results


def _resolved(config: SweepConfig) -> SweepConfig:
    """With absolute paths: workers may be anywhere."""

    def restorer(name: Any) -> Any:
        return str(Path(name).resolve()) if name not in RESTORERS and Path(str(name)).is_dir() else name

    space = dict(config.space)
    if "restorer" in space and space["restorer"].choice is not None:
        choices = tuple(restorer(name) for name in space["restorer"].choice)
        space["restorer"] = replace(space["restorer"], choice=choices)
    views = config.loop.views
    views = replace(views, split=None if views.split is None else views.split.resolve())
    return replace(
        config,
        captures=tuple(str(Path(capture).resolve()) for capture in config.captures),
        held_out=tuple(str(Path(capture).resolve()) for capture in config.held_out),
        loop=replace(config.loop, restorer=restorer(config.loop.restorer), views=views),
        space=space,
    )


def _public(config: SweepConfig) -> SweepConfig:
    """Without a password in it: as it is written."""
    uri = config.tracking.uri
    return replace(config, tracking=replace(config.tracking, uri=None if uri is None else without_password(uri)))


def check_sweep(config: SweepConfig, *, source: str) -> int:
    """Refuse what cannot work before anything begins; returns the number of trials.

    Raises:
        ValueError: names source, field, value and remedy.
    """
    if not config.captures:
        raise ValueError(f"{source}: captures is empty; wanted at least one folder")
    check_space(config.space, config.loop, source=source)
    find_cases(config.captures, config.seeds)
    find_cases(config.held_out, config.seeds)
    if both := set(config.captures) & set(config.held_out):
        raise ValueError(f"{source}: held_out: {min(both)} is among the captures, too; wanted one that no trial sees")
    # the driver of a cluster may stand on a node without a GPU
    device = choose_device(config.loop.device) if runs_in_process(config.workers) else torch.device("cpu")
    restorers = config.space["restorer"].choice if "restorer" in config.space else None
    for restorer in dict.fromkeys([config.loop.restorer, *(restorers or ())]):
        try:
            open_restorer(restorer, device=device)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
    return Search(config, source=source).num_trials


def _held(config: SweepConfig, out: Path, *, resume: bool) -> dict[str, Any]:
    """What an earlier process kept of this sweep. ValueError where it is another one, or is not to be resumed."""
    path = out / STATE
    if not path.is_file():
        return {}
    if not resume:
        raise ValueError(f"{out}: holds a sweep already; --resume goes on with it, or take another folder")
    held = read_json(path)
    before, now = held["config"], to_tree(_public(config))
    for tree in (before, now):
        for name in MAY_CHANGE:
            tree.pop(name, None)
        tree["search"].pop("trials", None)
        tree["search"].pop("parallel", None)
    for name in now:
        if before.get(name) != now[name]:
            raise ValueError(
                f"{path}: the sweep was begun with other {name}: {before.get(name)!r}, now {now[name]!r}; go on with "
                "the settings as they were (--resume alone takes them), or take another folder"
            )
    return held


def _keep(sweep: _Sweep) -> None:
    """Write what resuming needs besides the trials themselves."""
    versions = {"splatfix": splatfix.__version__, "optuna": version("optuna"), "ray": version("ray")}
    write_json(
        sweep.run.path / STATE,
        {
            "config": to_tree(_public(sweep.config)),
            "parallel": sweep.parallel,
            "seconds": {name: round(value, 1) for name, value in sweep.run.seconds.items()},
            "versions": versions,
        },
    )


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """No other process drives the sweep in this folder. ValueError where one does."""
    with (out / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(f"{out}: {file.read().strip() or 'another process'} is running this sweep") from None
        except OSError:
            log.debug("%s: this disk knows no locks", out)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _connection(config: SweepConfig) -> AbstractContextManager[Any]:
    workers = config.workers
    if runs_in_process(workers):
        return nullcontext(None)
    return connect_ray(workers.address, num_cpus=num_local_cpus(workers), gpus=workers.gpus or 0)


@contextmanager
def _stage_of_trials(run: Run) -> Iterator[None]:
    """The stage's seconds go on from the last trial that ended, also after a kill."""
    ended = [record.elapsed or 0.0 for folder in (run.path / "trials").glob("*") if (record := read_record(folder))]
    run.seconds["trials"] = max([run.seconds.get("trials", 0.0), *ended])
    with run.stage("trials"):
        yield


def _run_trials(sweep: _Sweep, tracked: TrackedSweep, ray: Any) -> None:
    config, out, output = sweep.config, sweep.run.path, sweep.output
    begun = time.time() - sweep.run.seconds["trials"]
    with progress(total=output.num_trials, description="trials") as bar:

        def on_change(record: TrialRecord) -> None:
            tracked.changed(record)
            if record.status in ENDED:
                _tell(record, config)
                tidy(out, record.number, keep_splats=True)
                best = best_of(desk.records, config.objectives[0])
                if best is not None:
                    bar.set_postfix_str(f"best {best.objective(config.objectives[0]):+.3f}", refresh=False)
                bar.update()
                output.show(desk.records)

        desk = Desk(config, out, parallel=sweep.parallel, source=sweep.source, begun=begun, on_change=on_change)
        sweep.records = desk.records
        if ray is None:
            _run_here(desk, config, sweep.cases, out)
        else:
            from splatfix.sweep.ray_tune import run_on_tune

            run_on_tune(desk, config, sweep.cases, out, num=sweep.num, gpus=sweep.gpus, on_step=lambda: bar.update(0))
    if desk.hopeless is not None:
        raise desk.hopeless
    if not desk.is_over:
        raise RunAborted("some trials were not run; --resume goes on with them")


def _run_here(desk: Desk, config: SweepConfig, cases: Sequence[Case], out: Path) -> None:
    """One trial after another, in this process."""
    while (record := desk.next()) is not None:
        goes_on, rounds = True, attempt(out, record.number, record.values, config.loop, cases, config.metric)
        while goes_on:
            with using_threads(config.workers.cpus), silently():
                made = next(rounds)
            goes_on = desk.take(record.number, made)


def _tell(record: TrialRecord, config: SweepConfig) -> None:
    if record.status == "failed":
        log.warning("trial %d failed: %s", record.number, record.error)
    else:
        gain = record.objective(config.objectives[0])
        settings = ", ".join(f"{field.removeprefix('repair.')} {short(v)}" for field, v in record.values.items())
        log.info("trial %d %s: %s %s (%s)", record.number, record.status, config.objectives[0], short(gain), settings)
