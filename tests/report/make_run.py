"""A small run folder as evaluation writes it, for the tests of the report."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from splatfix.evaluation import layout
from splatfix.evaluation.error_maps import error_map
from splatfix.evaluation.measure import summarize
from splatfix.evaluation.results import ARMS, Elongation, Results, ViewResult, write_results
from splatfix.evaluation.video import write_video
from splatfix.evaluation.view_cameras import ViewCamera, ViewCameras, write_view_cameras
from splatfix.files import write_json, write_text
from splatfix.images import write_image
from splatfix.views import BANDS

NAMES = ["a/0001.jpg", 'b<script>alert(1)</script>"&.png', "猫 7.jpg", "d.jpg", "e.jpg", "f.jpg", "g.jpg"]


def make_results(
    views: Sequence[ViewResult], *, arms: Sequence[str] = (), restorer: str | None = None, **changes
) -> Results:
    """Results of these views, summarized; ``changes`` replace other fields."""
    fields = {
        "capture": "castle & <b>moat</b>",
        "seed": 3,
        "size_px": 36,
        "elongation": {arm: Elongation(median=4.25, p95=61.7) for arm in arms if arm != "post"},
        "seconds": {"fit": 61.0, "evaluate": 2.5},
        "num_gaussians": {arm: 12345 for arm in arms if arm != "post"},
        "reasons": {"lpips": "no weights of VGG-16 on disk"},
    }
    return Results(restorer=restorer, views=tuple(views), summary=summarize(views), **{**fields, **changes})


def make_run(path: Path, *, arms=ARMS, shift: float = 0.0, restorer: str | None = "nafnet") -> Results:
    """Write a run with the given arms and return its results."""
    rng = np.random.default_rng(0)
    views = []
    for k, name in enumerate(NAMES):
        photo = rng.random((24, 36, 3)).astype(np.float32)
        write_image(layout.image_path(path, name, "photo"), photo)
        offsets = {"before": 0.0, "control": 0.1, "after": 0.9 + 0.2 * k + shift, "post": 1.0}
        metrics = {
            arm: {"psnr": 17.03 + k + offset, "ssim": 0.51 + 0.01 * k, "lpips": None} if arm in arms else None
            for arm, offset in offsets.items()
        }
        for arm in arms:
            render = np.clip(photo + 0.1, 0, 1)
            write_image(layout.image_path(path, name, arm), render)
            write_image(layout.error_path(path, name, arm), error_map(render, photo))
        views.append(ViewResult(name=name, band=BANDS[k * 3 // len(NAMES)], distance=0.1 + 0.1 * k, **metrics))
    results = make_results(views, arms=arms, restorer=restorer)
    write_results(path, results)
    write_json(
        path / "run.json", {"command": "loop", "version": "9.9", "seed": 3, "device": "cpu", "notes": ["2 <files>"]}
    )
    write_json(path / "split.json", {"train_ids": ["t1.jpg", "t2.jpg"], "test_ids": NAMES, "size_px": 36})
    write_view_cameras(path, _cameras(views))
    steps = [{"arm": arm, "step": s, "loss": 1 / (1 + s)} for arm in ("before", "after") for s in range(0, 900, 10)]
    write_json(path / "history.json", steps)
    write_text(path / "config.yaml", "seed: 3\nnote: '</pre><script>'\n")
    if "after" in arms:
        for k in range(3):
            for kind in ("render", "repaired"):
                write_image(layout.repair_path(path, 1, f"r{k}", kind), rng.random((24, 36, 3)))
        write_video(path / layout.VIDEO, [np.full((16, 32, 3), 30 * k, np.uint8) for k in range(4)])
    return results


def make_camera(name: str, center: Sequence[float], axis: Sequence[float], up=(0.0, -1.0, 0.0), **role) -> ViewCamera:
    """The record of a small camera."""
    center, axis, up = (tuple(map(float, vector)) for vector in (center, axis, up))
    return ViewCamera(name=name, centre=center, axis=axis, up=up, focal_px=40.0, width_px=36, height_px=24, **role)


def _cameras(views: Sequence[ViewResult]) -> ViewCameras:
    def camera(angle: float, name: str, **role) -> ViewCamera:
        center = np.array([np.cos(angle), 0.0, np.sin(angle)])
        return make_camera(name, center, -center, **role)

    return ViewCameras(
        train=(camera(0.0, "<0>"), camera(2.0, "<2>")),
        test=tuple(camera(0.3 * k, v.name, band=v.band, distance=v.distance) for k, v in enumerate(views)),
        repair=(camera(1.0, "<1>", round=1),),
    )
