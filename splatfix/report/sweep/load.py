"""A sweep as its page reads it from ``sweep.json``, and how its numbers are named and written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from splatfix.report import wording
from splatfix.report.sweep.results import CaseResult, SearchedField, SweepResults, TrialResult, read_sweep

OBJECTIVES = {"gain": "gain", "gain_worst": "gain of the worst case"}
STATUS_WORDS = {"stopped": "stopped early", "failed": "failed", "running": "running"}


@dataclass(frozen=True, eq=False)
class LoadedSweep:
    """A sweep as its page sees it: the run folder, and what ``sweep.json`` holds."""

    path: Path
    results: SweepResults

    @property
    def name(self) -> str:
        return self.results.name

    @property
    def trials(self) -> tuple[TrialResult, ...]:
        return self.results.trials

    @property
    def space(self) -> tuple[SearchedField, ...]:
        return self.results.space

    @property
    def cases(self) -> tuple[CaseResult, ...]:
        return self.results.cases

    @property
    def is_running(self) -> bool:
        return self.results.state == "running"

    @property
    def metric(self) -> wording.Metric:
        """The metric of the gains."""
        return wording.SSIM if self.results.metric == "ssim" else wording.PSNR

    @property
    def metric_name(self) -> str:
        """The name of that metric, without its unit."""
        return self.metric.title.partition(",")[0]

    @property
    def unit(self) -> str:
        """The unit of the gains after a space, or nothing."""
        return " dB" if self.metric is wording.PSNR else ""

    @property
    def objective(self) -> str:
        """The gain that is searched for: ``gain`` or ``gain_worst``."""
        return next((name for name in self.results.objectives if name in OBJECTIVES), "gain")

    @property
    def objective_name(self) -> str:
        """The name of that gain."""
        return OBJECTIVES[self.objective]

    @property
    def objective_title(self) -> str:
        """The name of that gain, with its unit."""
        return f"{self.objective_name}, dB" if self.unit else f"{self.objective_name}, SSIM"

    @cached_property
    def complete(self) -> list[TrialResult]:
        """The complete trials that have a gain, in order of their numbers."""
        complete = [trial for trial in self.trials if trial.final(self.objective) is not None]
        return sorted(complete, key=lambda trial: trial.number)

    @cached_property
    def best(self) -> TrialResult | None:
        """The best trial."""
        return next((trial for trial in self.trials if trial.number == self.results.best), None)

    @cached_property
    def default(self) -> TrialResult | None:
        """The trial of the default settings."""
        return next((trial for trial in self.trials if trial.is_default), None)

    @property
    def seconds(self) -> float | None:
        """Duration of the sweep: of all stages that ended, or up to the last trial that did where that is longer."""
        stages = self.results.seconds.values()
        ends = [trial.elapsed for trial in self.trials if trial.elapsed is not None]
        return max([sum(stages), *ends]) if stages or ends else None

    def gain(self, trial: TrialResult) -> float | None:
        """The gain of a trial that is searched for, after the last round that it completed."""
        return getattr(trial, self.objective)

    def signed(self, gain: float | None) -> str:
        """A gain in words, like ``+0.21 dB``."""
        return wording.format_number(gain, self.metric.digits, signed=True) + (self.unit if gain is not None else "")

    def kinds(self, trial: TrialResult) -> list[str]:
        """What a trial is drawn as: its status, and whether it is the default or the best."""
        is_best = trial.number == self.results.best
        return [trial.status, *(["default"] if trial.is_default else []), *(["best"] if is_best else [])]

    def trial_title(self, trial: TrialResult, with_values: bool = False) -> str:
        """A trial in words, for the pointer: number, gain, status, and on further lines its values."""
        names = [name for name in self.kinds(trial) if name != "complete"]
        parts = [f"trial {trial.number}: {self.signed(self.gain(trial))}", *names]
        if trial.seconds is not None:
            parts.append(wording.format_duration(trial.seconds))
        lines = [f"{field} = {format_setting(value)}" for field, value in trial.values.items()] if with_values else []
        return "\n".join([", ".join(parts), *lines])

    def counts(self) -> str:
        """How many trials ended, and how: ``18 of 24 trials complete, 4 stopped early``."""
        counts = Counter(str(trial.status) for trial in self.trials)
        parts = [f"{counts['complete']} of {wording.format_count(self.results.num_trials, 'trial')} complete"]
        parts += [f"{counts[status]} {word}" for status, word in STATUS_WORDS.items() if counts[status]]
        return ", ".join(parts)


def load_sweep(run: Path) -> LoadedSweep:
    """The sweep in a run folder. ValueError where there is no ``sweep.json``, or not one that this splatfix reads."""
    return LoadedSweep(Path(run), read_sweep(run))


def format_setting(value: Any) -> str:
    """Format a setting as in a config file; numbers with at most four digits."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return ", ".join(map(format_setting, value))
    if not isinstance(value, float):
        return str(value)
    mantissa, _, exponent = f"{float(f'{value:.4g}'):.10g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa
