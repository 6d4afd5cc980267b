"""A sweep from the first sparse fit to ``sweep.html``: references, trials, reruns of the best, and what came out."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import splatfix
from splatfix.config import to_tree, to_yaml
from splatfix.loop import LoopConfig
from splatfix.report.sweep import write_sweep_page
from splatfix.restoration import open_restorer
from splatfix.runs import Run, choose_device, open_run, progress, read_json, using_threads, write_json, write_text
from splatfix.sweep.cases import Case, find_cases, make_references, silently
from splatfix.sweep.config import SweepConfig
from splatfix.sweep.desk import ENDED, Desk
from splatfix.sweep.outcome import best_of, trial_rows, trials_csv, verdict
from splatfix.sweep.record import TrialRecord
from splatfix.sweep.reruns import rerun, rerun_seeds
from splatfix.sweep.search import Search, importances, pareto
from splatfix.sweep.space import apply, check_space
from splatfix.sweep.tracked import TrackedSweep
from splatfix.sweep.trial import attempt, trial_folder
from splatfix.workers import Hopeless, connected, local_cpus, num_workers, runs_here

log = logging.getLogger(__name__)

STATE, RESULTS, BEST, TRIALS = "state.json", "sweep.json", "best.yaml", "trials.csv"
MAY_CHANGE = ("workers", "tracking", "reruns", "held_out", "keep_splats")  # of the config, on resuming
PAGE_SECONDS = 60.0  # between pages while trials run


@dataclass
class _Sweep:
    """A sweep under way."""

    config: SweepConfig
    run: Run
    name: str
    cases: list[Case]
    parallel: int
    references: dict[str, dict[str, Any]] = field(default_factory=dict)
    records: Sequence[TrialRecord] = ()
    num_trials: int = 0
    reruns: list[dict[str, Any]] | None = None
    written: float = 0.0


def run_sweep(config: SweepConfig, out: Path, *, resume: bool = False, source: str = "config") -> dict[str, Any]:
    """Search the loop's config, and write the sweep's folder; returns what ``sweep.json`` holds.

    Args:
        config: the sweep.
        out: folder; on a cluster one that every node sees.
        resume: go on with the sweep in that folder.
        source: of the config, for messages.

    Raises:
        ValueError: a field, a value or a capture is not usable, or ``out`` holds another sweep; nothing was begun.
        Hopeless: no further trial can work.
    """
    out = Path(out)
    num_trials = check_sweep(config, source=source)
    held = _held(config, out, resume=resume)
    run = open_run(out, config)
    cases = find_cases(config.captures, config.seeds)
    with _connection(config) as ray:
        num, gpus = (1, 0.0) if ray is None else num_workers(ray, config.workers)
        parallel = held.get("parallel") or config.search.parallel or num
        sweep = _Sweep(config, run, out.resolve().name, cases, parallel, num_trials=num_trials)
        run.seconds = dict(held.get("seconds", {}))
        _keep(sweep)
        with TrackedSweep(config, out) as tracked:
            with run.stage("references"):
                sweep.references = make_references(cases, config, out)
            with run.stage("trials"):
                _run_trials(sweep, tracked, ray, num, gpus, source)
            _keep(sweep)
            best = best_of(sweep.records, config.objectives[0])
            if best is not None:
                found = apply(config.loop, best.values)
                if config.reruns > 0 and found != config.loop:
                    with run.stage("reruns"):
                        sweep.reruns = rerun(config, found, f"trial-{best.name}", out)
                _write_best(sweep, best, found)
            results = _write_results(sweep, state="finished")
            write_sweep_page(out)
            _keep(sweep)
            run.write_provenance(command="sweep", seed=config.search.seed, device=choose_device(config.loop.device))
            if not config.keep_splats:
                _drop_splats(sweep, best)
            _conclude(tracked, results, out)
    return results


def check_sweep(config: SweepConfig, *, source: str) -> int:
    """Refuse what cannot work before anything begins; returns the number of trials.

    Raises:
        ValueError: names source, field, value and remedy.
    """
    if not config.captures:
        raise ValueError(f"{source}: captures is empty; wanted at least one folder")
    check_space(config.space, config.loop, source=source)
    find_cases([*config.captures, *config.held_out], config.seeds)
    restorers = config.space["restorer"].choice if "restorer" in config.space else None
    for restorer in dict.fromkeys([config.loop.restorer, *(restorers or ())]):
        try:
            open_restorer(restorer, device=choose_device(config.loop.device))
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
    before, now = held["config"], to_tree(config)
    for tree in (before, now):
        for name in MAY_CHANGE:
            tree.pop(name, None)
        tree["search"].pop("trials", None)
        tree["search"].pop("parallel", None)
    for name in now:
        if before.get(name) != now[name]:
            raise ValueError(
                f"{path}: the sweep was begun with other {name}: {before.get(name)!r}, now {now[name]!r}; go on with "
                f"the config of {out / 'config.yaml'} as it was, or take another folder"
            )
    return held


def _keep(sweep: _Sweep) -> None:
    """Write what resuming needs besides the trials themselves."""
    versions = {"splatfix": splatfix.__version__, "optuna": version("optuna"), "ray": version("ray")}
    write_json(
        sweep.run.path / STATE,
        {
            "config": to_tree(sweep.config),
            "parallel": sweep.parallel,
            "seconds": {name: round(value, 1) for name, value in sweep.run.seconds.items()},
            "versions": versions,
        },
    )


def _connection(config: SweepConfig) -> AbstractContextManager[Any]:
    workers = config.workers
    if runs_here(workers):
        return nullcontext(None)
    return connected(workers.address, num_cpus=local_cpus(workers), gpus=workers.gpus or 0)


def _run_trials(sweep: _Sweep, tracked: TrackedSweep, ray: Any, num: int, gpus: float, source: str) -> None:
    config, out = sweep.config, sweep.run.path
    begun = time.time() - sweep.run.seconds.get("trials", 0.0)
    with progress(total=sweep.num_trials, description="trials") as bar:

        def on_change(record: TrialRecord) -> None:
            tracked.changed(record)
            if record.status in ENDED:
                _tell(record, config)
                bar.update()
                best = best_of(desk.records, config.objectives[0])
                if best is not None:
                    bar.set_postfix_str(f"best {best.objective(config.objectives[0]):+.3f}", refresh=False)
                if time.monotonic() - sweep.written > PAGE_SECONDS:
                    _show_progress(sweep)

        desk = Desk(config, out, parallel=sweep.parallel, source=source, begun=begun, on_change=on_change)
        sweep.records = desk.records
        if ray is None:
            _run_here(desk, config, sweep.cases, out)
        else:
            from splatfix.sweep.tuning import run_on_tune

            run_on_tune(desk, config, sweep.cases, out, num=num, gpus=gpus, on_step=lambda: bar.update(0))
    if desk.hopeless is not None:
        raise desk.hopeless
    left = sum(record.status not in ENDED for record in desk.records) + desk.num_trials - len(desk.records)
    if left:
        raise Hopeless(f"{left} trials were not run; --resume goes on with them")


def _run_here(desk: Desk, config: SweepConfig, cases: Sequence[Case], out: Path) -> None:
    """One trial after another, in this process."""
    while (record := desk.next()) is not None:
        made = attempt(out, record.number, record.values, config.loop, cases, config.metric)
        with using_threads(config.workers.cpus), silently():
            while desk.take(record.number, next(made)):
                pass


def _tell(record: TrialRecord, config: SweepConfig) -> None:
    if record.status == "failed":
        log.warning("trial %d failed: %s", record.number, record.error)
    else:
        gain = record.objective(config.objectives[0])
        settings = ", ".join(f"{field.removeprefix('repair.')} {_short(v)}" for field, v in record.values.items())
        log.info("trial %d %s: %s %s (%s)", record.number, record.status, config.objectives[0], _short(gain), settings)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _write_results(sweep: _Sweep, *, state: str) -> dict[str, Any]:
    """Write ``sweep.json`` and the table of trials."""
    config, records = sweep.config, list(sweep.records)
    rows = trial_rows(config, records)
    best = best_of(records, config.objectives[0])
    found, reason = importances(config, records)
    results = {
        "schema": 1,
        "name": sweep.name,
        "state": state,
        "objectives": list(config.objectives),
        "metric": config.metric,
        "num_trials": sweep.num_trials,
        "search": {**asdict(config.search), "trials": sweep.num_trials, "parallel": sweep.parallel},
        "halving": None if config.halving is None else asdict(config.halving),
        "seconds": {name: round(value, 1) for name, value in sweep.run.seconds.items()},
        "cases": [_case_row(sweep, case) for case in sweep.cases],
        "space": _space_rows(config),
        "trials": rows,
        "best": None if best is None else best.number,
        "pareto": pareto(records, config.objectives),
        "importance": found,
        "importance_reason": reason,
        "reruns": _reruns(sweep, best),
        "files": {"best": BEST, "trials": TRIALS},
    }
    write_text(sweep.run.path / TRIALS, trials_csv(config, rows))
    write_json(sweep.run.path / RESULTS, results)
    sweep.written = time.monotonic()
    return results


def _show_progress(sweep: _Sweep) -> None:
    """The page as it stands; no fault in it stops the trials."""
    try:
        _write_results(sweep, state="running")
        write_sweep_page(sweep.run.path)
    except Exception as error:
        sweep.written = time.monotonic()
        log.warning("sweep.html could not be written: %s: %s", type(error).__name__, error)


def _case_row(sweep: _Sweep, case: Case) -> dict[str, Any]:
    summary = sweep.references[case.name]["summary"]["all"]
    arms = {arm: summary[arm][sweep.config.metric] for arm in ("before", "control")}
    folder = f"references/{case.name}"
    return {"case": case.name, "capture": case.title, "seed": case.seed, "folder": folder, **arms}


def _space_rows(config: SweepConfig) -> list[dict[str, Any]]:
    tree = {field: to_tree(config.loop) for field in config.space}
    rows = []
    for name, parameter in config.space.items():
        default = tree[name]
        for part in name.split("."):
            default = default[part]
        low, high = (None, None) if parameter.choice is not None else parameter.bounds
        choices = None if parameter.choice is None else list(parameter.choice)
        row = {"field": name, "kind": parameter.kind, "low": low, "high": high, "log": parameter.is_log}
        rows.append({**row, "choices": choices, "when": parameter.when, "default": default})
    return rows


def _reruns(sweep: _Sweep, best: TrialRecord | None) -> dict[str, Any] | None:
    if sweep.reruns is None or best is None:
        return None
    who, metric = f"the best (trial {best.number})", sweep.config.metric
    told = verdict([row for row in sweep.reruns if not row["held_out"]], who.capitalize(), metric)
    unseen = verdict([row for row in sweep.reruns if row["held_out"]], f"On captures that no trial saw, {who}", metric)
    return {
        "seeds": rerun_seeds(sweep.config),
        "rows": sweep.reruns,
        "verdict": None if told is None else asdict(told),
        "held_out": None if unseen is None else asdict(unseen),
    }


def _write_best(sweep: _Sweep, best: TrialRecord, found: LoopConfig) -> None:
    """The best config as `splatfix loop --config` takes it; what is known of it stands above."""
    reruns = _reruns(sweep, best)
    gain = best.objective(sweep.config.objectives[0])
    lines = [f"best of the sweep {sweep.name}: trial {best.number}, {sweep.config.objectives[0]} {_short(gain)}"]
    lines += [told["sentence"] for key in ("verdict", "held_out") if reruns and (told := reruns[key])]
    comment = "".join(f"# {' '.join(line.split())}\n" for line in lines)
    write_text(sweep.run.path / BEST, comment + to_yaml(found))


def _drop_splats(sweep: _Sweep, best: TrialRecord | None) -> None:
    for record in sweep.records:
        if best is None or record.number != best.number:
            for path in trial_folder(sweep.run.path, record.number).glob("*/*.ply"):
                path.unlink()


def _conclude(tracked: TrackedSweep, results: dict[str, Any], out: Path) -> None:
    reruns, best = results["reruns"] or {}, results["best"]
    sentences = [told["sentence"] for key in ("verdict", "held_out") if (told := reruns.get(key))]
    note = f"Best: trial-{best:04d}" if best is not None else "No trial was completed."
    note = "\n\n".join([note, *sentences, "Pictures, the whole page (sweep.html) and best.yaml: under Artifacts."])
    figures = {"trials": float(len(results["trials"]))}
    for key in ("verdict", "held_out"):
        if told := reruns.get(key):
            figures[f"reruns/{key}_difference"] = told["difference"]
    files = [out / name for name in ("sweep.html", BEST, TRIALS, RESULTS) if (out / name).is_file()]
    tracked.concluded(note, figures, best, files)
