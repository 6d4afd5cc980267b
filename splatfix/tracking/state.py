"""How much of a run's journal MLflow has, kept beside the journal."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from splatfix.config import build_config
from splatfix.files import read_json
from splatfix.tracking.journal import JOURNAL

STATE = "tracking.json"


@dataclass(kw_only=True)
class State:
    """What ``tracking.json`` holds: how a run is found, and how much of the journal MLflow has.

    Attributes:
        uri: without a password; None for the file in the run's own folder, which may be moved with it.
        run, experiment_id: their ids in MLflow, once they have one.
        offset: bytes of the journal that MLflow has.
        left_out: records of files before ``offset`` that could not be stored.
        linked: whether MLflow knows the parent.
    """

    key: str
    experiment: str
    name: str
    parent: str | None
    uri: str | None
    run: str | None = None
    experiment_id: str | None = None
    offset: int = 0
    left_out: list[dict[str, Any]] = field(default_factory=list)
    linked: bool = False


def read_state(folder: Path) -> State:
    """Read ``tracking.json``. ValueError where it is broken."""
    state = build_config(State, read_json(folder / STATE), source=str(folder / STATE))
    if state.offset > _size(folder / JOURNAL):
        state.offset = 0  # the journal was lost or cut
    return state


def is_sent(folder: Path) -> bool:
    """Whether MLflow has all records of the run in a folder; True where there is no journal."""
    folder = Path(folder)
    if not (folder / JOURNAL).is_file():
        return True
    if not (folder / STATE).is_file():
        return False
    state = read_state(folder)
    linked = state.linked or state.parent is None
    return state.offset == _size(folder / JOURNAL) and not state.left_out and linked


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
