"""Type and shape checks of the whole package while tests run, and fixtures that several test folders share."""

import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # as in mypy, an int will do for a float
jaxtyping.install_import_hook("splatfix", "tests.conftest.checked")  # before anything of splatfix is imported

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def scenes() -> Path:
    """The folder with the development scenes (``SPLATFIX_SCENES``, default ``../shared/scenes``); skips without it."""
    folder = Path(os.environ.get("SPLATFIX_SCENES", ROOT.parent / "shared" / "scenes"))
    if not folder.is_dir():
        pytest.skip(f"no scenes at {folder}; set SPLATFIX_SCENES")
    return folder


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As users run splatfix, without the checks of types: for what it says itself about arguments of a wrong kind."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
