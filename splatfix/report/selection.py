"""Choose the test views that a report shows, by rule: not only the best ones."""

from __future__ import annotations

from collections.abc import Sequence

from splatfix.evaluation.results import ViewResult
from splatfix.report.wording import view_gain
from splatfix.views import BANDS


def scores(views: Sequence[ViewResult]) -> tuple[str, dict[str, float]]:
    """The figure by which views are ranked: its name, and its value by view name.

    The gain, where any view has one; in a run without gains the PSNR of the arm that the view has. In dB.
    """
    gains = {view.name: gain for view in views if (gain := view_gain(view)) is not None}
    if gains:
        return "gain", gains
    levels = {}
    for view in views:
        values = [view.value(arm, "psnr") for arm in ("after", "before", "control")]
        known = [value for value in values if value is not None]
        if known:
            levels[view.name] = known[0]
    return "PSNR", levels


def representative_views(views: Sequence[ViewResult]) -> list[tuple[ViewResult, list[str]]]:
    """Choose the views with the largest, the median and the smallest score, and the median of each band.

    Returns (view, what it was chosen for), each view once, at most 6; the median is first.
    """
    what, score = scores(views)
    ranked = sorted((view for view in views if view.name in score), key=lambda v: (score[v.name], v.name))
    if not ranked:
        return [(view, []) for view in views[:3]]
    chosen: dict[str, tuple[ViewResult, list[str]]] = {}

    def choose(view: ViewResult, role: str) -> None:
        chosen.setdefault(view.name, (view, []))[1].append(role)

    choose(ranked[(len(ranked) - 1) // 2], f"median {what}")
    choose(ranked[-1], f"largest {what}")
    choose(ranked[0], f"smallest {what}")
    for band in BANDS:
        members = [view for view in ranked if view.band == band]
        if members:
            choose(members[(len(members) - 1) // 2], f"median of {band}")
    return list(chosen.values())
