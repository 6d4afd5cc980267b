"""The evaluation stage of a run: every arm on every test view, pictures beside the figures, a video, results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from splatfix.cameras import Camera
from splatfix.captures.capture import Capture
from splatfix.evaluation.figures import error_map
from splatfix.evaluation.layout import VIDEO, error_path, image_path
from splatfix.evaluation.measure import Measured, assemble, evaluate_views
from splatfix.evaluation.video import path_cameras, write_video
from splatfix.files import write_json
from splatfix.flawed import Reference, render_flawed, render_references
from splatfix.gaussians import Gaussians
from splatfix.images import to_bytes, write_image
from splatfix.process import progress
from splatfix.rendering import render
from splatfix.restoration import Restorer
from splatfix.runs import Run
from splatfix.splats.scene import SparseScene
from splatfix.views import Split

NUM_VIDEO_FRAMES = 72


def evaluate_arms(
    run: Run,
    capture: Capture,
    split: Split,
    arms: Mapping[str, Gaussians],
    *,
    restorer: Restorer | None,
    restorer_name: str | None,
    seed: int,
    num_references: int,
    video: bool,
    mode: Literal["classic", "antialiased"],
    scene: SparseScene,
    repair_views: Sequence[tuple[int, Camera]] = (),
    known: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Measure all arms, write pictures, video, ``cameras.json`` and ``results.json`` into the run.

    ``post`` (the restorer once more, on the rendered test view) is measured where a restorer and ``after`` are given.
    ``repair_views`` (round, camera) are only recorded. ``known`` are figures by test view and arm that another run has
    measured on the same splats: those arms are not measured again. Returns the results.
    """
    reasons: dict[str, str] = {}
    references: list[Reference] = []
    known = known or {}
    measured = {arm for figures in known.values() for arm in figures}

    def restore(name: str, gaussians: Gaussians) -> torch.Tensor:
        if not references:
            references.extend(render_references([gaussians], scene.cameras, scene.photos, scene.background))
        camera = [capture.view(name).camera]
        flawed = render_flawed([gaussians], camera, references, scene.background, scene.depth, num_references)
        assert restorer is not None
        return restorer.repair(flawed, seed=seed)[0].rgb

    with run.stage("evaluate"), progress(total=len(split.test_ids), description="test views") as bar:

        def on_view(view: Measured) -> None:
            write_pictures(run, view)
            bar.update()

        rows = evaluate_views(
            capture,
            split,
            {arm: gaussians for arm, gaussians in arms.items() if arm not in measured},
            restore=None if restorer is None or "after" not in arms else restore,
            mode=mode,
            reasons=reasons,
            on_view=on_view,
        )
    for row in rows:
        row.update(known.get(row["name"], {}))
    if video:
        with run.stage("video"):
            shown = [arms[name] for name in ("before", "after") if name in arms]
            write_video(run.path / VIDEO, video_frames(scene, shown, mode))
    results = assemble(
        capture=capture,
        restorer=restorer_name,
        seed=seed,
        size_px=split.size_px or max(max(c.width_px, c.height_px) for c in scene.cameras),
        rows=rows,
        arms=arms,
        seconds={name: round(value, 2) for name, value in run.seconds.items()},
        reasons=reasons,
    )
    write_json(run.path / "cameras.json", camera_records(capture, split, rows, repair_views))
    write_json(run.path / "results.json", results)
    return results


def camera_records(
    capture: Capture,
    split: Split,
    rows: Sequence[Mapping[str, Any]],
    repair_views: Sequence[tuple[int, Camera]],
) -> dict[str, list[dict[str, Any]]]:
    """What ``cameras.json`` holds: training, test (with band and distance) and repair cameras (with their round)."""
    return {
        "train": [_record(capture.view(name).camera) for name in split.train_ids],
        "test": [_record(capture.view(row["name"]).camera, band=row["band"], distance=row["distance"]) for row in rows],
        "repair": [_record(camera, round=number) for number, camera in repair_views],
    }


def _record(camera: Camera, **more: Any) -> dict[str, Any]:
    return {
        "name": camera.name,
        "centre": camera.center.tolist(),
        "axis": camera.axis.tolist(),
        "up": (-camera.rotation[1]).tolist(),
        "focal_px": camera.focal_px,
        "width_px": camera.width_px,
        "height_px": camera.height_px,
        **more,
    }


def write_pictures(run: Run, measured: Measured) -> None:
    """Photo, renders and error maps of one test view, where `layout` says."""
    write_image(image_path(run.path, measured.name, "photo"), measured.photo)
    for arm, rgb in measured.renders.items():
        write_image(image_path(run.path, measured.name, arm), rgb)
        write_image(error_path(run.path, measured.name, arm), error_map(rgb, measured.photo))


def video_frames(
    scene: SparseScene, arms: list[Gaussians], mode: Literal["classic", "antialiased"]
) -> Iterator[np.ndarray]:
    """Frames uint8 ``[H, W, 3]`` of the arms side by side, along a path through the training cameras and beyond."""
    for camera in path_cameras(scene.cameras, NUM_VIDEO_FRAMES):
        images = []
        for gaussians in arms:
            with torch.no_grad():
                images.append(render(gaussians, [camera], background=scene.background, mode=mode).rgb[0].cpu().numpy())
        yield to_bytes(np.concatenate(images, axis=1))
