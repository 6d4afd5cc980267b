"""Reruns: the default and the best config again, with other seeds and on captures that no trial saw.

The largest of many noisy gains is too optimistic. Reruns are not: they are whole loops, as `splatfix loop` runs
them, with seeds that no trial used.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from splatfix.config import to_public_tree
from splatfix.evaluation.results import Results, read_results
from splatfix.files import read_json, write_json
from splatfix.loop import LoopConfig, run_loop
from splatfix.loop.cases import Case, configure_case, find_cases, silence_loops
from splatfix.loop.run import LOOP_FILES
from splatfix.mirror import Mirror
from splatfix.process import progress
from splatfix.report import write_report
from splatfix.report.sweep.results import RerunFigures, RerunRow
from splatfix.runs import RUN_FILES
from splatfix.shared_folder import check_token
from splatfix.sweep.config import SweepConfig
from splatfix.views import BANDS
from splatfix.workers import Outcome, run_tasks

log = logging.getLogger(__name__)

DONE = "done.json"
RERUN_FILES = (*LOOP_FILES, *RUN_FILES, DONE)  # glob patterns of all that a rerun writes
FIRST_SEED = 101  # above the largest seed of the trials


@dataclass(frozen=True)
class _Task:
    config: Literal["default", "best"]
    case: Case
    held_out: bool
    folder: Path


class _LoopWorker:
    def __init__(self, configs: Mapping[str, LoopConfig], mirror: Mirror, token: str | None) -> None:
        self._configs, self._mirror = configs, mirror
        if token is not None:
            check_token(mirror.place, token)

    def run(self, task: _Task, upcoming: _Task | None) -> Results:  # noqa: ARG002 - of the protocol
        with self._mirror.work_on(_find_part(task, self._mirror)):
            return self._run(task)

    def _run(self, task: _Task) -> Results:
        config = configure_case(self._configs[task.config], task.case)
        done = task.folder / DONE
        if done.is_file() and read_json(done) == to_public_tree(config):
            return read_results(task.folder)
        with silence_loops():
            results = run_loop(task.case.capture, task.folder, config)
            write_report([task.folder])
        write_json(done, to_public_tree(config))
        return results


def _find_part(task: _Task, mirror: Mirror) -> str:
    return task.folder.relative_to(mirror.path).as_posix()


def rerun_seeds(config: SweepConfig) -> list[int]:
    """Seeds that no trial used."""
    first = max(config.seeds) + FIRST_SEED
    return list(range(first, first + config.reruns))


def run_reruns(
    config: SweepConfig, best: LoopConfig, name: str, mirror: Mirror, token: str | None = None
) -> Iterator[list[RerunRow]]:
    """Run all reruns; after each that ends, yields the rows of all pairs so far. ``name`` is the best config's folder.

    A rerun that fails leaves an error in its row. ``token``: that in the sweep's folder, which each worker must see.
    """
    seeds = rerun_seeds(config)
    cases = [(case, False) for case in find_cases(config.captures, seeds)]
    cases += [(case, True) for case in find_cases(config.held_out, seeds)]
    folders: dict[Literal["default", "best"], str] = {"default": "default", "best": name}
    root = mirror.path / "reruns"
    tasks = [
        _Task(config_name, case, held_out, root / folder / ("held_out" if held_out else "") / case.name)
        for case, held_out in cases
        for config_name, folder in folders.items()
    ]
    pairs = list(zip(tasks[::2], tasks[1::2], strict=True))
    outcomes: dict[Path, Outcome[_Task]] = {}
    worker = partial(_LoopWorker, {"default": config.loop, "best": best}, mirror, token)
    with progress(total=len(tasks), description="reruns of the default and the best") as bar:
        for outcome in run_tasks(tasks, worker, config.workers, name=lambda task: str(task.folder)):
            if outcome.error is not None:
                log.warning("%s: %s", outcome.task.folder, outcome.error)
            mirror.pull(_find_part(outcome.task, mirror))
            outcomes[outcome.task.folder] = outcome
            bar.update()
            finished = [pair for pair in pairs if all(task.folder in outcomes for task in pair)]
            yield [_pair_row(pair, outcomes, config.metric) for pair in finished]


def _pair_row(pair: Sequence[_Task], outcomes: Mapping[Path, Outcome[_Task]], metric: str) -> RerunRow:
    case, held_out = pair[0].case, pair[0].held_out
    default, best = (outcomes[task.folder] for task in pair)
    error = default.error or best.error
    if error is not None:
        return RerunRow(capture=case.title, held_out=held_out, seed=case.seed, error=error)
    figures = [rerun_figures(outcome.result, metric) for outcome in (default, best)]
    return RerunRow(
        capture=case.title,
        held_out=held_out,
        seed=case.seed,
        default=figures[0],
        best=figures[1],
        difference=subtract_figures(*figures),
    )


def rerun_figures(results: Results, metric: str) -> RerunFigures:
    """The figures of a rerun."""
    summary = results.summary
    arms = {arm: summary.value("all", arm, metric) for arm in ("before", "control", "after", "gain")}
    return RerunFigures(**arms, **{band: summary.value(band, "gain", metric) for band in BANDS})


def subtract_figures(default: RerunFigures, best: RerunFigures) -> float | None:
    """Gain of the best minus gain of the default, each over its own baseline; None where one of them is unknown."""
    return None if default.gain is None or best.gain is None else best.gain - default.gain
