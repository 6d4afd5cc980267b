"""Cases: the captures and seeds that every trial runs on, and what its gain on each is measured against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from splatfix.evaluation.evaluate import evaluate_arms
from splatfix.evaluation.results import RESULTS, Results, read_results
from splatfix.files import read_json, write_json
from splatfix.fit import choose_steps, prepare
from splatfix.gaussians import write_ply
from splatfix.loop import LoopConfig
from splatfix.loop.cache import SharedFits
from splatfix.process import hidden_bars, progress, quiet
from splatfix.splats.scene import fit_identity
from splatfix.sweep.config import SweepConfig
from splatfix.workers import run_tasks

REFERENCE = "reference.json"


@dataclass(frozen=True)
class Case:
    """A capture and a seed; its name is unique in the sweep, and safe for a folder."""

    name: str
    title: str
    capture: str
    seed: int


def find_cases(captures: Sequence[str], seeds: Sequence[int]) -> list[Case]:
    """Every capture with every seed. ValueError where a capture is not there, or stands twice."""
    cases, titles = [], set[str]()
    places = [Path(capture).resolve() for capture in captures]
    for capture, place in zip(captures, places, strict=True):
        if not place.exists():
            raise ValueError(f"captures: {capture}: no such folder or file")
        if places.count(place) > 1:
            raise ValueError(f"captures: {capture}: stands there twice")
        alike, number, title = [other.name for other in places].count(place.name) > 1, 1, place.name
        while title in titles or (alike and title == place.name):
            title, number = f"{place.name}-{number}", number + 1
        titles.add(title)
        cases += [Case(f"{title}-s{seed}", title, str(place), seed) for seed in seeds]
    return cases


@contextmanager
def silently() -> Iterator[None]:
    """Without the bars and lines of each of many loops."""
    with hidden_bars(), quiet("splatfix"):
        yield


def of_case(config: LoopConfig, case: Case) -> LoopConfig:
    """The loop's config on a case: its seed, and no video."""
    return replace(config, seed=case.seed, video=False)


def reference_folder(sweep: Path, case: Case) -> Path:
    return sweep / "references" / case.name


@dataclass(frozen=True)
class Reference:
    """The sparse fit of a case: what it is a fit of, for how many steps, and the seconds that it takes."""

    identity: str
    steps: int
    seconds: float


def make_reference(case: Case, default: LoopConfig, sweep: Path) -> Results:
    """Make ``before`` and ``control`` of a case with the default config, as a run folder; returns its results.

    What is there already is kept, unless it is of other photos or settings.
    """
    config = of_case(default, case)
    run, capture, split, scene, device = prepare(Path(case.capture), reference_folder(sweep, case), config, resume=True)
    identity = fit_identity(
        scene,
        initial=config.initial,
        fit=config.fit,
        seed=config.seed,
        choose=config.choose,
        repair_steps=config.repair.num_steps,
    )
    held = _read_reference(run.path)
    if held is not None and held.identity == identity:
        return read_results(run.path)
    if not split.test_ids:
        raise ValueError("no photo is left to test on; ask for fewer training photos (views.num_train)")
    steps = choose_steps(run, scene, config)
    fits, arms = SharedFits(sweep / "shared"), {}
    before = fits.at(run, scene, config, seed=config.seed, step=steps)
    control = fits.at(run, scene, config, seed=config.seed, step=steps + config.repair.num_steps)
    for name, fit in (("before", before), ("control", control)):
        arms[name] = fit.gaussians().detach()
        write_ply(run.path / f"{name}.ply", arms[name])
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
        mode=config.fit.mode,
        scene=scene,
    )
    run.write_provenance(command="sweep", seed=config.seed, device=device, notes=list(capture.notes))
    seconds = round(run.seconds["choose"] + before.seconds, 3)
    write_json(run.path / REFERENCE, {"identity": identity, "steps": steps, "seconds": seconds})
    return results


def read_reference(sweep: Path, case: Case) -> Reference:
    """The reference of a case, which has been made. ValueError where it is not there."""
    folder = reference_folder(sweep, case)
    held = _read_reference(folder)
    if held is None:
        raise ValueError(f"{folder}: no {REFERENCE}; run the sweep again with --resume")
    return held


def _read_reference(folder: Path) -> Reference | None:
    path = folder / REFERENCE
    return Reference(**read_json(path)) if path.is_file() and (folder / RESULTS).is_file() else None


class _ReferenceWorker:
    def __init__(self, default: LoopConfig, sweep: Path) -> None:
        self._default, self._sweep = default, sweep

    def run(self, task: Case, upcoming: Case | None) -> Results:  # noqa: ARG002 - of the protocol
        with silently():
            return make_reference(task, self._default, self._sweep)


def make_references(cases: Sequence[Case], config: SweepConfig, sweep: Path) -> dict[str, Results]:
    """Make the references of all cases; returns their results by the names of the cases.

    Raises:
        ValueError: one of them cannot be made; the message names its capture.
    """
    made = {}
    worker = partial(_ReferenceWorker, config.loop, sweep)
    with progress(total=len(cases), description="sparse fits and controls") as bar:
        for outcome in run_tasks(cases, worker, config.workers, name=lambda case: case.name):
            if outcome.error is not None:
                raise ValueError(f"{outcome.task.capture}: {outcome.error}")
            made[outcome.task.name] = outcome.result
            bar.update()
    return {case.name: made[case.name] for case in cases}
