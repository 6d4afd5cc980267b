"""Read the files of a run folder for a report; all but the results are optional."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from splatfix.evaluation.layout import VIDEO
from splatfix.evaluation.results import Results, read_results
from splatfix.evaluation.view_cameras import ViewCameras, read_view_cameras
from splatfix.files import read_json
from splatfix.views import read_split


@dataclass(frozen=True, eq=False, kw_only=True)
class RunFiles:
    """One run as the report sees it.

    Attributes:
        path: the run folder.
        label: what to call it beside other runs.
        results: ``results.json``.
        cameras: ``views.json``; empty where missing, as the others below.
        provenance: ``run.json``.
        config_text: ``config.yaml`` as it is written.
        train_ids: the names of the training photos, of ``split.json``.
        history: ``history.json``, records with ``arm``, ``step``, ``loss``.
        video: ``path.mp4`` where it exists.
    """

    path: Path
    label: str
    results: Results
    cameras: ViewCameras = field(default_factory=ViewCameras)
    provenance: dict[str, Any] = field(default_factory=dict)
    config_text: str | None = None
    train_ids: tuple[str, ...] = ()
    history: list[dict[str, Any]] = field(default_factory=list)
    video: Path | None = None


def load_runs(folders: Sequence[str | Path]) -> list[RunFiles]:
    """Load the runs in some folders; runs of one name are numbered.

    Raises:
        ValueError: no folder, no results in it, or a file with other contents than its name says.
    """
    runs = [_load(Path(folder)) for folder in folders]
    labels = [run.label for run in runs]
    return [
        run if labels.count(run.label) == 1 else replace(run, label=f"{run.label} ({k})")
        for k, run in enumerate(runs, start=1)
    ]


def _load(folder: Path) -> RunFiles:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such run folder")
    config, video, split = folder / "config.yaml", folder / VIDEO, folder / "split.json"
    return RunFiles(
        path=folder,
        label=folder.resolve().name,
        results=read_results(folder),
        cameras=read_view_cameras(folder),
        provenance=_read(folder / "run.json", dict) or {},
        config_text=config.read_text(encoding="utf-8") if config.is_file() else None,
        train_ids=read_split(split).train_ids if split.is_file() else (),
        history=_read_history(folder / "history.json"),
        video=video if video.is_file() else None,
    )


def _read_history(path: Path) -> list[dict[str, Any]]:
    """The records of ``history.json``; empty where it does not exist. ValueError for one that is no mapping."""
    history = _read(path, list) or []
    for number, record in enumerate(history):
        if not isinstance(record, dict):
            raise ValueError(f"{path}: record {number} = {record!r:.60}; wanted a mapping")
    return history


def _read(path: Path, kind: type) -> Any:
    """A JSON file with a value of this type at the top; None where it does not exist."""
    if not path.is_file():
        return None
    value = read_json(path)
    if not isinstance(value, kind):
        raise ValueError(f"{path}: wanted a {kind.__name__} at the top, saw {type(value).__name__}")
    return value
