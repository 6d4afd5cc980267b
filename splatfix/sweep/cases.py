"""Cases: the captures and seeds that every trial runs on, and the baseline of each: ``before`` and ``control``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from splatfix.evaluation.evaluate import evaluate_arms
from splatfix.evaluation.results import RESULTS, Results, read_results
from splatfix.files import read_json, write_json
from splatfix.fit import choose_steps, prepare
from splatfix.gaussians import write_splat
from splatfix.loop import LoopConfig
from splatfix.loop.cache import SharedFits
from splatfix.loop.run import LOOP_FILES
from splatfix.process import hidden_bars, progress, quiet
from splatfix.records import parse_record
from splatfix.runs import RUN_FILES
from splatfix.splats.scene import fit_identity
from splatfix.sweep.config import SweepConfig
from splatfix.workers import run_tasks

BASELINES, BASELINE = "references", "reference.json"  # names on disk
BASELINE_FILES = (*LOOP_FILES, *RUN_FILES, BASELINE)  # glob patterns of all that a baseline writes


@dataclass(frozen=True)
class Case:
    """A capture with a seed.

    Attributes:
        name: unique in the sweep, and safe for a folder.
        title: of the capture.
        capture: its path.
        seed: of the loop.
    """

    name: str
    title: str
    capture: str
    seed: int


def find_cases(captures: Sequence[str], seeds: Sequence[int]) -> list[Case]:
    """Every capture with every seed. ValueError where a capture does not exist, or is given twice."""
    cases, titles = [], set[str]()
    paths = [Path(capture).resolve() for capture in captures]
    for capture, path in zip(captures, paths, strict=True):
        if not path.exists():
            raise ValueError(f"captures: {capture}: no such folder or file")
        if paths.count(path) > 1:
            raise ValueError(f"captures: {capture}: is given twice")
        is_ambiguous, number, title = [other.name for other in paths].count(path.name) > 1, 1, path.name
        while title in titles or (is_ambiguous and title == path.name):
            title, number = f"{path.name}-{number}", number + 1
        titles.add(title)
        cases += [Case(f"{title}-s{seed}", title, str(path), seed) for seed in seeds]
    return cases


def configure_case(config: LoopConfig, case: Case) -> LoopConfig:
    """The loop's config for a case: with its seed, and no video."""
    return replace(config, seed=case.seed, video=False)


@contextmanager
def silence_loops() -> Iterator[None]:
    """Hide the progress bars and log lines of single loops: a sweep runs many."""
    with hidden_bars(), quiet("splatfix"):
        yield


@dataclass(frozen=True)
class Baseline:
    """The baseline of a case: identity of its fit, steps of the sparse fit, and the seconds that this one took."""

    identity: str
    steps: int
    seconds: float


def baseline_folder(sweep: Path, case: Case) -> Path:
    """The run folder of a case's baseline."""
    return sweep / BASELINES / case.name


def read_baseline(sweep: Path, case: Case) -> Baseline:
    """The baseline of a case. ValueError where it does not exist."""
    folder = baseline_folder(sweep, case)
    baseline = _read_baseline(folder)
    if baseline is None:
        raise ValueError(f"{folder}: no {BASELINE}; run the sweep again, which makes it")
    return baseline


def _read_baseline(folder: Path) -> Baseline | None:
    path = folder / BASELINE
    if not path.is_file() or not (folder / RESULTS).is_file():
        return None
    return parse_record(Baseline, read_json(path), source=str(path), remedy=f"delete {folder}")


def measure_baseline(case: Case, default: LoopConfig, sweep: Path) -> Results:
    """Fit and measure ``before`` and ``control`` of a case with the default config.

    A baseline that is in its folder already is returned as it is.

    Raises:
        ValueError: the baseline in its folder is of other photos or settings, or no photo is left to test on.
    """
    config = configure_case(default, case)
    folder = baseline_folder(sweep, case)
    run, capture, split, scene, device = prepare(
        Path(case.capture), folder, config, command="sweep", files=(*LOOP_FILES, BASELINE)
    )
    identity = fit_identity(
        scene,
        initial=config.initial,
        fit=config.fit,
        seed=config.seed,
        choose=config.choose,
        repair_steps=config.repair.num_steps,
    )
    known = _read_baseline(run.path)
    if known is not None and known.identity == identity:
        return read_results(run.path)
    if not split.test_ids:
        raise ValueError("no photo is left to test on; ask for fewer training photos (views.num_train)")
    steps = choose_steps(run, scene, config)
    fits = SharedFits(sweep / "shared", run, scene, config)
    before, control = fits.before(steps), fits.control(steps)
    arms = {"before": before.splat(), "control": control.splat()}
    for name, splat in arms.items():
        write_splat(run.path / f"{name}.ply", splat)
    results = evaluate_arms(
        run,
        capture,
        split,
        arms,
        restorer=None,
        restorer_name=None,
        seed=config.seed,
        num_references=0,
        video=False,
        scene=scene,
    )
    run.write_provenance(seed=config.seed, device=device, notes=list(capture.notes))
    seconds = round(run.seconds["choose"] + before.seconds, 3)
    write_json(run.path / BASELINE, asdict(Baseline(identity, steps, seconds)))
    return results


class _BaselineWorker:
    def __init__(self, default: LoopConfig, sweep: Path) -> None:
        self._default, self._sweep = default, sweep

    def run(self, task: Case, upcoming: Case | None) -> Results:  # noqa: ARG002 - of the protocol
        with silence_loops():
            return measure_baseline(task, self._default, self._sweep)


def measure_baselines(cases: Sequence[Case], config: SweepConfig, sweep: Path) -> dict[str, Results]:
    """Measure the baselines of all cases on the sweep's workers; returns the results of each by case name.

    Raises:
        ValueError: one of them failed; the message names its capture.
    """
    results = {}
    worker = partial(_BaselineWorker, config.loop, sweep)
    with progress(total=len(cases), description="sparse fits and controls") as bar:
        for outcome in run_tasks(cases, worker, config.workers, name=lambda case: case.name):
            if outcome.error is not None:
                raise ValueError(f"{outcome.task.capture}: {outcome.error}")
            results[outcome.task.name] = outcome.result
            bar.update()
    return {case.name: results[case.name] for case in cases}
