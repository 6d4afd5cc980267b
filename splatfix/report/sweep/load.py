"""What the page of a sweep reads from ``sweep.json``, and how its numbers are named and written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from splatfix.files import read_json
from splatfix.report import wording
from splatfix.report.load import number
from splatfix.report.sweep.results import REMEDY, SCHEMA, SWEEP

OBJECTIVES = {"gain": "gain", "gain_worst": "gain of the worst case"}
STATUS_WORDS = {"stopped": "stopped early", "failed": "failed", "running": "running"}


@dataclass(frozen=True, eq=False)
class SweepFile:
    """A sweep as the page sees it.

    Attributes:
        path: the run folder.
        record: ``sweep.json``.
    """

    path: Path
    record: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.record.get("name") or self.path.resolve().name)

    @property
    def trials(self) -> list[dict[str, Any]]:
        return self.record.get("trials") or []

    @property
    def space(self) -> list[dict[str, Any]]:
        return self.record.get("space") or []

    @property
    def cases(self) -> list[dict[str, Any]]:
        return self.record.get("cases") or []

    @property
    def metric(self) -> wording.Metric:
        """The metric of the gains."""
        return wording.SSIM if self.record.get("metric") == "ssim" else wording.PSNR

    @property
    def unit(self) -> str:
        """``dB`` after a space, or nothing."""
        return " dB" if self.metric is wording.PSNR else ""

    @property
    def objectives(self) -> list[str]:
        return list(self.record.get("objectives") or ["gain"])

    @property
    def objective(self) -> str:
        """The key of the gain that is searched for: ``gain`` or ``gain_worst``."""
        return next((name for name in self.objectives if name in OBJECTIVES), "gain")

    @property
    def objective_title(self) -> str:
        """The name of that gain, with its unit."""
        title = OBJECTIVES[self.objective]
        return f"{title}, dB" if self.unit else f"{title}, SSIM"

    @cached_property
    def complete(self) -> list[dict[str, Any]]:
        """The trials that ended with a gain, in order of their numbers."""
        ended = [trial for trial in self.trials if trial.get("status") == "complete" and self.gain(trial) is not None]
        return sorted(ended, key=lambda trial: trial["number"])

    @cached_property
    def best(self) -> dict[str, Any] | None:
        """The best trial."""
        wanted = self.record.get("best")
        return next((trial for trial in self.trials if wanted is not None and trial["number"] == wanted), None)

    @cached_property
    def default(self) -> dict[str, Any] | None:
        """The trial of the default settings."""
        return next((trial for trial in self.trials if trial.get("is_default")), None)

    @property
    def seconds(self) -> float | None:
        """Of the whole sweep: all stages that ended, or up to the last trial that did where that is more."""
        stages = [value for name in self.record.get("seconds") or {} if (value := number(self.record, "seconds", name))]
        ends = [end for trial in self.trials if (end := number(trial, "elapsed")) is not None]
        return max([sum(stages), *ends]) if stages or ends else None

    def gain(self, trial: dict[str, Any]) -> float | None:
        """What a trial gained by the objective; of one that was stopped, after the last round that it reached."""
        gain = number(trial, self.objective)
        rounds = trial.get("rounds") or []
        return number(rounds[-1], self.objective) if gain is None and rounds else gain

    def signed(self, gain: float | None) -> str:
        """``+0.21 dB``."""
        return wording.written(gain, self.metric.digits, signed=True) + (self.unit if gain is not None else "")

    def kinds(self, trial: dict[str, Any]) -> list[str]:
        """What a trial is drawn as: its status, and whether it is the default or the best."""
        kinds = [str(trial.get("status"))]
        kinds += ["default"] if trial.get("is_default") else []
        return kinds + (["best"] if trial["number"] == self.record.get("best") else [])

    def trial_title(self, trial: dict[str, Any], with_values: bool = False) -> str:
        """A trial in words, for the pointer: number, gain, status, and on further lines its values."""
        names = [name for name in self.kinds(trial) if name != "complete"]
        parts = [f"trial {trial['number']}: {self.signed(self.gain(trial))}", *names]
        if (seconds := number(trial, "seconds")) is not None:
            parts.append(wording.duration(seconds))
        values = trial.get("values") or {}
        lines = [f"{field} = {value_text(value)}" for field, value in values.items()] if with_values else []
        return "\n".join([", ".join(parts), *lines])

    def counts(self) -> str:
        """How many trials ended, and how: ``18 of 24 trials complete, 4 stopped early``."""
        found = Counter(str(trial.get("status")) for trial in self.trials)
        wanted = self.record.get("num_trials") or len(self.trials)
        parts = [f"{found['complete']} of {wording.count(wanted, 'trial')} complete"]
        return ", ".join(parts + [f"{found[status]} {word}" for status, word in STATUS_WORDS.items() if found[status]])


def load_sweep(run: Path) -> SweepFile:
    """The sweep in a run folder.

    Raises:
        ValueError: no ``sweep.json``, or not one that this splatfix reads.
    """
    path = Path(run) / SWEEP
    if not path.is_file():
        raise ValueError(f"{path}: no such file; wanted the run folder of a sweep")
    record = read_json(path)
    if not isinstance(record, dict):
        raise ValueError(f"{path}: wanted a mapping at the top, saw {type(record).__name__}")
    if record.get("schema") != SCHEMA:
        raise ValueError(
            f"{path}: schema = {record.get('schema')!r}, but this splatfix reads schema {SCHEMA}; {REMEDY}"
        )
    return SweepFile(Path(run), record)


def value_text(value: Any) -> str:
    """A setting as a config file has it; numbers with at most four digits."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return ", ".join(map(value_text, value))
    if not isinstance(value, float):
        return str(value)
    mantissa, _, exponent = f"{float(f'{value:.4g}'):.10g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa
