"""What a report reads from a run folder, each piece optional but the results."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from splatfix.evaluation import layout
from splatfix.files import read_json


@dataclass(frozen=True, eq=False)
class RunFiles:
    """One run as the report sees it.

    Attributes:
        path: the run folder; None for an entry of ``compare.json`` without a folder of its own.
        label: what to call it beside other runs.
        results: ``results.json``.
        provenance: ``run.json``; empty where missing, as the others below.
        config_text: ``config.yaml`` as it stands.
        split: ``split.json``.
        cameras: ``cameras.json``.
        history: ``history.json``, records with ``arm``, ``step``, ``loss``.
        video: ``path.mp4`` where it exists.
    """

    path: Path | None
    label: str
    results: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)
    config_text: str | None = None
    split: dict[str, Any] = field(default_factory=dict)
    cameras: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    video: Path | None = None

    def number(self, *keys: str) -> float | None:
        """A number of the results by its path of keys; None where it is missing or null."""
        return number(self.results, *keys)


def number(tree: Any, *keys: str) -> float | None:
    """A number in nested mappings; None where any level is missing or null."""
    for key in keys:
        if not isinstance(tree, dict):
            return None
        tree = tree.get(key)
    return float(tree) if isinstance(tree, int | float) and not isinstance(tree, bool) else None


def load_runs(folders: list[Path]) -> list[RunFiles]:
    """The runs in some folders; a folder with ``compare.json`` holds one per restorer.

    Raises:
        ValueError: no folder, no results in it, or a file that is not what its name says.
    """
    runs = []
    for folder in folders:
        folder = Path(folder)
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such run folder")
        if (folder / "compare.json").is_file():
            runs.extend(_compared(folder))
        else:
            runs.append(_load(folder))
    labels = [run.label for run in runs]
    return [run if labels.count(run.label) == 1 else _relabelled(run, k + 1) for k, run in enumerate(runs)]


def _load(folder: Path, label: str | None = None) -> RunFiles:
    if not (folder / "results.json").is_file():
        raise ValueError(
            f"{folder}: no results.json; wanted the folder of a finished fit, loop, evaluate or compare run"
        )
    results = _mapping(folder / "results.json")
    if results.get("schema") != 1:
        raise ValueError(f"{folder / 'results.json'}: schema = {results.get('schema')!r}; this splatfix reads schema 1")
    config = folder / "config.yaml"
    history = read_json(folder / "history.json") if (folder / "history.json").is_file() else []
    return RunFiles(
        path=folder,
        label=label or folder.resolve().name,
        results=results,
        provenance=_mapping(folder / "run.json"),
        config_text=config.read_text(encoding="utf-8") if config.is_file() else None,
        split=_mapping(folder / "split.json"),
        cameras=_mapping(folder / "cameras.json"),
        history=[record for record in history if isinstance(record, dict)] if isinstance(history, list) else [],
        video=folder / layout.VIDEO if (folder / layout.VIDEO).is_file() else None,
    )


def _compared(folder: Path) -> list[RunFiles]:
    """One run per restorer of ``compare.json``, with the pictures of ``folder/<restorer>`` where they are."""
    entries = _mapping(folder / "compare.json")
    provenance = _mapping(folder / "run.json")
    runs = []
    for restorer, results in entries.items():
        if not isinstance(results, dict):
            continue
        own = folder / layout.restorer_folder(restorer)
        if (own / "results.json").is_file():
            loaded = _load(own, label=restorer)
            runs.append(RunFiles(**{**loaded.__dict__, "results": {**loaded.results, **results}}))
        else:
            split = _mapping(folder / "split.json")
            runs.append(RunFiles(path=None, label=restorer, results=results, provenance=provenance, split=split))
    if not runs:
        raise ValueError(f"{folder / 'compare.json'}: no restorer in it")
    return runs


def _relabelled(run: RunFiles, position: int) -> RunFiles:
    return RunFiles(**{**run.__dict__, "label": f"{run.label} ({position})"})


def _mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: wanted a mapping at the top, saw {type(value).__name__}")
    return value
