"""Whether the mean of paired changes stands out from their spread: the rule for every verdict on a gain.

A gain is a mean over test views. Its standard error is that of the paired changes, one a view (sample standard
deviation over the square root of their number). Neighboring views resemble each other, so the true error is larger; a
mean of less than two standard errors is within noise.

Where fits do not repeat exactly (on CUDA), a gain also has a part that another run with the same seed would not have,
and that may be the same at all views. Its size, the run-to-run spread, is the difference between two controls that
differ in nothing else. It is a single draw of what the gain, a difference of two such runs, has by chance: a mean below
it is within noise, too.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from splatfix.evaluation.results import LOWER_IS_BETTER, Metrics, ViewResult

MIN_VIEWS = 3  # with fewer, a standard deviation says nothing
NUM_ERRORS = 2.0

Verdict = Literal["better", "worse", "within noise", "too small"]


@dataclass(frozen=True, kw_only=True)
class PairedGain:
    """The mean of paired changes, and how far it is to be trusted.

    Attributes:
        mean: of the changes, in the unit of their metric.
        standard_error: of the mean; None with fewer than `MIN_VIEWS` changes.
        num: number of changes.
        noticeable: a smaller mean is too small to matter, however certain.
        higher_is_better: the direction of improvement.
        spread: the run-to-run spread of the metric; None where it was not measured.
    """

    mean: float
    standard_error: float | None
    num: int
    noticeable: float
    higher_is_better: bool = True
    spread: float | None = None

    @property
    def verdict(self) -> Verdict:
        """Whether the change is for the better or the worse, beyond noise, and large enough to notice."""
        if abs(self.mean) < max(NUM_ERRORS * (self.standard_error or 0.0), self.spread or 0.0):
            return "within noise"
        if abs(self.mean) < self.noticeable:
            return "too small"
        return "better" if (self.mean > 0) == self.higher_is_better else "worse"


def paired_gain(
    views: Sequence[ViewResult], metric: str, *, noticeable: float, spread: float | None = None
) -> PairedGain | None:
    """Summarize the gain of a metric over test views: ``after`` minus the better of ``before`` and ``control``.

    The better arm is that of the better mean, as in `BandSummary.gain`, whose value the mean is. None where an arm or
    a value is missing.

    Args:
        views: the test views.
        metric: key of the metric in the results.
        noticeable: a smaller mean is too small to matter, in the unit of the metric.
        spread: the run-to-run spread of the metric (`Results.spread`), in its unit; None if it was not measured.
    """
    rivals = [known for arm in ("before", "control") if (known := _values(views, arm, metric))]
    after = _values(views, "after", metric)
    if after is None or len(rivals) < 2:
        return None
    lower = metric in LOWER_IS_BETTER
    rival = (min if lower else max)(rivals, key=statistics.fmean)
    changes = [new - old for new, old in zip(after, rival, strict=True)]
    return PairedGain(
        mean=statistics.fmean(changes),
        standard_error=statistics.stdev(changes) / math.sqrt(len(changes)) if len(changes) >= MIN_VIEWS else None,
        num=len(changes),
        noticeable=noticeable,
        higher_is_better=not lower,
        spread=spread,
    )


def run_spread(control: Metrics | None, again: Metrics | None) -> Metrics | None:
    """The run-to-run spread: absolute difference of the means of two controls, by metric; None where one is missing."""
    if control is None or again is None:
        return None
    spread: Metrics = {}
    for metric, value in control.items():
        other = again.get(metric)
        spread[metric] = None if value is None or other is None else abs(value - other)
    return spread


def _values(views: Sequence[ViewResult], arm: str, metric: str) -> list[float] | None:
    values = [value for view in views if (value := view.value(arm, metric)) is not None]
    return values if values and len(values) == len(views) else None
