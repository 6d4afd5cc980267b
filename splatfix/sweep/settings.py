"""The settings of a trial: values of searched fields, put into the loop's config and read from it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from splatfix.config import build_config, to_tree
from splatfix.loop import LoopConfig
from splatfix.restoration import RestorerChoice, restorer_options
from splatfix.sweep.parameter import Space, Values, is_active

OPTION = "restorer.options."  # before the name of an option of the restorer


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
            _set_field(options, field.removeprefix(OPTION), value)
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


def get_field(tree: Any, field: str) -> Any:
    """The value of a field, like repair.weight, in a config as a tree."""
    for part in field.split("."):
        tree = tree[part]
    return tree


def nest_fields(values: Values) -> dict[str, Any]:
    """Values by field name with points, as a nested tree."""
    tree: dict[str, Any] = {}
    for field, value in values.items():
        _set_field(tree, field, value)
    return tree


def _set_field(tree: dict[str, Any], field: str, value: Any) -> None:
    *above, last = field.split(".")
    for part in above:
        tree = tree.setdefault(part, {})
    tree[last] = value


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
