"""The contents of ``sweep.json``, the public record of a sweep: its trials, their figures, the reruns, the verdict.

The sweep writes it and the page reads it. The types are here, beside the page, since imports point downward: a sweep
writes its page while it runs, so `splatfix.sweep` is above `splatfix.report` and the report cannot import from it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from splatfix.files import read_json, write_json
from splatfix.records import parse_record

SWEEP, PAGE = "sweep.json", "sweep.html"  # names on disk
SCHEMA = 2
REMEDY = "resume the sweep, which writes it again, or use the splatfix that wrote it"
FIGURES = ("gain", "gain_worst", "near", "mid", "far", "gain_ssim", "seconds")  # of a round, over all cases

Status = Literal["running", "complete", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True)
class CaseFigures:
    """Figures of a trial on one case after a round.

    Attributes:
        gain: ``after`` minus the better of ``before`` and ``control`` of the default config, in the sweep's metric.
        near, mid, far: the gain in each band.
        after: ``after`` itself.
        seconds: of a loop up to there.
    """

    gain: float | None = None
    near: float | None = None
    mid: float | None = None
    far: float | None = None
    after: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class RoundFigures:
    """Figures of a trial after a round, over all cases; None where a case lacks one.

    Attributes:
        round: from 1.
        gain: mean over the cases.
        gain_worst: the smallest of them.
        near, mid, far: mean gain in each band.
        gain_ssim: mean gain in SSIM.
        seconds: of a loop up to there; mean over the cases.
    """

    round: int
    gain: float | None = None
    gain_worst: float | None = None
    near: float | None = None
    mid: float | None = None
    far: float | None = None
    gain_ssim: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """A trial.

    Attributes:
        number: from 0, in the order of the proposals.
        values: searched field -> value, of the fields that are active.
        status: running, complete, stopped (by halving) or failed.
        rounds: figures of each completed round.
        error: why it failed.
        elapsed: seconds from the start of the sweep to the end of the trial.
        is_default: whether it has the default settings.
        gain, gain_worst, near, mid, far, gain_ssim, seconds: of the last round, as in `RoundFigures`.
        cases: figures of the last round by case.
    """

    number: int
    values: dict[str, Any]
    status: Status
    rounds: tuple[RoundFigures, ...] = ()
    error: str | None = None
    elapsed: float | None = None
    is_default: bool = False
    gain: float | None = None
    gain_worst: float | None = None
    near: float | None = None
    mid: float | None = None
    far: float | None = None
    gain_ssim: float | None = None
    seconds: float | None = None
    cases: dict[str, CaseFigures] = field(default_factory=dict)

    def final(self, name: str) -> float | None:
        """A figure of the last round of a complete trial; None of any other."""
        return getattr(self, name) if self.status == "complete" else None


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """A capture with a seed, and the baseline of all trials on it.

    Attributes:
        case: its name, unique in the sweep; a folder name.
        capture: name of the capture.
        seed: of the loop.
        folder: run folder of the baseline, relative to the sweep's.
        before, control: of the default config, in the sweep's metric.
    """

    case: str
    capture: str
    seed: int
    folder: str
    before: float | None
    control: float | None


@dataclass(frozen=True, kw_only=True)
class SearchedField:
    """A field of the loop's config that the sweep searches.

    Attributes:
        field: its name with points, like repair.weight.
        kind: choice, uniform, loguniform or integer.
        low, high: ends of a range; None for a choice.
        log: evenly over orders of magnitude.
        choices: values of a choice; None for a range.
        when: other searched field -> value or values with which this one is searched.
        default: value in the default config.
    """

    field: str
    kind: str
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    choices: tuple[Any, ...] | None = None
    when: dict[str, Any] | None = None
    default: Any = None


@dataclass(frozen=True, kw_only=True)
class RerunFigures:
    """Figures of one rerun in the sweep's metric; the gains are over the baseline of that same run."""

    before: float | None = None
    control: float | None = None
    after: float | None = None
    gain: float | None = None
    near: float | None = None
    mid: float | None = None
    far: float | None = None


@dataclass(frozen=True, kw_only=True)
class RerunRow:
    """The default and the best config on the same capture with the same seed.

    Attributes:
        capture: its name.
        held_out: whether no trial ran on it.
        seed: of both loops.
        default, best: figures of each.
        difference: gain of the best minus gain of the default. Each gain is over the baseline of its own run, which
            trains for as many steps: so longer training alone makes no difference.
        error: why one of them failed.
    """

    capture: str
    held_out: bool = False
    seed: int
    default: RerunFigures = RerunFigures()
    best: RerunFigures = RerunFigures()
    difference: float | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the best config beats the default over reruns with other seeds, and whether it beats its own baseline.

    Attributes:
        beats: True or False where the 95 % interval of the difference excludes 0, else None.
        difference: gain of the best minus gain of the default; mean over the seeds of the means over the captures.
        spread: standard deviation of that over the seeds; None with one seed.
        low, high: 95 % interval of the mean (Student's t); None with one seed.
        gain: of the best over the better of ``before`` and ``control`` of its own runs; mean as of ``difference``.
        gain_low, gain_high: 95 % interval of that mean; None with one seed.
        sentence: all of it in words.
    """

    beats: bool | None
    difference: float
    spread: float | None
    low: float | None
    high: float | None
    gain: float
    gain_low: float | None
    gain_high: float | None
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Reruns:
    """Loops with seeds that no trial used, and the verdicts on captures of the search and on held-out ones."""

    seeds: tuple[int, ...]
    rows: tuple[RerunRow, ...]
    verdict: Verdict | None = None
    held_out: Verdict | None = None

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdicts that exist, by their names in ``sweep.json``."""
        both = {"verdict": self.verdict, "held_out": self.held_out}
        return {name: verdict for name, verdict in both.items() if verdict is not None}


@dataclass(frozen=True, kw_only=True)
class SweepFiles:
    """Names of the other files in the sweep's folder: the best settings, and the trials as a table."""

    best: str
    trials: str


@dataclass(frozen=True, kw_only=True)
class SweepResults:
    """What ``sweep.json`` holds, at the end of a sweep or while it runs.

    Attributes:
        schema: version of this layout.
        name: of the sweep's folder.
        state: running or finished.
        objectives: what was searched for, the first one first: gain, gain_worst, seconds.
        metric: of the gains: psnr or ssim.
        num_trials: of the whole search.
        search, halving: the settings of both.
        seconds: by stage.
        cases: captures with seeds, each with its baseline.
        space: the searched fields.
        trials: in the order of their numbers.
        best: number of the complete trial with the largest first objective.
        pareto: numbers of the complete trials that no other one beats in all objectives.
        importance: share of the spread of the first objective that each field explains.
        importance_reason: why there is none.
        reruns: None before the first pair of reruns.
        files: names of the other files.
    """

    schema: int = SCHEMA
    name: str
    state: Literal["running", "finished"]
    objectives: tuple[str, ...]
    metric: Literal["psnr", "ssim"]
    num_trials: int
    search: dict[str, Any]
    halving: dict[str, Any] | None
    seconds: dict[str, float]
    cases: tuple[CaseResult, ...]
    space: tuple[SearchedField, ...]
    trials: tuple[TrialResult, ...]
    best: int | None
    pareto: tuple[int, ...]
    importance: dict[str, float] | None
    importance_reason: str | None
    reruns: Reruns | None
    files: SweepFiles

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(tree: Any, *, source: str) -> SweepResults:
        """Results from parsed JSON.

        Raises:
            ValueError: another schema, or a missing or ill-typed field; one line names source, field, value and remedy.
        """
        return parse_record(SweepResults, tree, source=source, remedy=REMEDY, schema=SCHEMA)


def write_sweep(folder: Path, results: SweepResults) -> None:
    """Write ``sweep.json`` into the folder of a sweep."""
    write_json(Path(folder) / SWEEP, results.to_json())


def read_sweep(folder: Path) -> SweepResults:
    """Read ``sweep.json`` of a sweep's folder.

    Raises:
        ValueError: no such file, or not one that this splatfix reads; one line names the file and the remedy.
    """
    path = Path(folder) / SWEEP
    if not path.is_file():
        raise ValueError(f"{path}: no such file; wanted the folder of a sweep")
    return SweepResults.from_json(read_json(path), source=str(path))
