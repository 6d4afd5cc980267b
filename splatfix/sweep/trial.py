"""One trial: the loop with its settings on every case, a round at a time on all of them."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from splatfix.cameras import Camera
from splatfix.captures.capture import Capture
from splatfix.evaluation.evaluate import evaluate_arms
from splatfix.evaluation.layout import error_path, image_path
from splatfix.evaluation.results import Results, Summary, read_results
from splatfix.files import read_json, write_json, write_whole
from splatfix.fit import prepare
from splatfix.gaussians import read_splat, write_splat
from splatfix.loop import LoopConfig, repair_rounds
from splatfix.loop.cache import SharedFits
from splatfix.loop.run import LOOP_FILES
from splatfix.process import choose_device
from splatfix.records import parse_record
from splatfix.report import write_report
from splatfix.report.sweep.results import CaseFigures
from splatfix.restoration import Restorer, RestorerChoice, open_restorer
from splatfix.runs import RUN_FILES, Run
from splatfix.splats.scene import SparseScene
from splatfix.sweep.cases import Case, baseline_folder, configure_case, read_baseline
from splatfix.sweep.contact_sheet import write_contact_sheet
from splatfix.sweep.parameter import Values
from splatfix.sweep.record import TRIAL, AttemptEnd, RoundRecord, TrialReport, trial_folder
from splatfix.sweep.settings import apply
from splatfix.tracking import TRACKING_FILES
from splatfix.views import BANDS, Split
from splatfix.workers import RunAborted, classify_failure

ROUNDS, PICTURES = "rounds.json", "before-control-after"
SHARED_ARMS = ("before", "control")
TRIAL_FILES = (  # glob patterns of all that a trial writes
    *(TRIAL, "report.html", f"{PICTURES}/*.jpg", *TRACKING_FILES),
    *(f"*/{name}" for name in (*LOOP_FILES, *RUN_FILES, ROUNDS)),
)


@dataclass(frozen=True, kw_only=True)
class CaseRound:
    """A round of one case: its number from 1, the summary of ``results.json``, and seconds of the loop up to there."""

    round: int
    summary: Summary
    seconds: float


def run_trial(
    sweep: Path, number: int, values: Values, default: LoopConfig, cases: Sequence[Case], metric: str
) -> Iterator[TrialReport]:
    """Run a trial; yields each round over all cases, and last how the attempt ended. No exception leaves it.

    Rounds that an earlier attempt measured are taken from the trial's folder; interrupted training resumes from its
    checkpoints. ``metric`` is that of the gains: psnr or ssim.
    """
    end = AttemptEnd(outcome="complete")
    try:
        yield from _run_rounds(trial_folder(sweep, number), apply(default, values), cases, metric, sweep)
    except FloatingPointError as error:
        end = AttemptEnd(outcome="failed", error=str(error))
    except (torch.cuda.OutOfMemoryError, MemoryError) as error:  # other trials may have filled the memory
        end = AttemptEnd(outcome="error", error=f"out of memory: {' '.join(str(error).split())[:300]}")
    except Exception as error:
        try:
            end = AttemptEnd(outcome="error", error=classify_failure(error)[0])
        except RunAborted as disk_full:
            end = AttemptEnd(outcome="disk full", error=str(disk_full))
    yield end


def _run_rounds(
    folder: Path, config: LoopConfig, cases: Sequence[Case], metric: str, sweep: Path
) -> Iterator[RoundRecord]:
    """Run the loop on all cases; yields the figures of each round. Each case has a run folder in the trial's.

    Raises:
        ValueError: the config's restorer cannot be opened.
        FloatingPointError: a fit is no longer finite.
    """
    restorer = open_restorer(config.restorer, device=choose_device(config.device))
    loops = [_run_case(sweep, folder / case.name, case, configure_case(config, case), restorer) for case in cases]
    for case_rounds in zip(*loops, strict=True):
        for case in cases:
            write_contact_sheet(folder / case.name, folder / PICTURES / f"{case.name}.jpg")
        write_report([folder / case.name for case in cases], folder / "report.html")
        yield combine_cases(dict(zip((case.name for case in cases), case_rounds, strict=True)), metric)


def combine_cases(case_rounds: Mapping[str, CaseRound], metric: str) -> RoundRecord:
    """Figures of a round over all cases: means, and the smallest gain; None where a case lacks one."""

    def gains(band: str, of_metric: str = metric) -> dict[str, float | None]:
        return {case: round_.summary.value(band, "gain", of_metric) for case, round_ in case_rounds.items()}

    gain, by_band = gains("all"), {band: gains(band) for band in BANDS}
    known = [value for value in gain.values() if value is not None]
    return RoundRecord(
        round=max(round_.round for round_ in case_rounds.values()),
        gain=_mean(gain.values()),
        gain_worst=min(known) if len(known) == len(gain) else None,
        **{band: _mean(values.values()) for band, values in by_band.items()},
        gain_ssim=_mean(gains("all", "ssim").values()),
        seconds=_mean(round_.seconds for round_ in case_rounds.values()),
        cases={
            case: CaseFigures(
                gain=gain[case],
                **{band: values[case] for band, values in by_band.items()},
                after=round_.summary.value("all", "after", metric),
                seconds=round_.seconds,
            )
            for case, round_ in case_rounds.items()
        },
        time_ms=round(time.time() * 1000),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    found = list(values)
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known and len(known) == len(found) else None


def _run_case(sweep: Path, folder: Path, case: Case, config: LoopConfig, restorer: Restorer) -> Iterator[CaseRound]:
    """Run the loop on one case; yields each round once it is measured."""
    run, capture, split, scene, device = prepare(
        Path(case.capture), folder, config, command="sweep", files=(*LOOP_FILES, ROUNDS)
    )
    baseline = read_baseline(sweep, case)
    fits = SharedFits(sweep / "shared", run, scene, config)
    before = fits.before(baseline.steps)
    sibling_fits = fits.siblings(baseline.steps)
    siblings = [sibling.splat() for sibling in sibling_fits]
    seconds = baseline.seconds - before.seconds + sum(sibling.seconds for sibling in sibling_fits)
    measured = _read_rounds(folder)
    repair_views: list[tuple[int, Camera]] = []
    for round_ in repair_rounds(run, scene, before, siblings, restorer, config):
        repair_views += [(round_.number, camera) for camera in round_.cameras]
        seconds += round_.repair_seconds
        if round_.number > len(measured):
            write_splat(folder / "after.ply", round_.fit.splat())
            results = _evaluate(run, capture, split, scene, config, baseline_folder(sweep, case), repair_views)
            run.write_provenance(seed=config.seed, device=device, notes=list(capture.notes))
            psnr = results.summary.value("all", "after", "psnr")
            if psnr is None or not math.isfinite(psnr):
                raise FloatingPointError(f"{case.name}, round {round_.number}: PSNR of after = {psnr}")
            total = round(seconds + round_.fit.seconds, 3)
            measured.append(CaseRound(round=round_.number, summary=results.summary, seconds=total))
            write_json(folder / ROUNDS, [asdict(known) for known in measured])
        yield measured[round_.number - 1]


def _read_rounds(folder: Path) -> list[CaseRound]:
    path = folder / ROUNDS
    if not path.is_file():
        return []
    return [parse_record(CaseRound, tree, source=str(path), remedy=f"delete {folder}") for tree in read_json(path)]


def _evaluate(
    run: Run,
    capture: Capture,
    split: Split,
    scene: SparseScene,
    config: LoopConfig,
    baseline: Path,
    repair_views: Sequence[tuple[int, Camera]],
) -> Results:
    """Measure ``after.ply``; files and figures of ``before`` and ``control`` are those of the baseline."""
    for arm in SHARED_ARMS:
        _link_or_copy(baseline / f"{arm}.ply", run.path / f"{arm}.ply")
    known = read_results(baseline)
    for view in known.views:
        for arm in SHARED_ARMS:
            _link_or_copy(image_path(baseline, view.name, arm), image_path(run.path, view.name, arm))
            _link_or_copy(error_path(baseline, view.name, arm), error_path(run.path, view.name, arm))
    device = scene.photos[0].device
    return evaluate_arms(
        run,
        capture,
        split,
        {arm: read_splat(run.path / f"{arm}.ply").to(device) for arm in (*SHARED_ARMS, "after")},
        restorer=None,
        restorer_name=RestorerChoice.of(config.restorer).name,
        seed=config.seed,
        num_references=0,
        video=False,
        scene=scene,
        repair_views=repair_views,
        known=known,
    )


def _link_or_copy(source: Path, target: Path) -> None:
    """Make a file appear whole in a second place: as a hard link where the disk can do that, else as a copy."""
    if target.exists() or not source.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with write_whole(target) as temporary:
            shutil.copyfile(source, temporary)


def prune_trial(sweep: Path, number: int, *, keep_splats: bool) -> None:
    """Delete the checkpoints of a trial that has ended, and its splats unless they are kept."""
    for folder in trial_folder(sweep, number).glob("*/checkpoints"):
        shutil.rmtree(folder, ignore_errors=True)
    for splat in () if keep_splats else trial_folder(sweep, number).glob("*/*.ply"):
        splat.unlink(missing_ok=True)
