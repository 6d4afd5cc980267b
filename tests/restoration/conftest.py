"""Fixtures for restorers."""

from __future__ import annotations

from pathlib import Path

import pytest

from splatfix.restoration.nafnet.checkpoint import CheckpointConfig, save_checkpoint
from tests.restoration.networks import SMALL, random_network


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The checkpoint folder of a small network, in a folder of its own."""
    folder = tmp_path / "restorer"
    save_checkpoint(folder, random_network(), CheckpointConfig(network=SMALL, strength=0.75, provenance={"seed": 3}))
    return folder
