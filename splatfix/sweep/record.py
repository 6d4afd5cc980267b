"""What is known of a trial: its settings, each round's figures, and how it ended. Kept in ``trial.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from splatfix.config import build_config
from splatfix.files import read_json, write_json

TRIAL = "trial.json"
FIGURES = ("gain", "gain_worst", "near", "mid", "far", "gain_ssim", "seconds")  # of a round, over all cases
Status = Literal["running", "complete", "stopped", "failed"]


@dataclass(kw_only=True)
class TrialRecord:
    """A trial.

    Attributes:
        number: from 0, in the order of the proposals.
        values: the searched fields that are active, and their values.
        status: running, complete, stopped (by halving) or failed.
        rounds: per round ``round``, the ``FIGURES`` (means over the cases; seconds of a loop up to there), ``cases``
            (each one's figures) and ``time_ms``.
        error: why it failed.
        elapsed: seconds from the begin of the sweep to its end.
    """

    number: int
    values: dict[str, Any]
    status: Status = "running"
    rounds: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    elapsed: float | None = None

    @property
    def name(self) -> str:
        return f"{self.number:04d}"

    @property
    def cases(self) -> dict[str, dict[str, Any]]:
        """Figures of the last round, case by case."""
        return self.rounds[-1]["cases"] if self.rounds else {}

    def objective(self, name: str) -> float | None:
        """Of the last round."""
        return self.rounds[-1].get(name) if self.rounds else None

    def reached(self, round_number: int, name: str) -> float | None:
        """Of a round; None where it has not got there."""
        return next((made.get(name) for made in self.rounds if made["round"] == round_number), None)

    def write(self, folder: Path) -> None:
        write_json(folder / TRIAL, asdict(self))


def read_record(folder: Path) -> TrialRecord | None:
    """The trial in a folder; None where there is none. ValueError where its file is broken."""
    path = folder / TRIAL
    return build_config(TrialRecord, read_json(path), source=str(path)) if path.is_file() else None
