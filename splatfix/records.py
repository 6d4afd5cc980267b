"""JSON records as typed values: frozen dataclasses whose fields are the keys of the JSON object."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, TypeVar

import pydantic

T = TypeVar("T")


def parse_record(kind: type[T], tree: Any, *, source: str, remedy: str, schema: int | None = None) -> T:
    """Build the dataclass ``kind`` from parsed JSON of the same shape. Types are strict, unknown keys are ignored.

    Args:
        kind: a dataclass, of other dataclasses, numbers, strings, lists and mappings.
        tree: what the JSON file holds.
        source: where it is from, for messages.
        remedy: what to do about a record that cannot be read, for messages.
        schema: the number that the key ``schema`` must have; None where the record has no such key.

    Raises:
        ValueError: another schema, or a missing or ill-typed field; one line names source, field, value and remedy.
    """
    if not isinstance(tree, dict):
        raise ValueError(f"{source}: wanted a mapping at the top, saw {type(tree).__name__}; {remedy}")
    if schema is not None and tree.get("schema") != schema:
        raise ValueError(
            f"{source}: schema = {tree.get('schema')!r}, but this splatfix reads schema {schema}; {remedy}"
        )
    try:  # from text, since pydantic's strict mode takes lists for tuples only there; its floats are exact
        adapter = _adapter(kind)  # type: ignore[arg-type]  # mypy: type[T] is not hashable
        return adapter.validate_json(json.dumps(tree), strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise ValueError(f"{source}: {field} is missing; {remedy}") from None
        wanted = first["msg"].replace("Input should be", "wanted")
        raise ValueError(f"{source}: {field} = {first['input']!r:.60}: {wanted}; {remedy}") from None


@lru_cache(maxsize=64)
def _adapter(kind: Any) -> pydantic.TypeAdapter:
    return pydantic.TypeAdapter(kind)
