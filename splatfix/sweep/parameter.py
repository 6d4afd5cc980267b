"""A searched field: its range or choice, and the condition under which it is searched."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from splatfix.config import require

Values = Mapping[str, Any]  # field -> value, of the active fields


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """The values of one searched field: exactly one of choice, uniform, loguniform and integer.

    Attributes:
        choice: one of these values.
        uniform: a number from low to high.
        loguniform: a number from low to high, evenly over their orders of magnitude; low above 0.
        integer: a whole number from low to high, both included.
        log: an integer evenly over its orders of magnitude.
        points: grid search: number of values of a range in the grid, ends included.
        when: other searched field (a choice) -> value or values with which this one is searched; with any other value
            it keeps its default.
    """

    choice: tuple[Any, ...] | None = None
    uniform: tuple[float, float] | None = None
    loguniform: tuple[float, float] | None = None
    integer: tuple[int, int] | None = None
    log: bool = False
    points: int | None = None
    when: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        kinds = [kind for kind in ("choice", "uniform", "loguniform", "integer") if getattr(self, kind) is not None]
        require(len(kinds) == 1, "kinds", kinds, "exactly one of choice, uniform, loguniform, integer")
        require(not self.log or self.integer is not None, "log", self.log, "true only with integer (see loguniform)")
        require(self.points is None or self.points >= 1, "points", self.points, "at least 1")
        if self.choice is not None:
            require(len(self.choice) >= 1, "choice", list(self.choice), "at least one value")
            require(
                len(set(map(repr, self.choice))) == len(self.choice), "choice", list(self.choice), "each value once"
            )
            require(self.points is None, "points", self.points, "none with choice: each value is in the grid")
            scalar = all(value is None or isinstance(value, str | bool | int | float) for value in self.choice)
            require(scalar, "choice", list(self.choice), "numbers, strings, booleans or null")
            return
        low, high = self.bounds
        require(math.isfinite(low) and math.isfinite(high), self.kind, [low, high], "finite numbers")
        require(low < high, self.kind, [low, high], "[low, high] with low below high")
        require(not self.is_log or low > 0, self.kind, [low, high], "low above 0, for a logarithm")

    @property
    def kind(self) -> str:
        """choice, uniform, loguniform or integer."""
        return next(kind for kind in ("choice", "uniform", "loguniform", "integer") if getattr(self, kind) is not None)

    @property
    def bounds(self) -> tuple[float, float]:
        """Low and high of a range."""
        bounds = self.uniform or self.loguniform or self.integer
        assert bounds is not None
        return bounds

    @property
    def is_log(self) -> bool:
        return self.loguniform is not None or self.log

    def contains(self, value: Any) -> bool:
        """Whether a value is one of these."""
        if self.choice is not None:
            return any(value == other and type(value) is type(other) for other in self.choice)
        low, high = self.bounds
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return low <= value <= high and (self.integer is None or value == int(value))

    def grid(self) -> list[Any]:
        """Its values in a grid."""
        if self.choice is not None:
            return list(self.choice)
        low, high = self.bounds
        assert self.points is not None
        shares = [k / (self.points - 1) for k in range(self.points)] if self.points > 1 else [0.5]
        if self.is_log:
            values = [low * (high / low) ** share for share in shares]
        else:
            values = [low + (high - low) * share for share in shares]
        values = [min(max(value, low), high) for value in values]
        return sorted({round(value) for value in values}) if self.integer is not None else values

    def probes(self) -> list[Any]:
        """Values to test on the config: all of a choice; the ends of a range, and an uneven number between them."""
        if self.choice is not None:
            return list(self.choice)
        low, high = self.bounds
        return [low, high] if self.integer is not None else [low, high, low + (high - low) * 0.38196601]


Space = Mapping[str, Parameter]  # by field


def is_active(parameter: Parameter, values: Values) -> bool:
    """Whether a field is searched, given the values of the fields that its condition names."""
    conditions = (parameter.when or {}).items()
    return all(any(values.get(other) == value for value in as_list(wanted)) for other, wanted in conditions)


def as_list(wanted: Any) -> Sequence[Any]:
    """The values of a condition, which may be one or a list."""
    return wanted if isinstance(wanted, list | tuple) else [wanted]
