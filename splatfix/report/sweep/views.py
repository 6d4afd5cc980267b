"""Pictures of the best trial of a sweep: its best and worst test views, and what it repaired."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from splatfix.evaluation import layout
from splatfix.evaluation.results import RESULTS, ViewResult, read_results
from splatfix.report import pictures
from splatfix.report.sweep.load import LoadedSweep
from splatfix.report.sweep.results import CaseResult
from splatfix.report.wording import view_gain

VIEWS_EACH = 3
VIEW_SIDE_PX = 420
PAIRS_PER_CASE = 5
MAX_CASES = 6


def extreme_views(sweep: LoadedSweep) -> list[dict[str, Any]]:
    """The test views of the best trial with the largest and the smallest gain, over all cases, with their pictures.

    ``{"role", "case", "view", "gain", "pictures"}``, the largest first; each view once; empty where the trial's folder
    holds none.
    """
    found = []
    for case, folder in _folders(sweep):
        for view in read_results(folder).views if (folder / RESULTS).is_file() else ():
            gain = view_gain(view)
            if gain is not None and layout.image_path(folder, view.name, "after").is_file():
                found.append((gain, case, folder, view))
    found.sort(key=lambda entry: (-entry[0], entry[1].case, entry[3].name))
    num = min(VIEWS_EACH, (len(found) + 1) // 2)
    chosen = [("largest gain", entry) for entry in found[:num]]
    chosen += [("smallest gain", entry) for entry in found[max(num, len(found) - num) :]]
    return [
        {"role": role, "case": case.case, "view": view, "gain": gain, "pictures": _shown(sweep, case, folder, view)}
        for role, (gain, case, folder, view) in chosen
    ]


def repaired_views(sweep: LoadedSweep) -> list[dict[str, Any]]:
    """Some repaired novel views of the best trial's last round: `pictures.embed_repairs` and ``case``, per case."""
    shown = []
    for case, folder in _folders(sweep)[:MAX_CASES]:
        rounds = layout.repair_rounds(folder)
        repairs = pictures.embed_repairs(folder, rounds[-1], PAIRS_PER_CASE) if rounds else None
        if repairs is not None:
            shown.append({"case": case.case, **repairs})
    return shown


def _folders(sweep: LoadedSweep) -> list[tuple[CaseResult, Path]]:
    """Each case, with the run folder that the best trial has for it."""
    if sweep.best is None:
        return []
    trial = sweep.path / "trials" / f"{sweep.best.number:04d}"
    return [(case, trial / case.case) for case in sweep.cases]


def _shown(sweep: LoadedSweep, case: CaseResult, folder: Path, view: ViewResult) -> list[dict[str, Any]]:
    """The photo, ``control`` (or else ``before``) and ``after``, from the trial's folder or that of the baseline."""

    def find(kind: str) -> list[dict[str, Any]]:
        for run in (folder, sweep.path / case.folder):
            if image := pictures.embed_picture(layout.image_path(run, view.name, kind), VIEW_SIDE_PX):
                psnr = None if kind == "photo" else view.value(kind, "psnr")
                return [{"kind": kind, "image": image, "psnr": psnr}]
        return []

    return [*find("photo"), *(find("control") or find("before")), *find("after")]
