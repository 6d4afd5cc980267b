"""`write_report`: from run folders to one self-contained HTML page."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from splatfix.evaluation import layout
from splatfix.evaluation.repairs import read_repairs
from splatfix.evaluation.results import ARMS, RESULTS, Results, ViewResult
from splatfix.evaluation.validation import describe_validation
from splatfix.files import write_text
from splatfix.messages import format_bytes
from splatfix.report import charts, comparison, pictures, wording
from splatfix.report.html import page_path, render_page
from splatfix.report.load import RunFiles, load_runs
from splatfix.report.selection import representative_views
from splatfix.report.top_view import camera_plan
from splatfix.views import BANDS, pick_evenly

REPORT, COMPARISON = "report.html", "comparison.html"
MAX_PAIRS_PER_ROUND = 8
MAX_ROUNDS = 4
ERROR_SIDE_PX = 320
MAX_PAGE_BYTES = 6_000_000
RUN_FILES = ("after.ply", "control.ply", "before.ply", layout.VIDEO, RESULTS, "config.yaml", "run.json")


def write_report(run_folders: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write the page of one run (``report.html``), or the comparison of several (``comparison.html``).

    Args:
        run_folders: finished runs.
        out: the HTML file to write, or a folder for it; by default the (first) run folder.

    Returns the file written.

    Raises:
        ValueError: no folder, one without readable results, or ``out`` is the page of one of the compared runs.
    """
    if not run_folders:
        raise ValueError("no run folder given; wanted at least one")
    folders = [Path(folder) for folder in run_folders]
    runs = load_runs(folders)
    path = page_path(out, folders[0], REPORT if len(runs) == 1 else COMPARISON)
    if len(runs) > 1 and path.resolve() in [(folder / REPORT).resolve() for folder in folders]:
        raise ValueError(f"{path}: is the page of one of the compared runs; wanted another file")
    write_text(path, run_page(runs[0], path.parent) if len(runs) == 1 else comparison_page(runs))
    return path


def update_report(run: RunFiles) -> Path:
    """Write the page of one run, unless it is newer than the results; returns its path."""
    page, results = run.path / REPORT, run.path / RESULTS
    if not page.is_file() or page.stat().st_mtime_ns < results.stat().st_mtime_ns:
        write_text(page, run_page(run))
    return page


def run_page(run: RunFiles, folder: Path | None = None) -> str:
    """The page of one run, for a folder from which it links to the files of the run; by default the run's own."""
    folder = folder or run.path
    results = run.results
    cards = [view_card(run, view, roles) for view, roles in representative_views(results.views)]
    tables = metric_tables(run)
    context = {
        "title": f"{results.capture}: splatfix report",
        "run": run,
        "facts": _facts(run),
        "headline": wording.headline(run),
        "validation_sentence": "" if results.validation is None else describe_validation(results.validation),
        "hero": _hero(run, cards),
        "files": run_files(run.path, RUN_FILES, folder),
        "view_command": _view_command(run),
        "tables": tables,
        "arms": results.arms,
        "bands": [{"name": band, "num": sum(view.band == band for view in results.views)} for band in BANDS],
        "other_reasons": _other_reasons(results, shown=[table["metric"].key for table in tables]),
        "cards": cards,
        "rounds": _rounds(run),
        "repairs": read_repairs(run.path),
        "plan": camera_plan(run.cameras),
        "has_repair": bool(run.cameras.repair),
        "scatter": charts.gain_scatter(results.views),
        "loss": charts.loss_curves(run.history),
        "loss_lines": charts.loss_lines(run.history),
        "elongation": results.elongation,
        "num_gaussians": results.num_gaussians,
        "seconds": [(stage, value) for stage, value in results.seconds.items() if value > 0],
        "all_views": sorted(results.views, key=lambda view: (view.distance or 0.0, view.name)),
        "provenance": _provenance(run),
        "notes": [*(run.provenance.get("notes") or []), *wording.describe_ignored(results)],
        "config_text": run.config_text,
        "video": None,
    }
    text = render_page("run.html.j2", context)
    if run.video is not None:  # last, in the room that remains
        room = int((MAX_PAGE_BYTES - len(text.encode("utf-8"))) * 3 / 4)
        video = pictures.embed_video(run.video, room)
        if video is not None and "link" in video:
            video["link"] = _link(run.video, folder)
        text = render_page("run.html.j2", {**context, "video": video, "video_ratio": _video_ratio(run)})
    return text


def _hero(run: RunFiles, cards: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The card at the top: what the figure of the headline compares, with crops of where the two differ most."""
    card = next((card for card in cards if card["first"] and card["second"]), None)
    baseline = wording.baseline_arm(run.results)
    if card is None or baseline is None or baseline not in card["renders"] or "after" not in card["renders"]:
        return card
    names = (baseline, "after", "photo")
    paths = {name: layout.image_path(run.path, card["view"].name, name) for name in names}
    return {**card, "first": baseline, "second": "after", "crops": pictures.embed_crops(paths, baseline, "after")}


def run_files(run: Path, names: Sequence[str], folder: Path) -> list[dict[str, str]]:
    """Links to those of some files that a run has, as seen from the folder of the page, with their sizes."""
    paths = [path for name in names if (path := run / name).is_file()]
    return [
        {"name": path.name, "link": _link(path, folder), "size": format_bytes(path.stat().st_size)} for path in paths
    ]


def _link(path: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(path, folder)).as_posix())


def _view_command(run: RunFiles) -> str | None:
    """The command that shows the splats of the run; None where it has none."""
    arms = [arm for arm in ARMS if (run.path / f"{arm}.ply").is_file()]
    return shlex.join(["splatfix", "view", str(run.path)]) if arms else None


def _video_ratio(run: RunFiles) -> float:
    """Width over height of the video: of the test views, twice as wide where two arms are beside each other."""
    cameras = run.cameras.test or run.cameras.train
    one = cameras[0].width_px / cameras[0].height_px if cameras else 1.5
    return 2 * one if {"before", "after"} <= set(run.results.arms) else one


def comparison_page(runs: Sequence[RunFiles]) -> str:
    """The page that puts several runs beside each other."""
    rows = comparison.rows(runs)
    has_lpips = any(row["gains"]["lpips"] is not None for row in rows)
    context = {
        "title": "splatfix comparison",
        "headline": comparison.headline(runs),
        "runs": runs,
        "metrics": [*(wording.PSNR, wording.SSIM), *([wording.LPIPS] if has_lpips else [])],
        "rows": rows,
        "bars": charts.gain_bars(runs),
        "views": comparison.compared_views(runs),
        "reasons": [(run.label, run.results.reasons) for run in runs if run.results.reasons],
        "provenance": [(run.label, _provenance(run), run.config_text) for run in runs],
    }
    return render_page("comparison.html.j2", context)


def _other_reasons(results: Results, shown: Sequence[str]) -> list[tuple[str, str]]:
    """Why metrics are missing, with their titles, of those that have no table which says so."""
    titles = {metric.key: metric.title for metric in wording.METRICS}
    unknown = {metric.key: "No reason was recorded" for metric in wording.MAIN_METRICS}
    reasons = unknown | dict(results.reasons)
    return sorted((titles.get(name, name), why) for name, why in reasons.items() if name not in shown)


def view_card(run: RunFiles, view: ViewResult, roles: Sequence[str]) -> dict[str, Any]:
    """Pictures and numbers of one test view: the renders that exist, the photo, the error maps."""
    photo = pictures.embed_picture(layout.image_path(run.path, view.name, "photo"))
    renders = {arm: pictures.embed_picture(layout.image_path(run.path, view.name, arm)) for arm in ARMS}
    errors = {arm: pictures.embed_picture(layout.error_path(run.path, view.name, arm), ERROR_SIDE_PX) for arm in ARMS}
    if errors.get("after"):
        errors.pop("post", None)
    renders = {arm: image for arm, image in renders.items() if image}
    arms = list(renders)
    first = "before" if "before" in renders else (arms[0] if arms else None)
    others = [arm for arm in ("after", "post") if arm in renders and arm != first]
    return {
        "view": view,
        "roles": roles,
        "photo": photo,
        "renders": renders,
        "crops": {},
        "errors": {arm: image for arm, image in errors.items() if image},
        "first": first,
        "second": others[0] if others else ("photo" if photo and first else None),
        "gain": wording.view_gain(view),
        "left": [arm for arm in ("before", "control") if arm in renders] or arms[:1],
        "right": [arm for arm in ("after", "post") if arm in renders and arm != first] + (["photo"] if photo else []),
        "metrics": [m for m in wording.MAIN_METRICS if any(view.value(arm, m.key) is not None for arm in ARMS)],
        "arms": [arm for arm in ARMS if getattr(view, arm) is not None],
    }


def metric_tables(run: RunFiles) -> list[dict[str, Any]]:
    """One table per metric that was measured: rows are bands, columns the arms that the run has, and the gain."""
    summary, columns = run.results.summary, run.results.arms
    tables = []
    for metric in wording.METRICS:
        rows = []
        measured = False
        for band in ("all", *BANDS):
            values = {arm: summary.value(band, arm, metric.key) for arm in columns}
            rows.append({"band": band, "values": values, "gain": summary.value(band, "gain", metric.key)})
            measured |= any(value is not None for value in values.values())
        if not measured:
            continue
        tables.append(
            {
                "metric": metric,
                "columns": columns,
                "rows": rows,
                "has_gain": "after" in columns and len(columns) > 1,
                "reason": run.results.reasons.get(metric.key),
            }
        )
    return tables


def _rounds(run: RunFiles) -> list[dict[str, Any]]:
    """Pictures of some rounds' repairs."""
    numbers = pick_evenly(layout.repair_rounds(run.path), MAX_ROUNDS)
    rounds = [pictures.embed_repairs(run.path, number, MAX_PAIRS_PER_ROUND) for number in numbers]
    return [shown for shown in rounds if shown is not None]


def _facts(run: RunFiles) -> list[str]:
    """The line under the title."""
    results = run.results
    facts = [wording.format_count(len(run.train_ids), "training photo")] if run.train_ids else []
    if results.views:
        facts.append(wording.format_count(len(results.views), "test photo"))
    facts.append(f"longest side {results.size_px} px")
    if run.provenance.get("rendered_from"):
        facts.append(f"photos are renders of {run.provenance['rendered_from']}")
    return [*facts, f"restorer {results.restorer}"] if results.restorer else facts


def _provenance(run: RunFiles) -> list[tuple[str, str]]:
    """What was run, for people to read and to repeat."""
    p = run.provenance
    device = p.get("device")
    if device and p.get("device_name") and p["device_name"] != device:
        device = f"{device} ({p['device_name']})"
    memory = p.get("peak_memory_mb")
    pairs = [
        ("command", p.get("command")),
        ("capture", run.results.capture),
        ("restorer", run.results.restorer),
        ("seed", run.results.seed),
        ("device", device),
        ("splatfix", p.get("version")),
        ("commit", wording.shorten_commit(str(p["commit"])) if p.get("commit") else None),
        ("torch", p.get("torch")),
        ("python", p.get("python")),
        ("peak memory", f"{memory} MiB" if memory else None),
        ("finished", wording.format_time(str(p["finished"])) if p.get("finished") else None),
    ]
    return [(name, str(value)) for name, value in pairs if value is not None]
