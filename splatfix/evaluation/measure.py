"""Compare renders of splats with test photos: per view, per band, per arm.

Everything here is measured on test photos at test poses, from splats as their ``.ply`` files hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from splatfix.captures.capture import Capture
from splatfix.evaluation.results import ARMS, Arm, BandSummary, Metrics, Summary, ViewResult, gain
from splatfix.gaussians import Splat
from splatfix.metrics import compute_metrics
from splatfix.rendering import render
from splatfix.shapes import Float
from splatfix.views import BANDS, Split, assign_bands, view_distances


@dataclass(frozen=True, eq=False)
class MeasuredView:
    """One test view: its result, its photo with the validity of its pixels, and the render of each arm."""

    result: ViewResult
    photo: Float[np.ndarray, "H W 3"]
    renders: dict[Arm, Float[np.ndarray, "H W 3"]]
    validity: Float[np.ndarray, "H W"] | None = None


def measure_views(
    capture: Capture,
    split: Split,
    arms: Mapping[str, Splat],
    *,
    restore: Callable[[str, Splat], Float[Tensor, "H W 3"]] | None = None,
    reasons: dict[str, str],
    on_view: Callable[[MeasuredView], None] | None = None,
) -> list[ViewResult]:
    """Measure every arm on every test view.

    Args:
        arms: the splats by arm name; they decide the device.
        restore: for ``post``: repairs the ``after`` render of the named test view; None leaves ``post`` out.
        reasons: filled with why a metric is null.
        on_view: called with each measured view (to write images); nothing is kept here.
    """
    distances = measure_distances(capture, split)
    bands = assign_bands(distances)
    device = next(iter(arms.values())).gaussians.device
    results = []
    for name in split.test_ids:
        view = capture.view(name)
        photo = view.load()
        target = torch.from_numpy(photo.rgb).to(device)
        mask = None if photo.mask is None else torch.from_numpy(photo.mask).to(device)
        validity = None if photo.validity is None else torch.from_numpy(photo.validity).to(device)
        renders: dict[Arm, np.ndarray] = {}
        metrics: dict[Arm, Metrics] = {}
        for arm in ARMS:
            source = "after" if arm == "post" else arm
            if source not in arms or (arm == "post" and restore is None):
                continue
            splat = arms[source]
            with torch.no_grad():
                if arm == "post" and restore is not None:
                    rgb = restore(name, splat)
                else:
                    rgb = render(splat, [view.camera]).rgb[0]
            rgb = rgb.to(device).clamp(0, 1)
            renders[arm] = rgb.cpu().numpy()
            metrics[arm], missing = compute_metrics(rgb, target, mask, validity)
            reasons.update(missing)
        results.append(
            ViewResult(
                name=name,
                band=bands[name],
                distance=distances[name],
                before=metrics.get("before"),
                control=metrics.get("control"),
                after=metrics.get("after"),
                post=metrics.get("post"),
            )
        )
        if on_view is not None:
            on_view(MeasuredView(results[-1], photo.rgb, renders, photo.validity))
    return results


def measure_distances(capture: Capture, split: Split) -> dict[str, float]:
    """The distance of each test view from the training cameras (`views.view_distances`)."""
    training = [capture.view(name).camera for name in split.train_ids]
    points = None if capture.points is None else capture.points.admissible(split.train_ids)
    return view_distances([capture.view(name).camera for name in split.test_ids], training, points)


def summarize(views: Sequence[ViewResult]) -> Summary:
    """Means over the views of each band and of all, and the gain of these means.

    None for a band without views; a metric that any of the views lacks is None.
    """
    by_band = {band: _band_summary([view for view in views if view.band == band]) for band in BANDS}
    return Summary(all=_band_summary(views), **by_band)


def _band_summary(views: Sequence[ViewResult]) -> BandSummary | None:
    if not views:
        return None
    means = {arm: _means([getattr(view, arm) for view in views]) for arm in ARMS}
    return BandSummary(**means, gain=gain(means["before"], means["control"], means["after"]))


def _means(metrics: Sequence[Metrics | None]) -> Metrics | None:
    present = [of_view for of_view in metrics if of_view is not None]
    if not present or len(present) < len(metrics):
        return None
    means: Metrics = {}
    for key in present[0]:
        values = [of_view.get(key) for of_view in present]
        known = [value for value in values if value is not None]
        means[key] = float(np.mean(known)) if len(known) == len(values) else None
    return means
