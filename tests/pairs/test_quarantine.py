"""The quarantine: written, read, deleted when empty, and replaced when invalid."""

from __future__ import annotations

from pathlib import Path

import pytest

from splatfix.pairs.quarantine import QUARANTINE, read_quarantine, write_quarantine

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
