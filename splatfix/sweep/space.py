"""The search space of a sweep, checked against the loop's config before anything runs; and its grid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from splatfix.config import build_config, to_tree
from splatfix.loop import LoopConfig
from splatfix.restoration import RestorerChoice, restorer_options
from splatfix.sweep.parameter import Space, as_list, is_active
from splatfix.sweep.settings import OPTION, apply, get_field, nest_fields

SEARCHABLE = ("repair.", OPTION)  # and restorer; sparse fit, split and evaluation are the same for all trials
MAX_GRID = 100_000  # combinations


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
            for value in as_list(wanted):
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
        names = as_list(condition)
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


def _is_unknown(field: str) -> bool:
    try:
        get_field(to_tree(LoopConfig()), field)
    except (KeyError, TypeError):
        return True
    return False


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
