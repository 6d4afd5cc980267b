"""Read JSON files of captures, check them against a pydantic model, and report errors in one line."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from splatfix.file_kinds import POINTER, is_pointer
from splatfix.files import parse_json

Model = TypeVar("Model", bound=BaseModel)


class Record(BaseModel):
    """Base class of file records: immutable, and ignoring unknown keys, which other programs may have written."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def read_json(path: Path) -> object:
    """Parse a JSON file. ValueError with line and column if it is invalid."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    if is_pointer(content[:64]):
        raise ValueError(f"{path}: {POINTER}")
    return parse_json(content, str(path))


def read_record(path: Path, kind: type[Model]) -> Model:
    """Read a JSON file as a record. ValueError naming the first invalid field."""
    return parse_record(path, read_json(path), kind)


def parse_record(path: Path, tree: object, kind: type[Model]) -> Model:
    """Check the content of a JSON file against a record. ValueError naming the first invalid field."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the top level"
        seen = "" if first["type"] == "missing" else f", got {str(first['input'])[:60]!r}"
        more = f" ({error.error_count() - 1} more such fields)" if error.error_count() > 1 else ""
        raise ValueError(f"{path}: {field}: {first['msg'].lower()}{seen}{more}") from None
