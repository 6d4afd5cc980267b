"""The driver of a comparison: baselines of all cases, then every restorer on every case, and the files with results."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from splatfix.compare.config import CompareConfig, resolve_paths
from splatfix.compare.entry import (
    ENTRY_FILES,
    EntryTask,
    EntryWorker,
    entry_identity,
    label_restorers,
    read_entry,
)
from splatfix.compare.mlflow_runs import TRACKING_PATTERNS, CompareTracker
from splatfix.evaluation.results import Results, read_results
from splatfix.lease import hold_lease
from splatfix.loop.cases import (
    BASELINE_FILES,
    BASELINES,
    SHARED,
    Case,
    baseline_folder,
    configure_case,
    find_cases,
    fit_baselines,
)
from splatfix.mirror import TOP, Mirror, open_mirror
from splatfix.process import progress
from splatfix.report.compare.page import write_compare_page
from splatfix.report.compare.results import (
    COMPARE,
    PAGE,
    CompareCase,
    CompareResults,
    Entry,
    RestorerResult,
    State,
    write_compare,
)
from splatfix.restoration import RestorerChoice, restorer_options
from splatfix.restoration.setting import RestorerSetting
from splatfix.runs import Run, open_run
from splatfix.shared_folder import refuse_relative_output, shared_token
from splatfix.stages import Stage, StagePlan
from splatfix.tracking import end_status
from splatfix.workers import RunAborted, run_tasks, runs_in_process, workers_for_device

log = logging.getLogger(__name__)

MAY_CHANGE = ("workers", "tracking", "restorers", "seeds", "captures")  # each entry has its own identity
COMPARE_FILES = (  # glob patterns of all that a comparison writes, besides MLflow's database
    *(COMPARE, PAGE, *TRACKING_PATTERNS, "shared/*/*.pt"),
    *(f"{BASELINES}/*/{name}" for name in BASELINE_FILES),
    *(f"*/*/{name}" for name in ENTRY_FILES),
)


def run_compare(config: CompareConfig, out: Path | str, *, fresh: bool = False) -> CompareResults:
    """Compare restorers on captures, and write the folder of the comparison; returns what ``compare.json`` holds.

    An interrupted comparison in the folder is resumed. Further restorers, captures and seeds may be added: finished
    entries are kept.

    Args:
        config: the comparison.
        out: folder, on a cluster one that every node sees, or a URL of an object store.
        fresh: start over.

    Raises:
        ValueError: a setting, a restorer or a capture is not usable, or ``out`` holds another run; nothing was started.
        RunAborted: no further entry can work, or some have failed (the others are kept).
    """
    refuse_relative_output(out)
    mirror = open_mirror(out)
    config = resolve_paths(config)
    config = replace(config, workers=workers_for_device(config.workers, config.loop.device))
    labels = label_restorers(config.restorers)
    for setting in labels.values():
        restorer_options(setting)  # an unknown name or option is an error before the first fit
    if not config.captures:
        raise ValueError("captures: none given; wanted at least one folder of posed photos")
    cases = find_cases(config.captures, config.seeds)
    with hold_lease(mirror.place, "splatfix compare"), mirror.name_errors():
        mirror.pull(skip=[] if fresh else [SHARED])
        run = open_run(
            mirror.path,
            config,
            command="compare",
            may_change=MAY_CHANGE,
            files=COMPARE_FILES,
            is_complete=False,
            fresh=fresh,
        )
        mirror.begin()
        on_nodes = nullcontext(None) if runs_in_process(config.workers) else shared_token(mirror.place)
        with mirror.drive(), CompareTracker(config, mirror.path) as tracker, on_nodes as token:
            return _run_entries(config, run, mirror, cases, labels, tracker, token)


def _run_entries(
    config: CompareConfig,
    run: Run,
    mirror: Mirror,
    cases: Sequence[Case],
    labels: Mapping[str, RestorerSetting],
    tracker: CompareTracker,
    token: str | None,
) -> CompareResults:
    tasks = [EntryTask(label, setting, case) for label, setting in labels.items() for case in cases]
    entries = {task.name: entry for task in tasks if (entry := _find_entry(config, run.path, task)) is not None}
    pending = [task for task in tasks if task.name not in entries]
    for task in tasks:
        if task.name in entries and end_status(run.path / entries[task.name].folder) is None:  # killed before it was
            tracker.add(task, entries[task.name])
    run.plan = StagePlan(
        [
            Stage("baselines", f"sparse fit and control of each capture and seed, {len(cases)} in all", {}),
            Stage("entries", f"{len(labels)} restorers on each: frames, drift, and a loop", {}),
        ]
    )
    with run.stage("baselines"):
        waiting = [case for case in cases if any(task.case == case for task in pending)]
        if waiting:
            fit_baselines(waiting, config.loop, config.workers, mirror, command="compare", token=token)

    def write(state: State) -> CompareResults:
        results = _collect(run, cases, labels, entries, state)
        write_compare(run.path, results)
        write_compare_page(run.path)
        mirror.push(TOP)
        return results

    write("running")
    with run.stage("entries"), progress(total=len(tasks), initial=len(entries), description="restorers") as bar:
        worker = partial(EntryWorker, config, mirror, token)
        for outcome in run_tasks(pending, worker, config.workers, name=lambda task: task.name) if pending else ():
            entry = outcome.result
            part = f"{outcome.task.label}/{outcome.task.case.name}"
            mirror.pull(part)
            if outcome.error is not None:
                log.warning("%s: %s", outcome.task.name, outcome.error)
                entry = Entry(case=outcome.task.case.name, folder=part, error=outcome.error)
            entries[outcome.task.name] = entry
            tracker.add(outcome.task, entry)
            mirror.push(part)
            write("running")
            bar.update()
    failed = [f"{name}: {entry.error}" for name, entry in entries.items() if entry.error is not None]
    results = write("running" if failed else "finished")
    tracker.conclude(results)
    if failed:
        raise RunAborted(
            f"{len(failed)} of {len(tasks)} failed, and {PAGE} shows the others; the first was {failed[0]}"
        )
    run.write_provenance(seed=config.seeds[0], device=torch.device("cpu"), role="driver")
    return results


def _find_entry(config: CompareConfig, out: Path, task: EntryTask) -> Entry | None:
    loop = configure_case(replace(config.loop, restorer=task.restorer), task.case)
    return read_entry(out / task.label / task.case.name, entry_identity(task, loop, config.path_frames))


def _collect(
    run: Run,
    cases: Sequence[Case],
    labels: Mapping[str, RestorerSetting],
    entries: Mapping[str, Entry],
    state: State,
) -> CompareResults:
    baselines = {case.name: read_results(baseline_folder(run.path, case)) for case in cases}
    reasons = {name: why for results in baselines.values() for name, why in results.reasons.items()}
    reasons |= {name: why for entry in entries.values() for name, why in entry.reasons.items()}
    restorers = []
    for label, setting in labels.items():
        choice = RestorerChoice.of(setting)
        own = [entries[name] for case in cases if (name := f"{label}/{case.name}") in entries]
        restorers.append(RestorerResult(label=label, restorer=choice.name, options=choice.options, entries=tuple(own)))
    return CompareResults(
        state=state,
        cases=tuple(_describe_case(run.path, case, baselines[case.name]) for case in cases),
        restorers=tuple(restorers),
        seconds={name: round(value, 2) for name, value in run.seconds.items()},
        reasons=reasons,
    )


def _describe_case(out: Path, case: Case, baseline: Results) -> CompareCase:
    return CompareCase(
        case=case.name,
        capture=case.title,
        seed=case.seed,
        folder=str(baseline_folder(out, case).relative_to(out)),
        before=baseline.summary.value("all", "before", "psnr"),
        control=baseline.summary.value("all", "control", "psnr"),
    )
