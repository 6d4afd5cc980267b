"""`write_report`: from run folders to one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

import splatfix
from splatfix.evaluation import layout
from splatfix.evaluation.figures import ERROR_MAX, error_legend
from splatfix.evaluation.layout import ARMS
from splatfix.files import write_text
from splatfix.report import charts, comparison, pictures, wording
from splatfix.report.load import RunFiles, load_runs, number
from splatfix.report.selection import evenly, telling_views
from splatfix.report.top_view import camera_plan
from splatfix.views import BANDS

MAX_PAIRS_PER_ROUND = 8
MAX_ROUNDS_SHOWN = 4
MAIN_METRICS = (wording.PSNR, wording.SSIM, wording.LPIPS)
MAX_PAGE_BYTES = 6_000_000


def write_report(run_folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write ``report.html``: a page for one run, a comparison for several (or for a ``compare`` run).

    Args:
        run_folders: finished runs.
        out: the file to write; by default ``report.html`` in the first folder.

    Returns the file written.

    Raises:
        ValueError: no folder, or one without readable results.
    """
    if not run_folders:
        raise ValueError("no run folder given; wanted at least one")
    folders = [Path(folder) for folder in run_folders]
    runs = load_runs(folders)
    compares = len(runs) > 1 or (folders[0] / "compare.json").is_file()
    text = comparison_page(runs) if compares else run_page(runs[0])
    out = Path(out) if out is not None else folders[0] / "report.html"
    write_text(out, text)
    return out


def run_page(run: RunFiles) -> str:
    """The page of one run."""
    results = run.results
    cards = [view_card(run, view, roles) for view, roles in telling_views(results.get("views") or [])]
    rounds = _rounds(run)
    context = {
        "title": f"{results.get('capture') or run.label}: splatfix report",
        "run": run,
        "facts": _facts(run),
        "headline": wording.headline(run),
        "hero": next((card for card in cards if card["first"] and card["second"]), None),
        "tables": metric_tables(run),
        "arms": _arms(run),
        "bands": [
            {"name": band, "num": sum(view.get("band") == band for view in results.get("views") or [])}
            for band in BANDS
        ],
        "reasons": results.get("reasons") or {},
        "cards": cards,
        "rounds": rounds,
        "plan": camera_plan(run.cameras),
        "has_repair": bool(run.cameras.get("repair")),
        "scatter": charts.gain_scatter(results.get("views") or []),
        "loss": charts.loss_curves(run.history),
        "loss_arms": [arm for arm in ARMS if any(record.get("arm") == arm for record in run.history)],
        "round_curve": charts.round_curve(results.get("rounds") or []),
        "elongation": results.get("elongation") or {},
        "num_gaussians": results.get("num_gaussians") or {},
        "seconds": _seconds(run),
        "all_views": sorted(results.get("views") or [], key=lambda view: (number(view, "distance") or 0, view["name"])),
        "provenance": _provenance(run),
        "notes": [*(run.provenance.get("capture_notes") or []), *(run.provenance.get("notes") or [])],
        "config_text": run.config_text,
        "video": None,
    }
    template = environment().get_template("run.html.j2")
    text = template.render(context)
    if run.video is not None:  # after all else, for as much room as is left
        room = int((MAX_PAGE_BYTES - len(text.encode("utf-8"))) * 3 / 4)
        text = template.render({**context, "video": pictures.video(run.video, room)})
    return text


def comparison_page(runs: Sequence[RunFiles]) -> str:
    """The page that puts several runs beside each other."""
    context = {
        "title": "splatfix comparison",
        "headline": comparison.headline(runs),
        "runs": runs,
        "metrics": MAIN_METRICS,
        "rows": comparison.rows(runs),
        "extra_columns": comparison.extra_columns(runs),
        "bars": comparison.gain_bars(runs),
        "views": comparison.shared_views(runs),
        "reasons": [(run.label, run.results.get("reasons")) for run in runs if run.results.get("reasons")],
        "provenance": [(run.label, _provenance(run), run.config_text) for run in runs],
        "some_marked": any(comparison.saw_group(run) for run in runs),
    }
    return environment().get_template("comparison.html.j2").render(context)


def view_card(run: RunFiles, view: dict[str, Any], roles: Sequence[str]) -> dict[str, Any]:
    """Pictures and numbers of one test view: the renders that exist, the photo, the error maps."""
    renders, errors, photo = {}, {}, None
    if run.path is not None:
        photo = pictures.picture(pictures.either(layout.image_path(run.path, view["name"], "photo")))
        for arm in ARMS:
            renders[arm] = pictures.picture(pictures.either(layout.image_path(run.path, view["name"], arm)))
            errors[arm] = pictures.picture(pictures.either(layout.error_path(run.path, view["name"], arm)), 320)
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
        "errors": {arm: image for arm, image in errors.items() if image},
        "first": first,
        "second": others[0] if others else ("photo" if photo and first else None),
        "gain": wording.view_gain(view),
        "left": [arm for arm in ("before", "control") if arm in renders] or arms[:1],
        "right": [arm for arm in ("after", "post") if arm in renders and arm != first] + (["photo"] if photo else []),
        "metrics": [m for m in MAIN_METRICS if any(number(view, arm, m.key) is not None for arm in ARMS)],
        "arms": [arm for arm in ARMS if view.get(arm)],
    }


def metric_tables(run: RunFiles) -> list[dict[str, Any]]:
    """One table per metric: rows are bands, columns the arms that the run has, and the gain."""
    summary = run.results.get("summary") or {}
    columns = _arms(run)
    tables = []
    for metric in wording.METRICS:
        rows = []
        measured = False
        for band in ("all", *BANDS):
            values = {arm: number(summary, band, arm, metric.key) for arm in columns}
            rows.append({"band": band, "values": values, "gain": number(summary, band, "gain", metric.key)})
            measured |= any(value is not None for value in values.values())
        if not measured and metric not in MAIN_METRICS:
            continue
        tables.append(
            {
                "metric": metric,
                "columns": columns,
                "rows": rows,
                "has_gain": "after" in columns and len(columns) > 1,
                "measured": measured,
                "reason": (run.results.get("reasons") or {}).get(metric.key),
            }
        )
    return sorted(tables, key=lambda table: not table["measured"])  # stable: what was not measured comes last


def _arms(run: RunFiles) -> list[str]:
    """The arms that were evaluated, by the summary or, where that is empty, by the views."""
    summary = (run.results.get("summary") or {}).get("all") or {}
    arms = [arm for arm in ARMS if summary.get(arm)]
    return arms or [arm for arm in ARMS if any(view.get(arm) for view in run.results.get("views") or [])]


def _rounds(run: RunFiles) -> list[dict[str, Any]]:
    if run.path is None:
        return []
    rounds = []
    for round_number in evenly(layout.repair_rounds(run.path), MAX_ROUNDS_SHOWN):
        pairs = layout.repair_pairs(run.path, round_number)
        shown = [
            {"render": a, "repaired": b}
            for a, b in (
                (pictures.picture(render, pictures.STRIP_SIDE_PX), pictures.picture(repaired, pictures.STRIP_SIDE_PX))
                for render, repaired in evenly(pairs, MAX_PAIRS_PER_ROUND)
            )
            if a and b
        ]
        if shown:
            rounds.append({"number": round_number, "pairs": shown, "total": len(pairs)})
    return rounds


def _facts(run: RunFiles) -> list[str]:
    """The line under the title."""
    results, num_train = run.results, len(run.split.get("train_ids") or [])
    facts = []
    if num_train:
        facts.append(wording.count(num_train, "training photo"))
    if results.get("views"):
        facts.append(wording.count(len(results["views"]), "test photo"))
    if results.get("size_px"):
        facts.append(f"longest side {results['size_px']} px")
    if results.get("restorer"):
        facts.append(f"restorer {results['restorer']}")
    return facts


def _seconds(run: RunFiles) -> list[tuple[str, float]]:
    seconds = run.results.get("seconds") or run.provenance.get("seconds") or {}
    return [(str(stage), float(value)) for stage, value in seconds.items() if isinstance(value, int | float)]


def _provenance(run: RunFiles) -> list[tuple[str, str]]:
    """What was run, for people to read and to repeat."""
    p = run.provenance
    device = p.get("device")
    if device and p.get("device_name") and p["device_name"] != device:
        device = f"{device} ({p['device_name']})"
    memory = p.get("peak_memory_mb")
    pairs = [
        ("command", p.get("command")),
        ("capture", run.results.get("capture")),
        ("restorer", run.results.get("restorer")),
        ("seed", run.results.get("seed") if run.results.get("seed") is not None else p.get("seed")),
        ("device", device),
        ("splatfix", p.get("version")),
        ("commit", p.get("commit")),
        ("torch", p.get("torch")),
        ("python", p.get("python")),
        ("peak memory", f"{memory} MiB" if memory else None),
        ("finished", p.get("finished")),
    ]
    return [(name, str(value)) for name, value in pairs if value is not None]


def environment() -> Environment:
    """The templates, with what all pages use."""
    environment = Environment(
        loader=PackageLoader("splatfix.report", "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        version=splatfix.__version__,
        number=number,
        meanings=wording.ARM_MEANINGS,
        legend=error_legend(),
        error_max=ERROR_MAX,
        PSNR=wording.PSNR,
        gain_of=wording.view_gain,
    )
    environment.filters.update(
        written=wording.written,
        duration=wording.duration,
        counted=wording.count,
        marker=lambda band: charts.Markup(charts.marker(band, 7.0, 7.0, band or "", 4.5)),
    )
    return environment
