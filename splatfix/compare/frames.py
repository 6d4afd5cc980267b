"""What a restorer does to single frames, before any 3D: quality, photometric drift, and consistency between views."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splatfix.cameras import Camera
from splatfix.captures.capture import Capture
from splatfix.evaluation.camera_path import path_cameras
from splatfix.evaluation.consistency import Consistency, measure_consistency
from splatfix.evaluation.drift import Drift, FrameDrift, measure_drift, summarize_drift
from splatfix.evaluation.measure import measure_distances
from splatfix.evaluation.results import Metrics
from splatfix.flawed import FlawedView, render_flawed, render_references
from splatfix.gaussians import Splat
from splatfix.metrics import compute_metrics, psnr
from splatfix.report.compare.layout import GOOD_ERROR
from splatfix.report.compare.results import FrameResult
from splatfix.restoration import Repaired, Restorer
from splatfix.shapes import Bool, Float
from splatfix.splats.scene import SparseScene
from splatfix.views import Band, Split, assign_bands

GOOD_WINDOW_PX = 5  # over which the error of a render is averaged, to tell good pixels from bad


@dataclass(frozen=True, eq=False)
class FrameView:
    """A repaired test view with what it was made of, to be shown."""

    name: str
    photo: Float[Tensor, "H W 3"]
    flawed: FlawedView
    repaired: Repaired
    result: FrameResult
    validity: Float[Tensor, "H W"] | None = None


@dataclass(frozen=True)
class Frames:
    """Figures of the repaired frames of one case; fields as in `report.compare.results.Entry`."""

    frames: tuple[FrameResult, ...]
    drift: Drift | None
    path_drift: Drift | None
    consistency: Consistency | None
    reasons: dict[str, str]


def measure_frames(
    splats: Sequence[Splat],
    scene: SparseScene,
    capture: Capture,
    split: Split,
    restorer: Restorer,
    *,
    seed: int,
    num_references: int,
    path_frames: int,
    on_view: Callable[[FrameView], None],
) -> Frames:
    """Repair the renders of the test views and of a path, as the first round of the loop would, and measure them.

    Args:
        splats: the sparse fit and its siblings; their renders are averaged.
        on_view: called with each test view (to write pictures).
    """
    references = render_references(splats, scene.cameras, scene.photos, scene.validities)
    reasons: dict[str, str] = {}

    def repair(cameras: Sequence[Camera]) -> tuple[list[FlawedView], list[Repaired]]:
        views = render_flawed(splats, cameras, references, scene.depth, num_references)
        return views, restorer.repair(views, seed=seed)

    names = list(split.test_ids)
    photos = [capture.view(name).load() for name in names]
    flawed, repaired = repair([capture.view(name).camera for name in names])
    bands = assign_bands(measure_distances(capture, split))
    clean, validities, goods, frames = [], [], [], []
    for name, photo, view, result in zip(names, photos, flawed, repaired, strict=True):
        rgb = torch.from_numpy(photo.rgb)
        mask = None if photo.mask is None else torch.from_numpy(photo.mask)
        validity = None if photo.validity is None else torch.from_numpy(photo.validity)
        good = good_pixels(view.rgb.cpu(), rgb, validity)
        frame = _measure_frame(name, bands[name], rgb, mask, validity, view, result, good, reasons)
        on_view(FrameView(name, rgb, view, result, frame, validity))
        clean.append(rgb)
        validities.append(validity)
        goods.append(good.float())
        frames.append(frame)
    rgbs = [result.rgb.cpu() for result in repaired]
    consistency = measure_consistency(
        rgbs,
        [view.camera for view in flawed],
        [view.depth.cpu() for view in flawed],
        [view.alpha.cpu() for view in flawed],
        clean,
        clean_validities=validities,
    )
    return Frames(
        frames=tuple(frames),
        drift=_measure_test_drift(rgbs, clean, flawed, goods, validities, names),
        path_drift=_path_drift(scene.cameras, path_frames, repair) if path_frames else None,
        consistency=consistency,
        reasons=reasons,
    )


def good_pixels(
    render: Float[Tensor, "H W 3"], photo: Float[Tensor, "H W 3"], validity: Float[Tensor, "H W"] | None = None
) -> Bool[Tensor, "H W"]:
    """Where a render is good: its mean absolute color error over the valid pixels of a window is below `GOOD_ERROR`.

    Ignored pixels, those of validity 0, are not good.
    """
    error = (render.clamp(0, 1) - photo).abs().mean(-1)
    if validity is None:
        return _window_mean(error) < GOOD_ERROR
    share = _window_mean(validity)
    return (_window_mean(error * validity) < GOOD_ERROR * share) & (validity > 0)


def _window_mean(image: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    pad = GOOD_WINDOW_PX // 2
    padded = torch.nn.functional.pad(image[None, None], (pad,) * 4, mode="replicate")
    return torch.nn.functional.avg_pool2d(padded, GOOD_WINDOW_PX, stride=1)[0, 0]


def _measure_frame(
    name: str,
    band: Band,
    photo: Float[Tensor, "H W 3"],
    mask: Float[Tensor, "H W"] | None,
    validity: Float[Tensor, "H W"] | None,
    view: FlawedView,
    repaired: Repaired,
    good: Bool[Tensor, "H W"],
    reasons: dict[str, str],
) -> FrameResult:
    metrics: dict[str, Metrics] = {}
    weight = torch.ones_like(view.rgb[..., 0], device="cpu") if validity is None else validity
    parts: dict[str, dict[str, float | None]] = {"good": {}, "bad": {}}
    for kind, rgb in (("render", view.rgb), ("repaired", repaired.rgb)):
        image = rgb.detach().cpu().clamp(0, 1)
        metrics[kind], missing = compute_metrics(image, photo, mask, validity)
        reasons.update(missing)
        for part, where in (("good", good), ("bad", ~good)):
            value = psnr(image, photo, where * weight)
            parts[part][kind] = value if math.isfinite(value) else None
    marked = repaired.mask
    return FrameResult(
        name=name,
        band=band,
        **metrics,
        good_share=float(good.float().mean()) if validity is None else float((good * weight).sum() / weight.sum()),
        **parts,
        mask_share=None if marked is None else float(marked.float().mean()),
    )


def _measure_test_drift(
    frames: Sequence[Float[Tensor, "_ _ 3"]],
    photos: Sequence[Float[Tensor, "_ _ 3"]],
    views: Sequence[FlawedView],
    goods: Sequence[Float[Tensor, "_ _"]],
    validities: Sequence[Float[Tensor, "_ _"] | None],
    names: Sequence[str],
) -> Drift:
    """Drift of the test views where their renders are good, against the photo or the render.

    A render is never quite where the photo is, and a regression against a shifted image finds too small a gain. So
    each frame is compared with both, and the one that it fits better counts: where a render is good, both have the
    same colors.
    """
    renders = [view.rgb.cpu().clamp(0, 1) for view in views]
    chosen = []
    for name, frame, photo, render, good, validity in zip(
        names, frames, photos, renders, goods, validities, strict=True
    ):
        fits = [_fit_frame(name, frame, clean, good) for clean in (render, photo)]
        if all(fit.gain is None for fit in fits):  # no good pixels, or all of them in a white background
            fits = [_fit_frame(name, frame, clean, validity) for clean in (render, photo)]
        chosen.append(min(fits, key=lambda fit: math.inf if fit.residual is None else fit.residual))
    return summarize_drift(chosen)


def _fit_frame(
    name: str, frame: Float[Tensor, "H W 3"], clean: Float[Tensor, "H W 3"], weight: Float[Tensor, "H W"] | None
) -> FrameDrift:
    (fit,) = measure_drift([frame], [clean], [weight], names=[name]).frames
    return fit


def _path_drift(
    training: Sequence[Camera],
    num_frames: int,
    repair: Callable[[Sequence[Camera]], tuple[list[FlawedView], list[Repaired]]],
) -> Drift:
    """Drift along a path against the renders, which do not drift: over the pixels that the fit covers."""
    views, repaired = repair(path_cameras(training, num_frames))
    return measure_drift(
        [result.rgb.cpu() for result in repaired],
        [view.rgb.cpu().clamp(0, 1) for view in views],
        [(view.alpha.cpu() > 0.5).float() for view in views],
        names=[view.camera.name for view in views],
    )
