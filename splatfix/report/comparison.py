"""Several runs beside each other: rows, headline and views of the comparison page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from splatfix.evaluation import layout
from splatfix.evaluation.results import ARMS, ViewResult
from splatfix.report import pictures, wording
from splatfix.report.load import RunFiles
from splatfix.report.selection import representative_views
from splatfix.restoration.identity import TRAINED_HERE

MAX_SHARED_VIEWS = 4
TILE_SIDE_PX = 420
MAX_PAGE_PICTURES = 60


def headline(runs: Sequence[RunFiles]) -> wording.Headline:
    """Which run gained most, where the runs can be compared (one capture, the same test photos)."""
    known = {run.label: gain for run in runs if (gain := wording.run_gain(run.results)) is not None}
    captures = sorted({run.results.capture for run in runs})
    where = f"on {captures[0]}" if len(captures) == 1 else f"on {len(captures)} captures"
    details = []
    if len(known) < len(runs):
        without = wording.format_count(len(runs) - len(known), "run")
        details.append(f"{without} without a gain (no control, or not measured).")
    if differing := _differences(runs):
        details.append(f"The runs differ in {' and '.join(differing)}: their figures must not be ranked.")
    knows = False  # a restorer was trained on what it is tested on
    for run in runs:
        notes = run.provenance.get("notes") or []
        trained_here = [f"{run.label}: {note}." for note in notes if str(note).endswith(TRAINED_HERE)]
        details += trained_here
        knows |= bool(trained_here)
    if not known:
        return wording.Headline(f"{wording.format_count(len(runs), 'run')} {where}.", tuple(details), "", "", "plain")
    best = max(known, key=lambda label: known[label].mean)
    means = [gain.mean for gain in known.values()]
    low, high = (wording.format_number(value, 2, signed=True) for value in (min(means), max(means)))
    if differing or knows or len(known) == 1:
        gained = f"a PSNR gain of {low} dB" if low == high else f"PSNR gains from {low} to {high} dB"
        sentence = f"{wording.format_count(len(runs), 'run')} {where}: {gained}."
        if differing or knows:
            return wording.Headline(sentence, tuple(details), "", "", "plain")
    elif known[best].verdict == "better":
        sentence = f"The run {best} gained most {where}; the PSNR gains range from {low} to {high} dB."
    else:
        sentence = f"No run gained beyond noise {where}: PSNR gains range from {low} to {high} dB."
    gain = known[best]
    if gain.standard_error is not None:
        details.append("± is the standard error over the test photos; a gain of less than twice that is called noise.")
    caption = f"largest PSNR gain, {wording.format_count(gain.num, 'test photo')}"
    if gain.verdict != "better":
        caption += f": {gain.verdict}"
    tone = "good" if gain.verdict == "better" else "plain"
    return wording.Headline(sentence, tuple(details), f"{wording.format_gain(gain, 2)} dB", caption, tone)


def rows(runs: Sequence[RunFiles]) -> list[dict[str, Any]]:
    """One row per run."""
    table = []
    for run in runs:
        gain = wording.run_gain(run.results)
        table.append(
            {
                "run": run,
                "arms": {arm: run.results.summary.value("all", arm, "psnr") for arm in ARMS},
                "gains": {
                    metric.key: run.results.summary.value("all", "gain", metric.key) for metric in wording.MAIN_METRICS
                },
                "verdict": None if gain is None else gain.verdict,
                "error": None if gain is None else gain.standard_error,
                "take": wording.recommended_arm(run.results),
                "seconds": sum(run.results.seconds.values()),
            }
        )
    return table


def compared_views(runs: Sequence[RunFiles]) -> list[dict[str, Any]]:
    """Some test views with the photo, ``before``, and the results of the runs.

    Views that all runs have, where the runs can be compared; else the median view of each run, with its own result.
    """
    if _differences(runs):
        return _own_views(runs)
    num = max(1, min(MAX_SHARED_VIEWS, MAX_PAGE_PICTURES // (len(runs) + 2)))
    shown = []
    for view, roles in representative_views(runs[0].results.views)[:num]:
        roles = [f"{roles[0]} in {runs[0].label}", *roles[1:]] if roles else []
        shown.append(_view_of_runs(view, roles, runs))
    return [view for view in shown if view["tiles"]]


def _own_views(runs: Sequence[RunFiles]) -> list[dict[str, Any]]:
    shown = []
    for run in runs[: MAX_PAGE_PICTURES // 3]:
        for view, roles in representative_views(run.results.views)[:1]:
            shown.append({**_view_of_runs(view, roles, [run]), "title": f"{run.label}: {view.name}"})
    return [view for view in shown if view["tiles"]]


def _view_of_runs(view: ViewResult, roles: Sequence[str], runs: Sequence[RunFiles]) -> dict[str, Any]:
    """A view with the first photo and ``before`` that some run has, and every run's ``after``."""
    tiles, photo, before = [], None, None
    for run in runs:
        same = next(other for other in run.results.views if other.name == view.name)
        photo = photo or pictures.embed_picture(layout.image_path(run.path, view.name, "photo"), TILE_SIDE_PX)
        before = before or pictures.embed_picture(layout.image_path(run.path, view.name, "before"), TILE_SIDE_PX)
        image = pictures.embed_picture(layout.image_path(run.path, view.name, "after"), TILE_SIDE_PX)
        if image:
            tiles.append({"label": run.label, "image": image, "psnr": same.value("after", "psnr")})
    return {"title": view.name, "view": view, "roles": roles, "photo": photo, "before": before, "tiles": tiles}


def _differences(runs: Sequence[RunFiles]) -> list[str]:
    """What must be the same in all runs for their figures to be ranked, and is not; training photos where known."""
    values: dict[str, set[Any]] = {
        "capture": {run.results.capture for run in runs},
        "size": {run.results.size_px for run in runs},
        "test photos": {tuple(sorted(view.name for view in run.results.views)) for run in runs},
        "training photos": {tuple(sorted(run.train_ids)) for run in runs if run.train_ids},
    }
    return [name for name, different in values.items() if len(different) > 1]
