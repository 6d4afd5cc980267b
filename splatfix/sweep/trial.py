"""One trial: the loop with its settings on every case, a round at a time on all of them."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from splatfix.cameras import Camera
from splatfix.captures.capture import Capture
from splatfix.evaluation.evaluate import evaluate_arms
from splatfix.evaluation.layout import error_path, image_path
from splatfix.evaluation.results import Results, Summary, read_results
from splatfix.files import read_json, write_json, write_whole
from splatfix.fit import prepare, sibling_seed
from splatfix.gaussians import read_ply, write_ply
from splatfix.images import read_image, write_image
from splatfix.loop import LoopConfig, repair_rounds
from splatfix.loop.cache import SharedFits
from splatfix.process import choose_device
from splatfix.report import write_report
from splatfix.report.selection import telling_views
from splatfix.restoration import Restorer, open_restorer
from splatfix.runs import Run
from splatfix.splats.scene import SparseScene
from splatfix.sweep.cases import Case, of_case, read_reference, reference_folder
from splatfix.sweep.space import Values, apply
from splatfix.views import BANDS, Split
from splatfix.workers import RunAborted, classify_failure

ROUNDS, PICTURES = "rounds.json", "before-control-after"
SHARED_ARMS = ("before", "control")


def trial_folder(sweep: Path, number: int) -> Path:
    return sweep / "trials" / f"{number:04d}"


def trial_rounds(
    sweep: Path, number: int, config: LoopConfig, cases: Sequence[Case], metric: str
) -> Iterator[dict[str, Any]]:
    """Run the loop on all cases, a round at a time; yields the figures of each round over all cases.

    Rounds that were measured before are taken from the trial's folder, and what was under way goes on from its
    checkpoints. Each case's folder is a run folder, with ``before`` and ``control`` of its reference.

    Args:
        metric: of the gain: psnr or ssim.

    Raises:
        ValueError: the config's restorer cannot be opened.
        FloatingPointError: a fit is no longer finite.
    """
    folder = trial_folder(sweep, number)
    restorer = open_restorer(config.restorer, device=choose_device(config.device))
    under_way = [_case_rounds(sweep, folder / case.name, case, of_case(config, case), restorer) for case in cases]
    for made in zip(*under_way, strict=True):
        figures = dict(zip((case.name for case in cases), made, strict=True))
        for case in cases:
            _write_pictures(folder, case)
        write_report([folder / case.name for case in cases], folder / "report.html")
        yield combined(figures, metric)


def combined(figures: Mapping[str, Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """Figures of a round over all cases: means, and the worst gain; None where a case has none."""

    def gains_of(band: str, of_metric: str) -> dict[str, float | None]:
        return {case: held["summary"].value(band, "gain", of_metric) for case, held in figures.items()}

    gains = gains_of("all", metric)
    by_band = {band: gains_of(band, metric) for band in BANDS}
    known = [gain for gain in gains.values() if gain is not None]
    return {
        "round": max(held["round"] for held in figures.values()),
        "gain": _mean(gains.values()),
        "gain_worst": min(known) if len(known) == len(gains) else None,
        **{band: _mean(found.values()) for band, found in by_band.items()},
        "gain_ssim": _mean(gains_of("all", "ssim").values()),
        "seconds": _mean(held["seconds"] for held in figures.values()),
        "cases": {
            case: {
                "gain": gains[case],
                **{band: by_band[band][case] for band in BANDS},
                "after": held["summary"].value("all", "after", metric),
                "seconds": held["seconds"],
            }
            for case, held in figures.items()
        },
        "time_ms": round(time.time() * 1000),
    }


def _mean(values: Any) -> float | None:
    values = list(values)
    return None if None in values or not values else float(np.mean(values))


def _case_rounds(
    sweep: Path, folder: Path, case: Case, config: LoopConfig, restorer: Restorer
) -> Iterator[dict[str, Any]]:
    """Figures of each round of one case: ``round``, ``summary`` (as in results.json) and ``seconds``."""
    run, capture, split, scene, device = prepare(Path(case.capture), folder, config, resume=True)
    reference = read_reference(sweep, case)
    fits, repair = SharedFits(sweep / "shared"), config.repair
    before = fits.at(run, scene, config, seed=config.seed, step=reference.steps)
    siblings, seconds_before = [], reference.seconds - before.seconds
    for sibling_number in range(1, repair.siblings + 1):
        seed = sibling_seed(config.seed, sibling_number)
        sibling = fits.at(run, scene, config, seed=seed, step=before.step + repair.num_steps)
        siblings.append(sibling.gaussians().detach())
        seconds_before += sibling.seconds
    known = read_json(folder / ROUNDS) if (folder / ROUNDS).is_file() else []
    shown: list[tuple[int, Camera]] = []
    for made in repair_rounds(run, scene, before, siblings, restorer, config, resume=True):
        shown += [(made.number, camera) for camera in made.cameras]
        seconds_before += made.repair_seconds
        if made.number > len(known):
            write_ply(folder / "after.ply", made.fit.gaussians())
            results = _evaluated(run, capture, split, scene, config, reference_folder(sweep, case), shown)
            run.write_provenance(command="sweep", seed=config.seed, device=device, notes=list(capture.notes))
            reached = results.summary.value("all", "after", "psnr")
            if reached is None or not math.isfinite(reached):
                raise FloatingPointError(f"{case.name}, round {made.number}: PSNR of after = {reached}")
            seconds = round(seconds_before + made.fit.seconds, 3)
            known.append({"round": made.number, "summary": asdict(results.summary), "seconds": seconds})
            write_json(folder / ROUNDS, known)
        figures = known[made.number - 1]
        yield {**figures, "summary": Summary.from_json(figures["summary"], str(folder / ROUNDS))}


def _evaluated(
    run: Run,
    capture: Capture,
    split: Split,
    scene: SparseScene,
    config: LoopConfig,
    reference: Path,
    shown: Sequence[tuple[int, Camera]],
) -> Results:
    """Measure ``after.ply``; ``before`` and ``control`` are the reference's, files and figures."""
    for arm in SHARED_ARMS:
        _link(reference / f"{arm}.ply", run.path / f"{arm}.ply")
    device = scene.photos[0].device
    known = read_results(reference)
    for view in known.views:
        for arm in SHARED_ARMS:
            _link(image_path(reference, view.name, arm), image_path(run.path, view.name, arm))
            _link(error_path(reference, view.name, arm), error_path(run.path, view.name, arm))
    return evaluate_arms(
        run,
        capture,
        split,
        {arm: read_ply(run.path / f"{arm}.ply").to(device) for arm in (*SHARED_ARMS, "after")},
        restorer=None,
        restorer_name=config.restorer,
        seed=config.seed,
        num_references=0,
        video=False,
        mode=config.fit.mode,
        scene=scene,
        repair_views=shown,
        known=known,
    )


def _link(source: Path, target: Path) -> None:
    """The same file in another place, whole, without a copy where the disk can do that."""
    if target.exists() or not source.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with write_whole(target) as temporary:
            shutil.copyfile(source, temporary)


def _write_pictures(folder: Path, case: Case) -> None:
    """Photo, before, control and after of the views with the median, the largest and the smallest gain, as a sheet."""
    run, kinds = folder / case.name, ("photo", *SHARED_ARMS, "after")
    rows: list[np.ndarray] = []
    for view, _ in telling_views(read_results(run).views)[:3]:
        pictures = [read_image(image_path(run, view.name, kind)) for kind in kinds]
        if not rows:
            rows.append(
                np.concatenate(
                    [_label(kind, picture.shape[1]) for kind, picture in zip(kinds, pictures, strict=True)], 1
                )
            )
        rows.append(np.concatenate(pictures, axis=1))
    if rows:
        width = max(row.shape[1] for row in rows)
        padded = [np.pad(row, ((0, 2), (0, width - row.shape[1]), (0, 0)), constant_values=1.0) for row in rows]
        write_image(folder / PICTURES / f"{case.name}.jpg", np.concatenate(padded))


def _label(text: str, width_px: int) -> np.ndarray:
    """A strip with a word in it, float32 ``[16, W, 3]``."""
    strip = Image.new("RGB", (width_px, 16), "white")
    ImageDraw.Draw(strip).text((3, 2), text, fill="black")
    return np.asarray(strip, np.float32) / 255


def attempt(
    sweep: Path, number: int, values: Values, default: LoopConfig, cases: Sequence[Case], metric: str
) -> Iterator[dict[str, Any]]:
    """The rounds of a trial, and last how it ended, with why: ``{"end": ..., "error": ...}``.

    ``complete``; ``failed``, by its own settings; ``error``, which may not come again; ``disk full``.
    """
    end, reason = "complete", None
    try:
        yield from trial_rounds(sweep, number, apply(default, values), cases, metric)
    except FloatingPointError as error:
        end, reason = "failed", str(error)
    except (torch.cuda.OutOfMemoryError, MemoryError) as error:  # another trial may have had the room
        end, reason = "error", f"out of memory: {' '.join(str(error).split())[:300]}"
    except Exception as error:
        try:
            end, (reason, _) = "error", classify_failure(error)
        except RunAborted as full:
            end, reason = "disk full", str(full)
    yield {"end": end, "error": reason}


def tidy(sweep: Path, number: int, *, keep_splats: bool) -> None:
    """Drop what nobody needs of a trial that has ended: its checkpoints, and its splats unless they are kept."""
    for folder in trial_folder(sweep, number).glob("*/checkpoints"):
        shutil.rmtree(folder, ignore_errors=True)
    for splat in () if keep_splats else trial_folder(sweep, number).glob("*/*.ply"):
        splat.unlink(missing_ok=True)
