"""The loop on one of many cases: a round at a time, with the fits and figures that all runs on the case share."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from splatfix.cameras import Camera
from splatfix.captures.capture import Capture
from splatfix.evaluation.evaluate import evaluate_arms
from splatfix.evaluation.layout import error_path, image_path
from splatfix.evaluation.repairs import RepairRecord, write_repairs
from splatfix.evaluation.results import Results, Summary, read_results
from splatfix.files import read_json, write_json, write_whole
from splatfix.fit import PreparedRun, list_notes
from splatfix.gaussians import read_splat, write_splat
from splatfix.loop.cache import SharedFits
from splatfix.loop.cases import Case, baseline_folder, read_baseline, shared_folder
from splatfix.loop.config import LoopConfig
from splatfix.loop.rounds import repair_rounds
from splatfix.loop.run import LOOP_FILES
from splatfix.records import parse_record
from splatfix.restoration import Restorer, RestorerChoice
from splatfix.restoration.identity import describe_training_overlap
from splatfix.runs import Run
from splatfix.splats.scene import SparseScene
from splatfix.views import Split

ROUNDS = "rounds.json"
SHARED_ARMS = ("before", "control")
CASE_FILES = (*LOOP_FILES, ROUNDS)  # glob patterns of all that a run on a case writes, besides its record


@dataclass(frozen=True, kw_only=True)
class CaseRound:
    """A round of one case: its number from 1, the summary of ``results.json``, and seconds of the loop up to there."""

    round: int
    summary: Summary
    seconds: float


def run_case(
    root: Path, case: Case, config: LoopConfig, restorer: Restorer, prepared: PreparedRun
) -> Iterator[CaseRound]:
    """Run the loop on one case; yields each round once it is measured.

    Rounds that were measured earlier are taken from the folder; interrupted training resumes from its checkpoints.

    Args:
        root: folder of the sweep or comparison, with the baseline of the case.
        case: the capture and seed.
        config: of the loop, for this case (`loop.cases.configure_case`).
        restorer: the open restorer of the config.
        prepared: the run of the case, started by `fit.prepare_run` with `CASE_FILES`.

    Raises:
        ValueError: the case has no baseline.
        FloatingPointError: the fit is no longer finite.
    """
    run, capture, split, scene, device = prepared
    folder = run.path
    baseline = read_baseline(root, case)
    fits = SharedFits(shared_folder(root), run, scene, config)
    before = fits.before(baseline.steps)
    sibling_fits = fits.siblings(baseline.steps)
    siblings = [sibling.splat() for sibling in sibling_fits]
    seconds = baseline.seconds - before.seconds + sum(sibling.seconds for sibling in sibling_fits)
    measured = _read_rounds(folder)
    notes = [*list_notes(capture, config), *describe_training_overlap(config.restorer, case.title)]
    repair_views: list[tuple[int, Camera]] = []
    repairs: list[RepairRecord] = []
    for round_ in repair_rounds(run, scene, before, siblings, restorer, config):
        repair_views += [(round_.number, camera) for camera in round_.cameras]
        repairs += round_.repairs
        seconds += round_.repair_seconds
        if round_.number > len(measured):
            write_splat(folder / "after.ply", round_.fit.splat(), file_from_world=scene.file_from_world)
            if config.repair.compares_with_photos:
                write_repairs(folder, repairs)
            results = _evaluate(run, capture, split, scene, config, baseline_folder(root, case), repair_views)
            run.write_provenance(seed=config.seed, device=device, notes=notes)
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
        {
            arm: read_splat(run.path / f"{arm}.ply", file_from_world=capture.file_from_world).to(device)
            for arm in (*SHARED_ARMS, "after")
        },
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
