"""The default and the best config once more, with other seeds and on captures that no trial saw.

A search takes the largest of many noisy figures, which flatters it; these runs do not: they are whole loops, as
`splatfix loop` does them, with seeds that the trials did not use.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from splatfix.config import to_tree
from splatfix.evaluation.results import Results, read_results
from splatfix.files import read_json, write_json
from splatfix.loop import LoopConfig, run_loop
from splatfix.process import progress
from splatfix.report import write_report
from splatfix.sweep.analysis import rerun_row
from splatfix.sweep.cases import Case, find_cases, of_case, silently
from splatfix.sweep.config import SweepConfig
from splatfix.workers import Outcome, run_tasks

log = logging.getLogger(__name__)

DONE = "done.json"


@dataclass(frozen=True)
class _Rerun:
    side: str  # default or best
    case: Case
    held_out: bool
    folder: Path


class _LoopWorker:
    def __init__(self, configs: Mapping[str, LoopConfig]) -> None:
        self._configs = configs

    def run(self, task: _Rerun, upcoming: _Rerun | None) -> Results:  # noqa: ARG002 - of the protocol
        config = of_case(self._configs[task.side], task.case)
        done = task.folder / DONE
        if done.is_file() and read_json(done) == to_tree(config):
            return read_results(task.folder)
        with silently():
            results = run_loop(Path(task.case.capture), task.folder, config, resume=True)
            write_report([task.folder])
        write_json(done, to_tree(config))
        return results


def rerun_seeds(config: SweepConfig) -> list[int]:
    """Seeds that no trial used."""
    first = max(config.seeds) + 101
    return list(range(first, first + config.reruns))


def rerun(config: SweepConfig, best: LoopConfig, name: str, sweep: Path) -> Iterator[list[dict[str, Any]]]:
    """Run them; yields all rows again as they grow: of each capture and seed `outcome.rerun_row`, or an error.

    ``name`` is the folder's of the best.
    """
    seeds = rerun_seeds(config)
    cases = [(case, False) for case in find_cases(config.captures, seeds)]
    cases += [(case, True) for case in find_cases(config.held_out, seeds)]
    sides = {"default": "default", "best": name}
    tasks = [
        _Rerun(side, case, held_out, sweep / "reruns" / folder / ("held_out" if held_out else "") / case.name)
        for case, held_out in cases
        for side, folder in sides.items()
    ]
    outcomes: dict[Path, Outcome[_Rerun]] = {}
    worker = partial(_LoopWorker, {"default": config.loop, "best": best})
    with progress(total=len(tasks), description="reruns of the default and the best") as bar:
        for outcome in run_tasks(tasks, worker, config.workers, name=lambda task: str(task.folder)):
            if outcome.error is not None:
                log.warning("%s: %s", outcome.task.folder, outcome.error)
            outcomes[outcome.task.folder] = outcome
            bar.update()
            pairs = zip(tasks[::2], tasks[1::2], strict=True)
            yield [
                _row(pair, outcomes, config.metric) for pair in pairs if all(task.folder in outcomes for task in pair)
            ]


def _row(pair: Sequence[_Rerun], outcomes: Mapping[Path, Outcome[_Rerun]], metric: str) -> dict[str, Any]:
    case = {"capture": pair[0].case.title, "held_out": pair[0].held_out, "seed": pair[0].case.seed}
    default, best = (outcomes[task.folder] for task in pair)
    errors = [outcome.error for outcome in (default, best) if outcome.error is not None]
    if errors:
        return {**case, "default": {}, "best": {}, "difference": None, "error": errors[0]}
    return {**case, **rerun_row(default.result, best.result, metric), "error": None}
