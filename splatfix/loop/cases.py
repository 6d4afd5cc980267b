"""Cases: captures with seeds that many loops run on, and the baseline of each: ``before`` and ``control``.

A sweep runs all of its trials on the same cases, and a comparison all of its restorers. Each has a folder that holds
the baselines and the fits that its loops share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from splatfix.captures import is_remote, name_capture, resolve_capture
from splatfix.evaluation.evaluate import evaluate_arms
from splatfix.evaluation.results import RESULTS, Results, read_results
from splatfix.files import read_json, write_json
from splatfix.fit import choose_steps, list_notes, prepare_run
from splatfix.gaussians import write_splat
from splatfix.loop.baselines import fit_control_again
from splatfix.loop.cache import SharedFits
from splatfix.loop.config import LoopConfig, ValidationConfig
from splatfix.loop.run import LOOP_FILES
from splatfix.mirror import Mirror
from splatfix.process import hidden_bars, progress, quiet
from splatfix.records import parse_record
from splatfix.runs import RUN_FILES
from splatfix.shared_folder import check_token
from splatfix.splats.scene import fit_identity
from splatfix.workers import WorkersConfig, run_tasks

BASELINES, BASELINE, SHARED = "baselines", "baseline.json", "shared"  # names on disk
BASELINE_FILES = (*LOOP_FILES, *RUN_FILES, BASELINE)  # glob patterns of all that a baseline writes


@dataclass(frozen=True)
class Case:
    """A capture with a seed.

    Attributes:
        name: unique among the cases, and safe for a folder.
        title: of the capture.
        capture: its path or URL.
        seed: of the loop.
    """

    name: str
    title: str
    capture: str
    seed: int


def find_cases(captures: Sequence[str], seeds: Sequence[int]) -> list[Case]:
    """Every capture with every seed. ValueError where a capture does not exist, or is given twice."""
    cases, titles = [], set[str]()
    paths = [resolve_capture(capture) for capture in captures]
    names = [name_capture(path) for path in paths]
    for capture, path, name in zip(captures, paths, names, strict=True):
        if not is_remote(path) and not Path(path).exists():
            raise ValueError(f"captures: {capture}: no such folder or file")
        if paths.count(path) > 1:
            raise ValueError(f"captures: {capture}: is given twice")
        is_ambiguous, number, title = names.count(name) > 1, 1, name
        while title in titles or (is_ambiguous and title == name):
            title, number = f"{name}-{number}", number + 1
        titles.add(title)
        cases += [Case(f"{title}-s{seed}", title, path, seed) for seed in seeds]
    return cases


def configure_case(config: LoopConfig, case: Case) -> LoopConfig:
    """The loop's config for a case: with its seed, no video, and all rounds, whose gains are compared."""
    return replace(config, seed=case.seed, video=False, validate=ValidationConfig())


@contextmanager
def silence_loops() -> Iterator[None]:
    """Hide the progress bars and log lines of single loops, where many run."""
    with hidden_bars(), quiet("splatfix"):
        yield


@dataclass(frozen=True)
class Baseline:
    """The baseline of a case: identity of its fit, steps of the sparse fit, and the seconds that this one took."""

    identity: str
    steps: int
    seconds: float


def baseline_folder(root: Path, case: Case) -> Path:
    """The run folder of a case's baseline, in the folder of a sweep or comparison."""
    return root / baseline_part(case)


def baseline_part(case: Case) -> str:
    """The part of a mirror that holds a case's baseline."""
    return f"{BASELINES}/{case.name}"


def shared_folder(root: Path) -> Path:
    """Where the loops of a sweep or comparison share their fits."""
    return root / SHARED


def read_baseline(root: Path, case: Case) -> Baseline:
    """The baseline of a case. ValueError where it does not exist."""
    folder = baseline_folder(root, case)
    baseline = _read_baseline(folder)
    if baseline is None:
        raise ValueError(f"{folder}: no {BASELINE}; run the command again, which makes it")
    return baseline


def _read_baseline(folder: Path) -> Baseline | None:
    path = folder / BASELINE
    if not path.is_file() or not (folder / RESULTS).is_file():
        return None
    return parse_record(Baseline, read_json(path), source=str(path), remedy=f"delete {folder}")


def fit_baseline(case: Case, default: LoopConfig, root: Path, *, command: str) -> Results:
    """Fit and measure ``before`` and ``control`` of a case with the default config.

    A baseline that is in its folder already is returned as it is.

    Args:
        case: the capture and seed.
        default: config of the loop.
        root: folder of the sweep or comparison.
        command: that runs, for the record of the baseline's folder.

    Raises:
        ValueError: the baseline in its folder is of other photos or settings, or no photo is left to test on.
    """
    config = configure_case(default, case)
    folder = baseline_folder(root, case)
    run, capture, split, scene, device = prepare_run(
        case.capture, folder, config, command=command, files=(*LOOP_FILES, BASELINE)
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
    fits = SharedFits(shared_folder(root), run, scene, config)
    before, control = fits.before(steps), fits.control(steps)
    again = fit_control_again(run, scene, before, config) if config.repeats_control(device) else None
    arms = {"before": before.splat(), "control": control.splat()}
    for name, splat in arms.items():
        write_splat(run.path / f"{name}.ply", splat, file_from_world=scene.file_from_world)
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
        control_again=again,
    )
    run.write_provenance(seed=config.seed, device=device, notes=list_notes(capture, config))
    seconds = round(run.seconds["choose"] + before.seconds, 3)
    write_json(run.path / BASELINE, asdict(Baseline(identity, steps, seconds)))
    return results


class _BaselineWorker:
    def __init__(self, default: LoopConfig, mirror: Mirror, command: str, token: str | None) -> None:
        self._default, self._mirror, self._command = default, mirror, command
        if token is not None:
            check_token(mirror.place, token)

    def run(self, task: Case, upcoming: Case | None) -> Results:  # noqa: ARG002 - of the protocol
        root = self._mirror.path
        with self._mirror.work_on(baseline_part(task), shared=SHARED), silence_loops():
            return fit_baseline(task, self._default, root, command=self._command)


def fit_baselines(
    cases: Sequence[Case],
    default: LoopConfig,
    workers: WorkersConfig,
    mirror: Mirror,
    *,
    command: str,
    token: str | None = None,
) -> dict[str, Results]:
    """Measure the baselines of all cases on workers; returns the results of each by case name.

    They are in the folder of a sweep or comparison, ``mirror``, afterwards. ``token``: what the driver wrote there
    (`shared_folder`), which each worker must see.

    Raises:
        ValueError: one of them failed; the message names its capture.
    """
    results = {}
    worker = partial(_BaselineWorker, default, mirror, command, token)
    with progress(total=len(cases), description="sparse fits and controls") as bar:
        for outcome in run_tasks(cases, worker, workers, name=lambda case: case.name):
            if outcome.error is not None:
                raise ValueError(f"{outcome.task.capture}: {outcome.error}")
            results[outcome.task.name] = outcome.result
            mirror.pull(baseline_part(outcome.task))
            bar.update()
    return {case.name: results[case.name] for case in cases}
