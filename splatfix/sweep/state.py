"""What a sweep keeps to be resumed besides its trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import splatfix
from splatfix.files import read_json, write_json
from splatfix.records import parse_record

STATE = "state.json"
VERSIONS = ("optuna", "ray")  # without Ray, trials run in this process


@dataclass(frozen=True, kw_only=True)
class SweepState:
    """The contents of ``state.json``.

    Attributes:
        parallel: trials that may run at once; the proposals depend on it.
        seconds: by stage.
        versions: of the packages that the proposals depend on.
    """

    parallel: int
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def write_state(folder: Path, *, parallel: int, seconds: Mapping[str, float]) -> None:
    """Write ``state.json``."""
    state = SweepState(
        parallel=parallel,
        seconds={name: round(value, 1) for name, value in seconds.items()},
        versions={"splatfix": splatfix.__version__, **{name: version(name) for name in VERSIONS if find_spec(name)}},
    )
    write_json(folder / STATE, asdict(state))


def read_state(folder: Path) -> SweepState | None:
    """The state of the sweep in a folder; None for a new one."""
    path = folder / STATE
    if not path.is_file():
        return None
    return parse_record(SweepState, read_json(path), source=str(path), remedy="use --fresh to start over")
