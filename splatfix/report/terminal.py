"""Results for the terminal: tables, a verdict and where the page is, at most 80 columns wide."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from splatfix import storage
from splatfix.evaluation.results import Results
from splatfix.evaluation.validation import describe_validation
from splatfix.mirror import open_mirror
from splatfix.report import comparison
from splatfix.report.compare.figures import comparison_figures
from splatfix.report.compare.headline import compare_headline
from splatfix.report.compare.results import PAGE as COMPARE_PAGE
from splatfix.report.compare.results import CompareResults, RestorerResult, shorten_labels
from splatfix.report.load import RunFiles
from splatfix.report.pose import pose_headline
from splatfix.report.svg import cut
from splatfix.report.sweep.results import PAGE, SweepResults, TrialResult
from splatfix.report.wording import (
    MAIN_METRICS,
    METRICS,
    PSNR_COLOR,
    describe_ignored,
    format_number,
    headline,
    recommended_arm,
    verdict,
)
from splatfix.sfm import PoseRecord
from splatfix.tracking import page_of
from splatfix.views import BANDS

WIDTH = 80
MAX_ADVICE = 8  # photos without a camera that are listed
_CELL = 9


def next_command(*words: object) -> str:
    """What to run next: a line of the terminal, whose words are quoted where a shell needs it."""
    return f"next:   splatfix {shlex.join(str(word) for word in words)}"


def describe_run(run: RunFiles, page: Path) -> str:
    """The table of a finished run, its verdict, where the page and the splat are, and the next command."""
    return "\n".join([results_table(run.results), "", *describe_verdict(run, page)])


def describe_verdict(run: RunFiles, page: Path) -> list[str]:
    """The verdict on a finished run, where its page and its splat are, and the next command: lines."""
    top = headline(run)
    decision = verdict(run.results)
    disagreement = [detail for detail in top.details if detail.startswith("The metrics disagree")]
    sentences = [top.sentence] if decision is None else [decision, *disagreement]
    if run.results.validation is not None:
        sentences.insert(0, describe_validation(run.results.validation))
    if run.provenance.get("rendered_from"):
        sentences.append(f"The photos are renders of {run.provenance['rendered_from']}, which itself was not repaired.")
    lines = [*(textwrap.fill(sentence, WIDTH, break_on_hyphens=False) for sentence in sentences), f"report: {page}"]
    arm = recommended_arm(run.results)
    inputs = {name: known.get("path") for name, known in run.provenance.get("inputs", {}).items()}
    splat = run.path / f"{arm}.ply"
    shown: tuple[Any, ...] = (run.path,)
    if not splat.is_file() and inputs.get("splat"):  # of an evaluation
        splat = Path(inputs["splat"])
        shown = (splat, *([inputs["capture"]] if inputs.get("capture") else []))
    if arm is not None and splat.is_file():
        lines += [f"splat:  {splat}", next_command("view", *shown)]
    return lines


def describe_runs(runs: Sequence[RunFiles], page: Path) -> str:
    """The headline of several runs beside each other, and where their page is."""
    top = comparison.headline(runs)
    figure = (f"{top.figure}: {top.caption}.",) if top.figure else ()
    sentences = (top.sentence, *figure, *top.details)
    return "\n".join([*(textwrap.fill(each, WIDTH, break_on_hyphens=False) for each in sentences), f"report: {page}"])


def results_table(results: Results) -> str:
    """before, control, after, post and gain by band, one block per metric that was measured; null as an em dash.

    Arms that the run does not have are left out; the reasons why metrics are missing are listed below.
    """
    arms = results.arms
    if not arms:
        return "No test view was measured." + _reasons(results.reasons)
    has_gain = "after" in arms and len(arms) > 1
    lines = []
    for metric in METRICS:
        measured = any(results.summary.value("all", arm, metric.key) is not None for arm in arms)
        if metric is PSNR_COLOR or (not measured and metric not in MAIN_METRICS):
            continue
        title = metric.title + ("" if metric.higher_is_better else " (lower is better)")
        lines.append("")
        if not measured:
            lines.append(f"{title}: —")
            continue
        columns = [*arms, *(["gain"] if has_gain else [])]
        lines.append(title)
        lines.append("  " + f"{'':<14}" + "".join(f"{column:>{_CELL}}" for column in columns))
        for band in ("all", *BANDS):
            views = [view for view in results.views if band in ("all", view.band)]
            cells = [format_number(results.summary.value(band, arm, metric.key), metric.digits) for arm in arms]
            if has_gain:
                cells.append(format_number(results.summary.value(band, "gain", metric.key), metric.digits, signed=True))
            label = f"{band} ({len(views)})"
            lines.append("  " + f"{label:<14}" + "".join(f"{cell:>{_CELL}}" for cell in cells))
    if has_gain:
        lines += ["", "gain: after minus the better of before and control; (n): test photos in the band"]
    for sentence in describe_ignored(results):
        lines += ["", textwrap.fill(sentence, WIDTH)]
    return "\n".join(lines).lstrip("\n") + _reasons(results.reasons)


def sweep_table(results: SweepResults, num: int = 5) -> str:
    """The best few trials of a sweep and the default, with the verdicts of the reruns."""
    ranked = _rank_trials(results)
    counts = {status: sum(trial.status == status for trial in results.trials) for status in ("stopped", "failed")}
    lines = [
        ", ".join([f"{len(ranked)} trials complete", *(f"{n} {status}" for status, n in counts.items() if n)]),
        "",
        f"  {'trial':<9}" + "".join(f"{name:>{_CELL}}" for name in ("gain", "worst", "seconds")) + "  settings",
    ]
    digits = 4 if results.metric == "ssim" else 2
    for trial in [*ranked[:num], *(trial for trial in ranked[num:] if trial.is_default)]:
        gains = [format_number(gain, digits, signed=True) for gain in (trial.gain, trial.gain_worst)]
        cells = "".join(f"{cell:>{_CELL}}" for cell in (*gains, format_number(trial.seconds, 0)))
        settings = " ".join(f"{field}={_plain(value)}" for field, value in trial.values.items())
        name = f"{trial.number}{' default' if trial.is_default else ''}"
        lines.append(f"  {name:<9}{cells}  {settings}")
    if len(ranked) > 1 and ranked[0].is_default:
        lines += ["", "No trial beats the default settings: nothing was rerun, and best.yaml holds the defaults."]
    for found in results.reruns.verdicts.values() if results.reruns is not None else ():
        lines += ["", textwrap.fill(found.sentence, WIDTH)]
    return "\n".join(lines)


def _rank_trials(results: SweepResults) -> list[TrialResult]:
    """The complete trials, the best first."""
    objective = results.objectives[0]
    complete = [
        (-gain, trial.number, trial) for trial in results.trials if (gain := trial.final(objective)) is not None
    ]
    return [trial for _, _, trial in sorted(complete)]


def describe_sweep(results: SweepResults, folder: Path | str) -> str:
    """The table of a finished sweep, and where its files are."""
    best = storage.join(folder, results.files.best)
    ranked = _rank_trials(results)
    keeps_default = bool(ranked) and ranked[0].is_default
    lines = [sweep_table(results), f"best config: {best}", f"page: {storage.join(folder, PAGE)}"]
    if (tracked := page_of(open_mirror(folder).path)) is not None:
        lines.append(f"MLflow: {tracked}")
    lines.append(next_command("loop", "CAPTURE", *(() if keeps_default else ("--config", best)), "--out", "runs/best"))
    return "\n".join(lines)


def comparison_table(results: CompareResults) -> str:
    """One row per restorer: single frames, drift, consistency, and the gain in 3D; means over the cases."""
    columns = ("frame PSNR", "change", "drift", "disagree", "gain", "s/view")
    lines = [f"  {'restorer':<24}" + "".join(f"{name:>{max(_CELL, len(name) + 2)}}" for name in columns)]
    for restorer in results.restorers:
        if all(entry.error for entry in restorer.entries):
            lines.append(f"  {cut(restorer.label, 23):<24}  not measured")
            continue
        figures = comparison_figures(restorer)
        cells = [
            format_number(figures.frame_psnr, 2),
            format_number(figures.frame_change, 2, signed=True),
            format_number(figures.drift, 4),
            format_number(figures.warp_ratio, 2),
            format_number(figures.gain, 2, signed=True),
            format_number(restorer.mean("seconds_per_view"), 2),
        ]
        widths = [max(_CELL, len(name) + 2) for name in columns]
        row = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        lines.append(f"  {cut(restorer.label, 23):<24}{row}")
    notes = (
        "frame PSNR and change: repaired test views, in dB, and against their renders",
        "drift: standard deviation of the color gain over the test views",
        "disagree: error of a repaired view warped into its neighbor, over that of the photos",
        "gain: in 3D, after minus the better of before and control, in dB",
    )
    return "\n".join([*lines, "", *notes])


def describe_comparison(results: CompareResults, folder: Path | str) -> str:
    """The table of a comparison, its verdict, and where the page is."""
    results = shorten_labels(results)
    headline = compare_headline(results)
    words = [textwrap.fill(sentence, WIDTH) for sentence in (headline.sentence, *headline.details)]
    lines = [comparison_table(results), "", *words, f"page: {storage.join(folder, COMPARE_PAGE)}"]
    best = best_restorer(results)
    if best is not None:
        setting = yaml.safe_dump({"name": best.restorer, "options": best.options}, default_flow_style=True, width=1000)
        restorer = setting.strip() if best.options else best.restorer
        lines.append(next_command("loop", "CAPTURE", "--restorer", restorer, "--out", "runs/best"))
    return "\n".join(lines)


def best_restorer(results: CompareResults) -> RestorerResult | None:
    """The restorer with the largest mean gain in 3D; None where none gains anything."""
    gains = [
        (gain, -place, restorer)
        for place, restorer in enumerate(results.restorers)
        if (gain := comparison_figures(restorer).gain) is not None and gain > 0
    ]
    return max(gains)[2] if gains else None


def describe_pose(record: PoseRecord, page: Path) -> str:
    """How many photos of a capture have a camera, which have none and why, where the page is, and the next command."""
    headline = pose_headline(record)
    lines = [textwrap.fill(sentence, WIDTH) for sentence in (headline.sentence, *headline.details)]
    lines += [f"  {photo.name}: {photo.advice}" for photo in record.unregistered[:MAX_ADVICE]]
    if len(record.unregistered) > MAX_ADVICE:
        lines.append(f"  and {len(record.unregistered) - MAX_ADVICE} more: see the page")
    lines.append(f"page: {page}")
    if record.registered:
        lines.append(next_command("loop", page.parent, "--out", f"runs/{page.parent.name}"))
    return "\n".join(lines)


def _plain(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _reasons(reasons: Mapping[str, str]) -> str:
    lines = []
    for name, reason in reasons.items():
        lines.append(
            textwrap.fill(
                f"{name}: {reason}", WIDTH, initial_indent="— ", subsequent_indent="  ", break_on_hyphens=False
            )
        )
    return "\n" + "\n".join(lines) if lines else ""
