"""The search space of a sweep: which fields of the loop's config vary, over which values, under which conditions.

A space is checked against the loop's config before anything runs.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from splatfix.config import build_config, require, to_tree
from splatfix.loop import LoopConfig
from splatfix.restoration import RestorerChoice, restorer_options

OPTION = "restorer.options."  # before the name of an option of the restorer
SEARCHABLE = ("repair.", OPTION)  # and restorer; sparse fit, split and evaluation are the same for all trials
MAX_GRID = 100_000  # combinations
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


Space = Mapping[str, Parameter]


def check_space(space: Space, default: LoopConfig, *, source: str) -> None:
    """Test the values of every field on the loop's config.

    Raises:
        ValueError: a field that does not exist or may not be searched, a value that the config refuses, or a condition
            that is never met; the message names source, field and value.
    """
    if not space:
        raise ValueError(f"{source}: space is empty; wanted at least one field, like repair.weight")
    for field, parameter in space.items():
        if field != "restorer" and not field.startswith(SEARCHABLE):
            if _is_unknown(field) and not field.startswith("restorer."):  # raises, naming fields like it
                build_config(LoopConfig, nest_fields({field: None}), source=f"{source}: space")
            raise ValueError(
                f"{source}: space.{field}: cannot be searched: sparse fit, split and evaluation are the same for all "
                f"trials; wanted restorer, an option of it ({OPTION}NAME), or a field of repair"
            )
        for value in parameter.probes():
            apply(default, {field: value}, source=f"{source}: space")
        for other, wanted in (parameter.when or {}).items():
            parent = space.get(other)
            if parent is None or parent.choice is None or parent.when:
                raise ValueError(
                    f"{source}: space.{field}.when: {other!r}: wanted a searched field that is a choice and has no "
                    "condition itself"
                )
            for value in _as_list(wanted):
                if not parent.contains(value):
                    raise ValueError(
                        f"{source}: space.{field}.when.{other} = {value!r}: is never chosen, of {list(parent.choice)}"
                    )
        if field.startswith(OPTION):
            _check_option(field, space, default, source=source)


def _check_option(field: str, space: Space, default: LoopConfig, *, source: str) -> None:
    """Try the values of an option on every restorer that it is searched with. ValueError as of `check_space`."""
    parameter, restorer = space[field], space.get("restorer")
    condition = (parameter.when or {}).get("restorer")
    if condition is not None:
        names = _as_list(condition)
    elif restorer is not None and restorer.choice is not None:
        names = restorer.choice
    else:
        names = [RestorerChoice.of(default.restorer).name]
    for name, value in itertools.product(names, parameter.probes()):
        try:
            restorer_options(apply(default, {"restorer": name, field: value}, source=source).restorer)
        except ValueError as error:
            hint = "; `when: {restorer: ...}` searches it with some restorers alone" if len(names) > 1 else ""
            raise ValueError(f"{source}: space.{field}: {error}{hint}") from None


def apply(default: LoopConfig, values: Values, *, source: str = "trial") -> LoopConfig:
    """The default config with some fields changed, checked as if it came from a file."""
    tree = to_tree(default)
    tree["restorer"] = _restorer_tree(default, values)
    for field, value in values.items():
        if field == "restorer" or field.startswith(OPTION):
            continue
        at, _, last = field.rpartition(".")
        branch = tree
        for part in at.split(".") if at else ():
            branch = branch.get(part) if isinstance(branch, dict) else None  # type: ignore[assignment]
        if not isinstance(branch, dict):
            build_config(LoopConfig, nest_fields({field: value}), source=source)  # raises, naming the unknown part
            raise ValueError(f"{source}: {field}: wanted a single field")
        if isinstance(branch.get(last), dict):
            raise ValueError(f"{source}: {field}: is a group of fields; wanted one of {', '.join(branch[last])}")
        branch[last] = value
    return build_config(LoopConfig, tree, source=source)


def _restorer_tree(default: LoopConfig, values: Values) -> Any:
    """The restorer of a trial. Options of the default are kept where the trial has the default's restorer."""
    choice = RestorerChoice.of(default.restorer)
    name = values.get("restorer", choice.name)
    options = copy.deepcopy(choice.options) if name == choice.name else {}
    for field, value in values.items():
        if field.startswith(OPTION):
            branch = options
            *above, last = field.removeprefix(OPTION).split(".")
            for part in above:
                branch = branch.setdefault(part, {})
            branch[last] = value
    return {"name": name, "options": options} if options else name


def default_values(space: Space, default: LoopConfig) -> dict[str, Any]:
    """The values of the default config in the searched fields that are active with it."""
    found = {field: default_value(default, field) for field in space}
    return {field: value for field, value in found.items() if is_active(space[field], found)}


def default_value(default: LoopConfig, field: str) -> Any:
    """The value of a searchable field in the default config; None for an option that its restorer does not have."""
    choice = RestorerChoice.of(default.restorer)
    if field == "restorer":
        return choice.name
    if not field.startswith(OPTION):
        return get_field(to_tree(default), field)
    try:
        return get_field(to_tree(restorer_options(choice)), field.removeprefix(OPTION))
    except (KeyError, TypeError):
        return None


def is_active(parameter: Parameter, values: Values) -> bool:
    """Whether a field is searched, given the values of the fields that its condition names."""
    conditions = (parameter.when or {}).items()
    return all(any(values.get(other) == value for value in _as_list(wanted)) for other, wanted in conditions)


def sort_fields(space: Space) -> list[str]:
    """The fields by name, unconditional ones first: proposals do not depend on the order in the file."""
    return sorted(space, key=lambda field: (bool(space[field].when), field))


def grid_points(space: Space, *, source: str) -> Iterator[dict[str, Any]]:
    """Yield all combinations, each once, without inactive fields.

    Raises:
        ValueError: a range without ``points``, or too many combinations.
    """
    for field, parameter in space.items():
        if parameter.choice is None and parameter.points is None:
            raise ValueError(f"{source}: space.{field}: a grid wants `points: N` beside {parameter.kind}")
    fields, seen = sort_fields(space), set[str]()
    num = math.prod(len(space[field].grid()) for field in fields)
    if num > MAX_GRID:
        raise ValueError(f"{source}: space: a grid of {num} combinations; wanted at most {MAX_GRID}: take fewer points")
    for combination in itertools.product(*(space[field].grid() for field in fields)):
        values = dict(zip(fields, combination, strict=True))
        active = {field: value for field, value in values.items() if is_active(space[field], values)}
        if (key := repr(sorted(active.items()))) not in seen:
            seen.add(key)
            yield active


def _as_list(wanted: Any) -> Sequence[Any]:
    return wanted if isinstance(wanted, list | tuple) else [wanted]


def get_field(tree: Any, field: str) -> Any:
    """The value of a field, like repair.weight, in a config as a tree."""
    for part in field.split("."):
        tree = tree[part]
    return tree


def _is_unknown(field: str) -> bool:
    try:
        get_field(to_tree(LoopConfig()), field)
    except (KeyError, TypeError):
        return True
    return False


def nest_fields(values: Values) -> dict[str, Any]:
    """Values by field name with points, as a nested tree."""
    tree: dict[str, Any] = {}
    for field, value in values.items():
        *above, last = field.split(".")
        branch = tree
        for part in above:
            branch = branch.setdefault(part, {})
        branch[last] = value
    return tree


def nest_settings(default: LoopConfig, values: Values) -> dict[str, Any]:
    """The settings of a trial as a nested tree that `splatfix loop --config` reads: the restorer with its options."""
    settings: dict[str, Any] = {}
    for field, value in values.items():
        if field == "restorer" or field.startswith(OPTION):
            settings["restorer"] = _restorer_tree(default, values)
        else:
            settings[field] = value
    return nest_fields(settings)


def flatten_fields(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a nested tree by field name with points: the inverse of `nest_fields`."""
    values: dict[str, Any] = {}
    for name, value in tree.items():
        values |= flatten_fields(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return values
