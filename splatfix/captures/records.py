"""Read JSON files of captures, check them against a pydantic model, and report errors in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from splatfix.file_kinds import POINTER, is_pointer

Model = TypeVar("Model", bound=BaseModel)


class Record(BaseModel):
    """Base class of file records: immutable, and ignoring unknown keys, which other programs may have written."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def read_json(path: Path) -> object:
    """Parse a JSON file. ValueError with line and column if it is invalid."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not text in UTF-8 (byte {error.start}); wanted JSON") from error
    if is_pointer(text[:64].encode()):
        raise ValueError(f"{path}: {POINTER}")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: invalid JSON at line {error.lineno}, column {error.colno} ({error.msg}); is the file whole?"
        ) from error


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
