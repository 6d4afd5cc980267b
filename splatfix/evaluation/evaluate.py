"""The evaluation stage of a run: every arm on every test view, pictures beside the figures, a video, results."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from splatfix.cameras import Camera
from splatfix.captures.capture import Capture
from splatfix.errors import is_disk_full
from splatfix.evaluation.camera_path import path_cameras
from splatfix.evaluation.error_maps import error_map, mark_ignored
from splatfix.evaluation.layout import VIDEO, error_path, image_path
from splatfix.evaluation.measure import MeasuredView, measure_views, summarize
from splatfix.evaluation.noise import run_spread
from splatfix.evaluation.results import (
    Elongation,
    Estimate,
    IgnoredPixels,
    Metrics,
    Results,
    Summary,
    ViewResult,
    write_results,
)
from splatfix.evaluation.validation import Validation
from splatfix.evaluation.video import write_video
from splatfix.evaluation.view_cameras import locate_views, write_view_cameras
from splatfix.flawed import render_flawed, render_references
from splatfix.gaussians import Splat, elongation
from splatfix.images import to_bytes, write_image
from splatfix.process import LOG_SECONDS, progress
from splatfix.rendering import render
from splatfix.restoration import Restorer
from splatfix.runs import Run
from splatfix.splats.backdrop import remove_shell
from splatfix.splats.scene import SparseScene
from splatfix.views import Split

NUM_VIDEO_FRAMES = 72
log = logging.getLogger(__name__)


def evaluate_arms(
    run: Run,
    capture: Capture,
    split: Split,
    arms: Mapping[str, Splat],
    *,
    restorer: Restorer | None,
    restorer_name: str | None,
    seed: int,
    num_references: int,
    video: bool,
    scene: SparseScene,
    repair_views: Sequence[tuple[int, Camera]] = (),
    known: Results | None = None,
    estimate: Estimate | None = None,
    validation: Validation | None = None,
    control_again: Splat | None = None,
) -> Results:
    """Measure all arms; write pictures, video, ``views.json`` and ``results.json`` into the run.

    ``post`` (the restorer once more, on the rendered test view) is measured where a restorer and ``after`` are given.
    ``repair_views`` (round, camera) are only recorded. ``known`` holds results of the same splats on the same test
    views, from another run: its arms and its run-to-run spread are taken from there and not measured again.
    ``control_again``: the control, trained a second time, for the run-to-run spread. ``estimate`` and
    ``validation`` are only recorded.
    """
    reasons: dict[str, str] = {}
    ignored_shares: list[float] = []
    repaired: dict[str, torch.Tensor] = {}

    def restore(name: str, splat: Splat) -> torch.Tensor:
        if not repaired:  # all at once: a restorer may load a model at every call
            assert restorer is not None
            references = render_references([splat], scene.cameras, scene.photos, scene.validities)
            cameras = [capture.view(test_id).camera for test_id in split.test_ids]
            flawed = render_flawed([splat], cameras, references, scene.depth, num_references)
            results = restorer.repair(flawed, seed=seed)
            repaired.update((test_id, result.rgb) for test_id, result in zip(split.test_ids, results, strict=True))
        return repaired[name]

    num = len(split.test_ids)
    with run.stage("evaluate"), progress(total=num, description="test views", log_after=LOG_SECONDS) as bar:

        def on_view(view: MeasuredView) -> None:
            write_pictures(run, view)
            ignored_shares.append(0.0 if view.validity is None else 1 - float(view.validity.mean()))
            bar.update()

        views = measure_views(
            capture,
            split,
            {arm: splat for arm, splat in arms.items() if known is None or arm not in known.arms},
            restore=None if restorer is None or "after" not in arms else restore,
            reasons=reasons,
            on_view=on_view,
        )
        again = None if control_again is None else _measure_again(capture, split, control_again)
    if known is not None:
        views = _with_known_arms(views, known)
    summary = summarize(views)
    if video:
        with run.stage("video"):
            shown = [arms[name] for name in ("before", "after") if name in arms]
            try:
                write_video(run.path / VIDEO, video_frames(scene.cameras, shown))
            except OSError as error:  # figures and pages are worth more
                if is_disk_full(error):
                    raise
                log.warning("no video: %s; the same command tries it again, --no-video leaves it out", error)
    results = Results(
        capture=capture.name,
        restorer=restorer_name,
        seed=seed,
        size_px=split.size_px or max(max(c.width_px, c.height_px) for c in scene.cameras),
        views=tuple(views),
        summary=summary,
        elongation={arm: Elongation(**elongation(remove_shell(splat.gaussians))) for arm, splat in arms.items()},
        seconds={name: round(value, 2) for name, value in run.seconds.items()},
        num_gaussians={arm: len(splat.gaussians) for arm, splat in arms.items()},
        reasons=reasons,
        estimate=estimate,
        ignored=_describe_ignored(scene, ignored_shares),
        validation=validation,
        spread=known.spread if known is not None else run_spread(_control_means(summary), again),
    )
    write_view_cameras(run.path, locate_views(capture, split, views, repair_views))
    write_results(run.path, results)
    return results


def _measure_again(capture: Capture, split: Split, control: Splat) -> Metrics | None:
    """The means over the test views of a control that was trained a second time."""
    return _control_means(summarize(measure_views(capture, split, {"control": control}, reasons={})))


def _control_means(summary: Summary) -> Metrics | None:
    return None if summary.all is None else summary.all.control


def _describe_ignored(scene: SparseScene, test_shares: Sequence[float]) -> IgnoredPixels | None:
    train = scene.ignored_share
    test = float(np.mean(test_shares)) if test_shares else None
    return IgnoredPixels(train=train, test=test) if train > 0 or (test or 0) > 0 else None


def _with_known_arms(views: Sequence[ViewResult], known: Results) -> list[ViewResult]:
    by_name = {view.name: view for view in known.views}
    return [replace(view, **{arm: getattr(by_name[view.name], arm) for arm in known.arms}) for view in views]


def write_pictures(run: Run, view: MeasuredView) -> None:
    """Photo, renders and error maps of one test view, where `layout` says."""
    name = view.result.name
    photo = view.photo if view.validity is None else mark_ignored(view.photo, view.validity)
    write_image(image_path(run.path, name, "photo"), photo)
    for arm, rgb in view.renders.items():
        write_image(image_path(run.path, name, arm), rgb)
        write_image(error_path(run.path, name, arm), error_map(rgb, view.photo, validity=view.validity))


def video_frames(training: Sequence[Camera], splats: Sequence[Splat]) -> Iterator[np.ndarray]:
    """Frames uint8 ``[H, W, 3]`` of the splats side by side, along a path through the training cameras and beyond."""
    for camera in path_cameras(training, NUM_VIDEO_FRAMES):
        with torch.no_grad():
            images = [render(splat, [camera]).rgb[0].cpu().numpy() for splat in splats]
        yield to_bytes(np.concatenate(images, axis=1))
