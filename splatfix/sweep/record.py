"""The record of a trial: its settings, each round's figures, and how it ended. Kept in ``trial.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from splatfix.files import read_json, write_json
from splatfix.records import parse_record
from splatfix.report.sweep.results import CaseFigures, RoundFigures, Status

TRIAL = "trial.json"
ERRORS = "errors.txt"  # the tracebacks of its failed attempts


def trial_folder(sweep: Path, number: int) -> Path:
    """The folder of a trial in that of its sweep."""
    return sweep / trial_part(number)


def trial_part(number: int) -> str:
    """The part of the sweep's mirror that is a trial."""
    return f"trials/{number:04d}"


def trial_name(number: int) -> str:
    """The name of a trial in Ray's dashboard, in MLflow and among the reruns."""
    return f"trial-{number:04d}"


@dataclass(frozen=True, kw_only=True)
class RoundRecord(RoundFigures):
    """A round of a trial.

    Attributes:
        cases: figures of each case.
        time_ms: when it ended, in milliseconds since the epoch.
    """

    cases: dict[str, CaseFigures] = field(default_factory=dict)
    time_ms: int = 0


@dataclass(frozen=True, kw_only=True)
class AttemptEnd:
    """How an attempt at a trial ended.

    Attributes:
        outcome: complete; failed by the trial's own settings; error, which another attempt may not meet; disk full.
        error: why, unless it is complete.
        traceback: of the exception, if there was one.
        breaks_process: whether CUDA no longer works in the process of the attempt.
    """

    outcome: Literal["complete", "failed", "error", "disk full"]
    error: str | None = None
    traceback: str | None = None
    breaks_process: bool = False


TrialReport = RoundRecord | AttemptEnd  # what a running trial reports: rounds, and last its end


def report_to_json(report: TrialReport) -> str:
    """A report as text, for another process."""
    return json.dumps(asdict(report))


def report_from_json(text: str) -> TrialReport:
    """The report that `report_to_json` wrote."""
    tree, source, remedy = json.loads(text), "report of a trial", "use one version of splatfix on all nodes"
    if "outcome" in tree:
        return parse_record(AttemptEnd, tree, source=source, remedy=remedy)
    return parse_record(RoundRecord, tree, source=source, remedy=remedy)


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial.

    Attributes:
        number: from 0, in the order of the proposals.
        values: the searched fields that are active, and their values.
        status: running, complete, stopped (by halving) or failed.
        rounds: the completed rounds.
        error: why it failed.
        elapsed: seconds from the start of the sweep to the end of the trial.
    """

    number: int
    values: dict[str, Any]
    status: Status = "running"
    rounds: tuple[RoundRecord, ...] = ()
    error: str | None = None
    elapsed: float | None = None

    @property
    def name(self) -> str:
        return f"{self.number:04d}"

    @property
    def has_ended(self) -> bool:
        return self.status != "running"

    @property
    def cases(self) -> dict[str, CaseFigures]:
        """Figures of the last round by case."""
        return self.rounds[-1].cases if self.rounds else {}

    def figure(self, name: str, round_number: int | None = None) -> float | None:
        """A figure of a round, or of the last one; None where the trial has not got there."""
        rounds = [round_ for round_ in self.rounds if round_number in (None, round_.round)]
        return getattr(rounds[-1], name) if rounds else None

    def write(self, folder: Path) -> None:
        write_json(folder / TRIAL, asdict(self))


def read_record(folder: Path) -> TrialRecord | None:
    """The trial in a folder; None where there is none. ValueError names a broken file."""
    path = folder / TRIAL
    if not path.is_file():
        return None
    return parse_record(TrialRecord, read_json(path), source=str(path), remedy=f"delete {folder}, to run it again")
