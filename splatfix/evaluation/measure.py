"""Renders of exported splats against test photos: per view, per band, per arm, into ``results.json``.

Everything here is measured on test photos at test poses, from the ``.ply`` files as they were exported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from splatfix.captures.capture import Capture
from splatfix.evaluation.layout import ARMS
from splatfix.gaussians import Gaussians, elongation
from splatfix.metrics import image_metrics
from splatfix.rendering import render
from splatfix.shapes import Float
from splatfix.splats.backdrop import without_shell
from splatfix.views import BANDS, Split, assign_bands, view_distances

LOWER_IS_BETTER = frozenset({"lpips"})

Metrics = dict[str, float | None]


@dataclass(frozen=True, eq=False)
class Measured:
    """One test view: its photo, the render of each arm, and their metrics."""

    name: str
    band: str
    distance: float
    photo: Float[np.ndarray, "H W 3"]
    mask: Float[np.ndarray, "H W"] | None
    renders: dict[str, Float[np.ndarray, "H W 3"]]
    metrics: dict[str, Metrics]


def evaluate_views(
    capture: Capture,
    split: Split,
    arms: Mapping[str, Gaussians],
    *,
    restore: Callable[[str, Gaussians], Float[Tensor, "H W 3"]] | None = None,
    mode: Literal["classic", "antialiased"] = "classic",
    reasons: dict[str, str],
    on_view: Callable[[Measured], None] | None = None,
) -> list[dict[str, Any]]:
    """Measure every test view for every arm.

    Args:
        arms: the splats by arm name; they decide the device.
        restore: for ``post``: repairs the ``after`` render of the named test view; None leaves ``post`` out.
        mode: how the splats are rendered.
        reasons: filled with why a metric is null.
        on_view: called with each measured view (to write images); nothing is kept here.
    """
    training = [capture.view(name).camera for name in split.train_ids]
    points = None if capture.points is None else capture.points.admissible(split.train_ids)
    distances = view_distances([capture.view(name).camera for name in split.test_ids], training, points)
    bands = assign_bands(distances)
    rows = []
    for name in split.test_ids:
        view = capture.view(name)
        photo = view.load()
        renders, figures = {}, {}
        for arm in ARMS:
            source = "after" if arm == "post" else arm
            if source not in arms or (arm == "post" and restore is None):
                continue
            gaussians = arms[source]
            with torch.no_grad():
                if arm == "post" and restore is not None:
                    rgb = restore(name, gaussians)
                else:
                    rgb = render(gaussians, [view.camera], background=capture.background, mode=mode).rgb[0]
            rgb = rgb.cpu().clamp(0, 1)
            mask = None if photo.mask is None else torch.from_numpy(photo.mask)
            renders[arm] = rgb.numpy()
            figures[arm], missing = image_metrics(rgb, torch.from_numpy(photo.rgb), mask)
            reasons.update(missing)
        if on_view is not None:
            on_view(Measured(name, bands[name], distances[name], photo.rgb, photo.mask, renders, figures))
        rows.append(
            {"name": name, "band": bands[name], "distance": distances[name], **{a: figures.get(a) for a in ARMS}}
        )
    return rows


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the views of each band and of all, with ``gain`` = after minus the better of before and control.

    For LPIPS, where less is better, a negative gain is an improvement. An empty band is None; a metric that any of
    the views lacks is None.
    """
    summary: dict[str, Any] = {}
    for band in ("all", *BANDS):
        members = [row for row in rows if band in ("all", row["band"])]
        if not members:
            summary[band] = None
            continue
        means = {arm: _means([row[arm] for row in members]) for arm in ARMS}
        summary[band] = {**means, "gain": _gain(means)}
    return summary


def _means(figures: Sequence[Metrics | None]) -> Metrics | None:
    held = [figure for figure in figures if figure is not None]
    if not held or len(held) < len(figures):
        return None
    means: Metrics = {}
    for key in held[0]:
        values = [figure.get(key) for figure in held]
        numbers = [value for value in values if value is not None]
        means[key] = float(np.mean(numbers)) if len(numbers) == len(values) else None
    return means


def _gain(means: Mapping[str, Metrics | None]) -> Metrics | None:
    after = means["after"]
    rivals = [means[arm] for arm in ("before", "control")]
    if after is None or None in rivals:
        return None
    gain: Metrics = {}
    for key, value in after.items():
        others = [rival[key] for rival in rivals if rival is not None]
        if value is None or any(other is None for other in others):
            gain[key] = None
            continue
        numbers = [other for other in others if other is not None]
        gain[key] = value - (min(numbers) if key in LOWER_IS_BETTER else max(numbers))
    return gain


def assemble(
    *,
    capture: Capture,
    restorer: str | None,
    seed: int | None,
    size_px: int,
    rows: Sequence[Mapping[str, Any]],
    arms: Mapping[str, Gaussians],
    seconds: Mapping[str, float],
    reasons: Mapping[str, str],
) -> dict[str, Any]:
    """The whole of ``results.json`` (schema 1)."""
    return {
        "schema": 1,
        "capture": capture.name,
        "restorer": restorer,
        "seed": seed,
        "size_px": size_px,
        "views": list(rows),
        "summary": summarise(rows),
        "elongation": {arm: elongation(without_shell(gaussians)) for arm, gaussians in arms.items()},
        "seconds": dict(seconds),
        "num_gaussians": {arm: len(gaussians) for arm, gaussians in arms.items()},
        "reasons": dict(reasons),
    }
