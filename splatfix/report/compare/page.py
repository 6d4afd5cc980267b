"""``compare.html``: what each restorer does to single frames, and what of it survives in 3D."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from splatfix.evaluation.results import mean_if_known
from splatfix.files import write_text
from splatfix.report import wording
from splatfix.report.compare.charts import drift_charts
from splatfix.report.compare.figures import comparison_figures
from splatfix.report.compare.headline import compare_headline
from splatfix.report.compare.layout import GOOD_ERROR, frame_path
from splatfix.report.compare.results import (
    COMPARE,
    PAGE,
    CompareCase,
    CompareResults,
    Entry,
    FrameResult,
    RestorerResult,
    read_compare,
    shorten_labels,
)
from splatfix.report.html import page_path, render_page
from splatfix.report.pictures import VIEW_SIDE_PX, embed_picture
from splatfix.views import BANDS

METRICS = (wording.PSNR, wording.SSIM, wording.LPIPS)
MAX_VIEWS = 4  # of a case
MAX_CASES = 4  # of which views are shown
TILE_SIDE_PX = 280


def is_comparison(folder: Path) -> bool:
    """Whether a folder holds a comparison that has results to show."""
    return (Path(folder) / COMPARE).is_file()


def write_compare_page(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a comparison, finished or running; returns the file.

    ``out`` is an HTML file or a folder; by default ``compare.html`` in the folder of the comparison.

    Raises:
        ValueError: no ``compare.json`` in the folder, or not one that this splatfix reads.
    """
    results = shorten_labels(read_compare(folder))
    path = page_path(out, folder, PAGE)
    write_text(path, render_page("compare.html.j2", _context(Path(folder), results)))
    return path


def _context(folder: Path, results: CompareResults) -> dict[str, Any]:
    """The variables of the template."""
    rows = [_row(restorer) for restorer in results.restorers if any(not entry.error for entry in restorer.entries)]
    entries = [entry for restorer in results.restorers for entry in restorer.entries]
    captures = list(dict.fromkeys(case.capture for case in results.cases))
    return {
        "title": ", ".join(captures) if len(captures) < 4 else wording.format_count(len(captures), "capture"),
        "facts": _facts(results, captures),
        "headline": compare_headline(results),
        "metrics": METRICS,
        "bands": BANDS,
        "rows": rows,
        "render": {metric.key: _render_mean(entries, metric.key) for metric in METRICS},
        "num_cases": len(results.cases),
        "good_error": GOOD_ERROR,
        "drift_charts": drift_charts(results),
        "shown_cases": [
            shown for case in results.cases[:MAX_CASES] if (shown := _case_views(folder, results, case))["cards"]
        ],
        "case_rows": [_case_row(results, case) for case in results.cases],
        "errors": [(f"{entry.folder}", entry.error) for entry in entries if entry.error],
        "reasons": results.reasons,
    }


def _facts(results: CompareResults, captures: Sequence[str]) -> list[str]:
    seeds = len({case.seed for case in results.cases})
    num_done = sum(len(restorer.entries) for restorer in results.restorers)
    num_all = len(results.restorers) * len(results.cases)
    facts = [wording.format_count(len(results.restorers), "restorer"), wording.format_count(len(captures), "capture")]
    facts += [wording.format_count(seeds, "seed"), wording.format_duration(sum(results.seconds.values()))]
    return facts if num_done == num_all else [*facts, f"{num_done} of {num_all} so far"]


def _row(restorer: RestorerResult) -> dict[str, Any]:
    """The figures of a restorer, means over its cases."""
    memory = [entry.peak_memory_mb for entry in restorer.entries if entry.peak_memory_mb is not None]
    return {
        "label": restorer.label,
        "restorer": restorer.restorer,
        "options": restorer.options,
        "gain": {metric.key: restorer.mean("gain", metric.key) for metric in METRICS},
        "spread": restorer.spread("gain", "psnr"),
        "by_band": {band: restorer.mean("gain", "psnr", band) for band in BANDS},
        "frames": {metric.key: restorer.mean("frame_mean", "repaired", metric.key) for metric in METRICS},
        "frame_bands": {band: restorer.mean("frame_change", "psnr", band) for band in BANDS},
        "good": restorer.mean("pixel_change", "good"),
        "bad": restorer.mean("pixel_change", "bad"),
        "seconds": restorer.mean("seconds_per_view"),
        "memory": f"{max(memory) / 1024:.1f} GB" if memory else wording.NONE,
        "figures": comparison_figures(restorer),
    }


def _render_mean(entries: Sequence[Entry], metric: str) -> float | None:
    return mean_if_known(entry.frame_mean("render", metric) for entry in entries if entry.frames)


def _case_row(results: CompareResults, case: CompareCase) -> dict[str, Any]:
    found = [restorer for restorer in results.restorers if any(not entry.error for entry in restorer.entries)]
    entries = [next((entry for entry in restorer.entries if entry.case == case.case), None) for restorer in found]
    return {"case": case, "gains": [None if entry is None else entry.gain() for entry in entries]}


def _case_views(folder: Path, results: CompareResults, case: CompareCase) -> dict[str, Any]:
    """Some test views of a case with all repairs, by rule: by the PSNR of their renders, the median first."""
    entries = {
        restorer.label: entry
        for restorer in results.restorers
        for entry in restorer.entries
        if entry.case == case.case and entry.frames
    }
    name = case.capture if len({c.seed for c in results.cases}) == 1 else f"{case.capture}, seed {case.seed}"
    if not entries:
        return {"name": name, "cards": []}
    frames = next(iter(entries.values())).frames
    cards = [_card(folder, entries, frame, roles) for frame, roles in _choose_views(frames)]
    return {"name": name, "cards": [card for card in cards if card["first"] in card["renders"]]}


def _choose_views(frames: Sequence[FrameResult]) -> list[tuple[FrameResult, list[str]]]:
    """The median, the best and the worst render, and the median of the far band; each view once."""
    ranked = sorted(frames, key=lambda frame: (frame.render.get("psnr") or 0.0, frame.name))
    far = [frame for frame in ranked if frame.band == "far"]
    chosen: dict[str, tuple[FrameResult, list[str]]] = {}
    for role, group, place in (
        ("median render", ranked, (len(ranked) - 1) // 2),
        ("worst render", ranked, 0),
        ("best render", ranked, -1),
        ("median of far", far, (len(far) - 1) // 2),
    ):
        if group:
            chosen.setdefault(group[place].name, (group[place], []))[1].append(role)
    return list(chosen.values())[:MAX_VIEWS]


def _card(folder: Path, entries: dict[str, Entry], frame: FrameResult, roles: list[str]) -> dict[str, Any]:
    """Pictures and figures of one view: the render, every repair, the photo; error maps and masks."""
    places = {label: folder / entry.folder for label, entry in entries.items()}
    any_place = next(iter(places.values()))
    own = {label: next(f for f in entry.frames if f.name == frame.name) for label, entry in entries.items()}

    def of_each(kind: str, side_px: int) -> dict[str, Any]:
        return {label: embed_picture(frame_path(place, frame.name, kind), side_px) for label, place in places.items()}

    repairs = of_each("repaired", VIEW_SIDE_PX)
    errors, masks = of_each("error_repaired", TILE_SIDE_PX), of_each("mask", TILE_SIDE_PX)
    renders = {"render": embed_picture(frame_path(any_place, frame.name, "render")), **repairs}
    render_error = embed_picture(frame_path(any_place, frame.name, "error_render"), TILE_SIDE_PX)
    photo = embed_picture(frame_path(any_place, frame.name, "photo"))
    tiles = [{"label": "render", "image": render_error, "psnr": frame.render.get("psnr")}]
    tiles += [{"label": label, "image": errors[label], "psnr": own[label].repaired.get("psnr")} for label in entries]
    right = [label for label in entries if repairs[label]] + (["photo"] if photo else [])
    best = max(entries, key=lambda label: own[label].repaired.get("psnr") or 0.0)
    return {
        "view": frame,
        "roles": roles,
        "psnr": frame.render.get("psnr"),
        "photo": photo,
        "renders": {label: image for label, image in renders.items() if image},
        "first": "render",
        "second": best if best in right else (right[0] if right else None),
        "left": ["render"],
        "right": right,
        "tiles": [tile for tile in tiles if tile["image"]],
        "masks": [
            {"label": label, "image": masks[label], "share": own[label].mask_share or 0.0}
            for label in entries
            if masks[label]
        ],
    }
