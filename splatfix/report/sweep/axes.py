"""The position of a setting on the axis of its field: in a range, at one of some choices, or at "not set"."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import MaxNLocator

from splatfix.report.sweep.load import LoadedSweep, format_setting
from splatfix.report.sweep.results import SearchedField
from splatfix.report.wording import format_number

NOT_SET = "not set"
UNSET_SHARE = 0.21  # of an axis, between "not set" and where the range begins
MAX_TICKS = 6


@dataclass(frozen=True, kw_only=True)
class FieldScale:
    """The axis of one searched field, from 0 (left, bottom) to 1.

    Attributes:
        field: its name.
        choices: its values, evenly spaced; None for a range.
        low: where the range begins; the base-10 logarithm where ``log``.
        high: where it ends, likewise.
        log: evenly over orders of magnitude.
        whole: the values are whole numbers.
        has_unset: some trials lack the field: they are at 0, apart from all values.
    """

    field: str
    choices: tuple[Any, ...] | None = None
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    whole: bool = False
    has_unset: bool = False

    def at(self, values: dict[str, Any]) -> float:
        """The position of a trial with these values."""
        share = self._share(values[self.field]) if self.field in values else None
        if share is None:
            return 0.0
        return UNSET_SHARE + share * (1 - UNSET_SHARE) if self.has_unset else share

    def ticks(self) -> list[tuple[float, str]]:
        """Ticks of the axis: (position, label)."""
        if self.choices is not None:
            found = [(self.at({self.field: choice}), format_setting(choice)) for choice in self.choices]
        else:
            found = [
                (self.at({self.field: 10.0**value if self.log else value}), label)
                for value, label in self._range_ticks()
            ]
        return [(0.0, NOT_SET), *found] if self.has_unset else found

    def _share(self, value: Any) -> float | None:
        """The position of a value between the ends; None for one that the field does not have."""
        if self.choices is not None:
            found = [k for k, choice in enumerate(self.choices) if _same(choice, value)]
            return found[0] / (len(self.choices) - 1) if found and len(self.choices) > 1 else 0.5 if found else None
        place = _place(value, self.log)
        return None if place is None else (place - self.low) / (self.high - self.low)

    def _range_ticks(self) -> list[tuple[float, str]]:
        ticks = _log_ticks(self.low, self.high) if self.log else []
        if len(ticks) > MAX_TICKS:
            ticks = [tick for tick in ticks if abs(tick[0] - round(tick[0])) < 1e-9]
            ticks = ticks[:: math.ceil(len(ticks) / MAX_TICKS)]
        if self.log and len(ticks) < 2:  # a range within one step of 1, 2, 5
            ticks = [(value, format_setting(10.0**value)) for value in (self.low, self.high)]
        return ticks or round_ticks(self.low, self.high, 4, self.whole)


def field_scales(sweep: LoadedSweep) -> list[FieldScale]:
    """One scale per searched field, wide enough for every trial's value."""
    return [_scale(searched, sweep) for searched in sweep.space]


def round_ticks(low: float, high: float, num: int = 5, whole: bool = False) -> list[tuple[float, str]]:
    """About ``num`` round values in a range, with their labels; ``whole`` leaves out fractions."""
    values = MaxNLocator(num, steps=[1, 2, 5, 10], integer=whole).tick_values(low, high)
    digits = max(0, -math.floor(math.log10(values[1] - values[0]) + 1e-9))
    edge = 1e-9 * (high - low)
    return [(float(v), format_number(float(v), digits)) for v in values if low - edge <= v <= high + edge]


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Logarithms of 1, 2 and 5 times powers of ten in a range of base-10 logarithms, with the labels of the values."""
    steps = [m * 10.0**k for k in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    return [(math.log10(v), f"{v:g}") for v in steps if low - 1e-9 <= math.log10(v) <= high + 1e-9]


def _scale(searched: SearchedField, sweep: LoadedSweep) -> FieldScale:
    field = searched.field
    seen = [trial.values[field] for trial in sweep.trials if field in trial.values]
    lacks = any(field not in trial.values for trial in sweep.trials)
    if searched.choices is not None:
        choices = list(searched.choices)
        for value in seen:
            if not any(_same(choice, value) for choice in choices):
                choices.append(value)
        return FieldScale(field=field, choices=tuple(choices), has_unset=lacks)
    log = searched.log and _place(searched.low, log=True) is not None
    places = [_place(value, log) for value in (searched.low, searched.high, *seen)]
    known = [place for place in places if place is not None] or [0.0, 1.0]
    low, high = min(known), max(known)
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    return FieldScale(
        field=field,
        low=low,
        high=high,
        log=log,
        whole=searched.kind == "integer",
        has_unset=lacks or any(_place(value, log) is None for value in seen),
    )


def _place(value: Any, log: bool) -> float | None:
    """A number in the units of the axis; None for a value that the axis cannot show."""
    if isinstance(value, bool) or not isinstance(value, int | float) or (log and value <= 0):
        return None
    return math.log10(value) if log else float(value)


def _same(a: Any, b: Any) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)
