"""The quarantine: written, read, deleted when empty, and replaced when invalid."""

from __future__ import annotations

from pathlib import Path

import pytest

from splatfix.pairs.quarantine import QUARANTINE, describe_outcome, read_quarantine, write_quarantine
from splatfix.workers import Outcome

ENTRY = {"capture": "/in/a", "reason": "too few photos", "attempts": 1}


def test_quarantined_fits_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert read_quarantine(str(tmp_path)) == {}
    write_quarantine(str(tmp_path), {"a-f000": ENTRY})
    assert read_quarantine(str(tmp_path)) == {"a-f000": ENTRY}


def test_an_empty_quarantine_has_no_file(tmp_path: Path) -> None:
    write_quarantine(str(tmp_path), {"a-f000": ENTRY})
    write_quarantine(str(tmp_path), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"fits": 3}'])
def test_an_invalid_file_is_read_as_an_empty_quarantine(tmp_path: Path, text: str) -> None:
    (tmp_path / QUARANTINE).write_text(text)
    assert read_quarantine(str(tmp_path)) == {}


def test_tracebacks_are_short_and_few(tmp_path: Path) -> None:
    trace = "".join(f"line {number} {'x' * 1000}\n" for number in range(100)) + "OSError: no such photo\n"
    outcome = Outcome("a-f000", None, "OSError: no such photo", 3, traceback=trace, node="node7")
    entry = describe_outcome("/in/a", outcome)
    assert (entry["reason"], entry["attempts"], entry["node"]) == ("OSError: no such photo", 3, "node7")
    assert len(entry["traceback"]) == 40 and entry["traceback"][-1] == "OSError: no such photo"
    assert max(map(len, entry["traceback"])) == 300
    write_quarantine(str(tmp_path), {f"a-f{number:03d}": entry for number in range(300)})
    stored = read_quarantine(str(tmp_path))
    assert len(stored) == 300 and sum(bool(entry["traceback"]) for entry in stored.values()) == 200
