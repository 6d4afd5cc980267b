"""YAML to frozen dataclasses, and back.

Each stage declares its config beside its code; a command's config is composed of them. A YAML file sets its fields,
flags override them, and every run writes the resolved config. The class attribute ``RETIRED`` of a config maps old
names of its fields to hints for users.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from splatfix.messages import hide_secrets

MAX_YAML_BYTES = 2**24  # of a file; a list of 100,000 captures has less
MAX_DEPTH = 50  # levels of lists and mappings in YAML
MAX_REPEATED_VALUES = 10_000  # by the aliases of a file together

T = TypeVar("T")
_KINDS = {  # what is wanted where pydantic reports an error of one of these types
    "a whole number": ("int_parsing", "int_type", "int_from_float", "int_parsing_size"),
    "a number": ("float_parsing", "float_type"),
    "true or false": ("bool_parsing", "bool_type"),
    "a text": ("string_type",),
    "a path": ("path_type",),
    "a list": ("list_type", "tuple_type"),
    "a mapping of fields": ("dict_type", "mapping_type", "dataclass_type"),
    "null": ("none_required",),
}
_WANTED = {error: wanted for wanted, errors in _KINDS.items() for error in errors}


def load_config(kind: type[T], path: Path | None) -> T:
    """Build an instance of the dataclass ``kind`` from a YAML file, or from its defaults if ``path`` is None.

    Raises:
        ValueError: no such file, invalid YAML, an unknown key (near names are listed) or a value of the wrong type.
    """
    return kind() if path is None else build_config(kind, read_yaml(path), source=str(path))


def build_config(kind: type[T], tree: dict[str, Any], *, source: str) -> T:
    """Build and check an instance of the dataclass ``kind`` from a nested mapping; errors name ``source`` and field."""
    _reject_unknown(kind, tree, source, prefix="")
    try:
        return pydantic.TypeAdapter(kind).validate_python(tree)
    except pydantic.ValidationError as error:
        first = _first_error(error, tree)
        at = _field_path(first, tree)
        if first["type"] == "value_error":
            message = str(first["ctx"]["error"])
            names_field = not at or message.startswith(f"{at}.")
            raise ValueError(f"{source}: {message}" if names_field else f"{source}: {at}: {message}") from None
        if first["type"] == "missing":
            raise ValueError(f"{source}: {at}: is missing") from None
        wanted = describe_wanted([each for each in error.errors() if _field_path(each, tree) == at])
        raise ValueError(f"{source}: {at} = {first.get('input')!r}: wanted {wanted}") from None


def describe_wanted(errors: Sequence[Any]) -> str:
    """What pydantic wanted of a value, in plain words; of a union, all that would do."""
    wanted = [_WANTED.get(each["type"]) or each["msg"].removeprefix("Input should be ") for each in errors]
    return join_choices(list(dict.fromkeys(each.replace("'", "") for each in wanted)))


def join_choices(choices: Sequence[str]) -> str:
    """Join choices in words: ``a``, ``a or b``, ``a, b or c``."""
    *first, last = map(str, choices)
    return f"{', '.join(first)} or {last}" if first else last


def _first_error(error: pydantic.ValidationError, tree: Any) -> Any:
    """The first error. Of a union, whose types each report one, that of the type that accepted most of the value."""
    errors = error.errors()
    *place, last = errors[0]["loc"] or ("",)
    if errors[0]["type"] == "missing" or ".".join(map(str, [*place, last])) == _field_path(errors[0], tree):
        return errors[0]
    return max((each for each in errors if [*each["loc"][: len(place)]] == place), key=lambda each: len(each["loc"]))


def _field_path(error: Any, tree: Any) -> str:
    """The dotted name of the field of an error, without the names of types that pydantic adds within unions."""
    path, value = [], tree
    for part in error["loc"]:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            if error["type"] != "missing" or part != error["loc"][-1]:
                continue
        path.append(str(part))
    return ".".join(path)


def require(condition: bool, field: str, value: Any, wanted: str) -> None:
    """Refuse a setting, from the ``__post_init__`` of a config: a ValueError names field, value and what is wanted."""
    if not condition:
        raise ValueError(f"{field} = {value!r}: wanted {wanted}")


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping from a YAML file (safe loader). ValueError where it is missing, invalid or not a mapping."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; wanted a YAML file, such as {path / 'config.yaml'} of a run")
    if not path.is_file():
        raise ValueError(f"{path}: no such config file")
    tree = parse_yaml(path.read_bytes(), str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: wanted a mapping of fields at the top, saw {type(tree).__name__}")
    return tree


def parse_yaml(content: bytes | str, source: str) -> Any:
    """Parse YAML of any origin with the safe loader; ``source`` names it in errors.

    Raises:
        ValueError: invalid, not in UTF-8, or above one of the limits `MAX_YAML_BYTES`, `MAX_DEPTH` and
            `MAX_REPEATED_VALUES`, which no file of settings or captures reaches.
    """
    if len(content) > MAX_YAML_BYTES:
        raise ValueError(f"{source}: {len(content) >> 20} MB of YAML; wanted at most {MAX_YAML_BYTES >> 20} MB")
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        return yaml.load(text, Loader=_LimitedLoader)
    except UnicodeDecodeError as error:
        raise ValueError(f"{source}: not text in UTF-8 (byte {error.start}); wanted YAML") from None
    except _LimitError as error:
        raise ValueError(f"{source}: {error}") from None
    # the safe loader raises the others for values that do not match their tag, such as !!int "" or 2001-99-99
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        raise ValueError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None


class _LimitError(Exception):
    """Raised for YAML above a limit."""


class _LimitedLoader(yaml.SafeLoader):
    """The safe loader, with a limit on the depth, and on what aliases repeat: nested, they make much of a few bytes."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._deepest = self._num_values = self._num_repeated = 0
        self._sizes: dict[int, tuple[int, int]] = {}  # values and levels of finished nodes, by id

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose the next node, as the base class does."""
        is_alias = self.check_event(yaml.AliasEvent)
        num_before, deepest_before = self._num_values, self._deepest
        self._depth += 1
        self._deepest = self._depth
        self._refuse_deep()
        node = super().compose_node(parent, index)
        if is_alias:
            if id(node) not in self._sizes:
                raise _LimitError("an alias (*name) repeats the value that it is in")
            num, levels = self._sizes[id(node)]
            self._num_values += num
            self._num_repeated += num
            self._deepest = self._depth + levels
            self._refuse_deep()
            if self._num_repeated > MAX_REPEATED_VALUES:
                raise _LimitError(f"aliases (*name) repeat more than {MAX_REPEATED_VALUES} values")
        else:
            self._num_values += 1
            self._sizes[id(node)] = self._num_values - num_before, self._deepest - self._depth
        self._depth -= 1
        self._deepest = max(self._deepest, deepest_before)
        return node

    def _refuse_deep(self) -> None:
        if self._deepest > MAX_DEPTH:
            raise _LimitError(f"lists and mappings are nested more than {MAX_DEPTH} levels deep")


def to_tree(config: Any) -> dict[str, Any]:
    """A config as plain nested values, as YAML shows it."""
    return pydantic.TypeAdapter(type(config)).dump_python(config, mode="json")


def to_public_tree(config: Any) -> dict[str, Any]:
    """A config as `to_tree`, without the credentials in its URLs: as it is written to files and compared with them."""
    return hide_secrets(to_tree(config))


def to_yaml(config: Any) -> str:
    """A config as YAML text that `load_config` reads back to an equal config, but for the credentials in its URLs."""
    return yaml.safe_dump(to_public_tree(config), sort_keys=False, allow_unicode=True)


def changed_fields(value: Any) -> Any:
    """The fields of a config that are not at their default, by name, as JSON holds them; nested configs are trees.

    Equal configs give equal trees, whatever their classes are called; a new field with a default changes no tree.
    Other values are returned as JSON holds them (paths as text, tuples as lists).

    Raises:
        TypeError: a value that has no JSON form.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = {field: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {field.name: changed_fields(item) for field, item in items.items() if item != _default(field)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): changed_fields(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [changed_fields(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{value!r} ({type(value).__name__}) is not a setting: wanted a config or a JSON value")


def _default(field: dataclasses.Field) -> Any:
    """The default of a dataclass field; `dataclasses.MISSING` for a required one."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def overlaid(kind: Any, below: Any, above: Any) -> Any:
    """Nested settings ``below``, overridden by those in ``above``.

    Only fields of dataclasses are merged; a value of any other type, a dict among them, is replaced as a whole.
    """
    kinds = [kind, *typing.get_args(kind)]  # an optional config, too
    found = next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)
    if found is None or not isinstance(below, dict) or not isinstance(above, dict):
        return above
    hints = typing.get_type_hints(found)
    return below | {
        key: overlaid(hints.get(key), below[key], value) if key in below else value for key, value in above.items()
    }


def first_difference(
    before: Any, now: Any, may_change: Collection[str] = (), name: str = ""
) -> tuple[str, Any, Any] | None:
    """The first setting that differs between two trees (`to_tree`): its dotted name and both values; None for none.

    ``may_change`` names settings that are not compared.
    """
    if name in may_change or before == now:
        return None
    if not isinstance(before, dict) or not isinstance(now, dict):
        return name, before, now
    for key in [*now, *(key for key in before if key not in now)]:
        path = f"{name}.{key}" if name else key
        if found := first_difference(before.get(key), now.get(key), may_change, path):
            return found
    return None


def _reject_unknown(kind: Any, tree: Any, source: str, prefix: str) -> None:
    if not isinstance(tree, dict):
        return
    if typing.get_origin(kind) is dict:  # of named configs
        for key, value in tree.items():
            _reject_unknown(typing.get_args(kind)[1], value, source, f"{prefix}{key}.")
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        for alternative in typing.get_args(kind):
            _reject_unknown(alternative, tree, source, prefix)
    if not dataclasses.is_dataclass(kind):
        return
    hints = {field.name: field.type for field in dataclasses.fields(kind)}
    resolved = typing.get_type_hints(kind)
    for key, value in tree.items():
        if key not in hints:
            raise ValueError(f"{source}: unknown field {prefix}{key}; {_hint(kind, str(key), prefix)}")
        _reject_unknown(resolved.get(key), value, source, f"{prefix}{key}.")


def _hint(kind: Any, key: str, prefix: str) -> str:
    """A hint for an unknown field: its new name (``RETIRED`` of the dataclass), the nearest name, or all names."""
    names = [field.name for field in dataclasses.fields(kind)]
    if reason := getattr(kind, "RETIRED", {}).get(key):
        return reason
    near = difflib.get_close_matches(key, names, n=1)
    return f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(names)}"
