"""A page of each kind, from small synthetic folders, for the tests in a browser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from splatfix.captures import open_capture
from splatfix.evaluation.drift import Drift, FrameDrift
from splatfix.files import write_text
from splatfix.images import write_image
from splatfix.pairs.config import GenerateConfig
from splatfix.pairs.generate import generate
from splatfix.report import write_report
from splatfix.report.compare.layout import FRAME_KINDS, frame_path
from splatfix.report.compare.page import write_compare_page
from splatfix.report.compare.results import (
    CompareCase,
    CompareResults,
    Entry,
    FrameResult,
    RestorerResult,
    write_compare,
)
from splatfix.report.dataset import write_dataset_page
from splatfix.report.pose import pose_page
from splatfix.report.sweep.page import write_sweep_page
from splatfix.report.training import write_training_page
from splatfix.sample import sample_path
from splatfix.sfm.record import CameraRecord, PhotoRecord, PoseRecord
from splatfix.workers import WorkersConfig
from tests.pairs.folders import make_empty_captures
from tests.pairs.stub import StubWorker
from tests.report.make_run import NAMES, make_run
from tests.report.make_sweep import make_sweep
from tests.report.make_training import make_training

LONG_NAME = "photos_of_the_old_harbor/IMG_20260417_093015_exposure_bracket_2_of_3.jpg"


def make_run_page(folder: Path) -> Path:
    make_run(folder)
    return write_report([folder])


def make_fit_page(folder: Path) -> Path:
    make_run(folder, arms=("before",), restorer=None)
    return write_report([folder])


def make_portrait_page(folder: Path) -> Path:
    make_run(folder)
    for path in (path for path in folder.rglob("*") if path.suffix in (".jpg", ".png")):
        with Image.open(path) as image:
            turned = image.transpose(Image.Transpose.ROTATE_90)
        turned.save(path)
    return write_report([folder])


def make_comparison_page(folder: Path) -> Path:
    runs = [folder / name for name in ("one", "a_run_with_a_long_name_of_many_words", "three")]
    for k, run in enumerate(runs):
        make_run(run, shift=0.3 * k - 0.5)
    return write_report(runs)


def make_compare_page(folder: Path) -> Path:
    """Three restorers on two captures; the last has failed on one of them."""
    rng = np.random.default_rng(4)
    restorers = []
    for k, label in enumerate(("identity", "nafnet-strength-0.5", "another-restorer-with-a-long-name")):
        entries = []
        for j, case in enumerate(("tankard-s0", "a-capture-with-a-long-name-s0")):
            entry = Entry(case=case, folder=f"entries/{k}-{j}")
            if k == 2 and j == 1:
                entries.append(replace(entry, error="step 812: loss = nan; try a lower learning rate"))
                continue
            run = folder / entry.folder
            results = make_run(run, shift=0.2 * k - 0.6)
            for name in NAMES:
                for kind in FRAME_KINDS:
                    write_image(frame_path(run, name, kind), rng.random((24, 36, 3)).astype(np.float32))
            metrics = {"psnr": 18.2, "ssim": 0.61, "lpips": 0.31}
            good, bad = {"render": 27.1, "repaired": 26.8 + k}, {"render": 14.0, "repaired": None}
            frames = tuple(
                FrameResult(
                    name=view.name,
                    band=view.band or "near",
                    render=metrics,
                    repaired={**metrics, "psnr": 18.2 + 0.3 * k},
                    good_share=0.6,
                    good=good,
                    bad=bad,
                    mask_share=0.2 if k else None,
                )
                for view in results.views
            )
            drift = _drift(k, [view.name for view in results.views])
            entries.append(
                replace(entry, results=results, frames=frames, drift=drift, path_drift=drift, seconds_per_view=0.4)
            )
        restorers.append(RestorerResult(label=label, restorer=label.split("-")[0], entries=tuple(entries)))
    cases = [
        CompareCase(case=case, capture=case[:-3], seed=0, folder=f"cases/{case}", before=19.0, control=19.2)
        for case in ("tankard-s0", "a-capture-with-a-long-name-s0")
    ]
    write_compare(folder, CompareResults(state="finished", cases=tuple(cases), restorers=tuple(restorers)))
    return write_compare_page(folder)


def _drift(k: int, names: list[str]) -> Drift:
    """Color gains that rise from frame to frame."""
    frames = [
        FrameDrift(name=name, gain=(1 + 0.01 * k * j,) * 3, bias=(0.0,) * 3, share=0.8, residual=0.01, reason=None)
        for j, name in enumerate(names)
    ]
    level = (0.01 * k,) * 3
    return Drift(
        frames=tuple(frames),
        mean_gain=level,
        mean_bias=level,
        gain_spread=level,
        bias_spread=level,
        gain_change=level,
        bias_change=level,
        reasons={},
    )


def make_sweep_page(folder: Path) -> Path:
    make_sweep(folder)
    return write_sweep_page(folder)


def make_dataset_page(folder: Path) -> Path:
    """Pairs of two captures, and one whose fits are in quarantine."""
    names = ("castle", "a_capture_with_a_long_name_of_many_words", "broken_harbor")
    captures = make_empty_captures(folder / "captures", *names)
    config = GenerateConfig(fits_per_capture=2, device="cpu", workers=WorkersConfig(num=0), max_failed=1.0)
    generate(captures, str(folder / "pairs"), config, make_worker=StubWorker)
    return Path(write_dataset_page(str(folder / "pairs")))


def make_pose_page(folder: Path) -> Path:
    """The page of an estimate that found cameras for all photos of the sample but one with a long name."""
    capture = open_capture(sample_path())
    names = [view.camera.name for view in capture.views]
    found = [
        PhotoRecord(name=n, source=n, is_registered=True, num_keypoints=900, num_points=210, error_px=0.62)
        for n in names
    ]
    lost = PhotoRecord(name=LONG_NAME, source=LONG_NAME, is_registered=False, advice="too few points: add photos")
    params = (812.3, 810.1, 480.0, 320.0, 0.0123, -0.0456, 0.00078, 0.00012)
    lens = CameraRecord(
        model="OPENCV", width_px=960, height_px=640, params=params, focal_px=811.0, known_focal_px=None, num_photos=36
    )
    record = PoseRecord(
        source="photos/harbor",
        poser="colmap",
        method="incremental mapping",
        estimated_from=tuple(names[:6]),
        photos=(*found, lost),
        cameras=(lens,),
        num_points=4321,
        error_px=0.62,
        version="9.9",
        notes=("2 photos are turned by EXIF",),
        doubts=("two halves of the scene may be mirrored",),
        seconds={"features": 12.3, "mapping": 45.6},
        settings={"max_photos": 60},
    )
    page = folder / "pose.html"
    write_text(page, pose_page(record, capture))
    return page


def make_training_page(folder: Path) -> Path:
    make_training(folder)
    return Path(str(write_training_page(folder / "run")))


def make_interrupted_page(folder: Path) -> Path:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    make_training(folder, on_segment=stop)
    return Path(str(write_training_page(folder / "run")))


MAKERS: dict[str, Callable[[Path], Path]] = {
    "run": make_run_page,
    "fit": make_fit_page,
    "portrait": make_portrait_page,
    "comparison": make_comparison_page,
    "compare": make_compare_page,
    "sweep": make_sweep_page,
    "dataset": make_dataset_page,
    "pose": make_pose_page,
    "training": make_training_page,
    "interrupted": make_interrupted_page,
}
