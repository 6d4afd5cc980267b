"""Fixtures that several test folders share."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def scenes() -> Path:
    """The folder with the development scenes (``SPLATFIX_SCENES``, default ``../shared/scenes``); skips without it."""
    folder = Path(os.environ.get("SPLATFIX_SCENES", ROOT.parent / "shared" / "scenes"))
    if not folder.is_dir():
        pytest.skip(f"no scenes at {folder}; set SPLATFIX_SCENES")
    return folder
