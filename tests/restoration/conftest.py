"""Fixtures for restorers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from splatfix.restoration.nafnet.checkpoint import CheckpointConfig, save_checkpoint
from tests.fake_hub import FakeHub, fake_hub, use_hub
from tests.restoration.networks import SMALL, random_network


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The checkpoint folder of a small network, in a folder of its own."""
    folder = tmp_path / "restorer"
    save_checkpoint(folder, random_network(), CheckpointConfig(network=SMALL, strength=0.75, provenance={"seed": 3}))
    return folder


@pytest.fixture
def hub_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hugging Face Hub that this process uses, with a token that may write and an empty cache."""
    with fake_hub() as server:
        use_hub(monkeypatch, server.url, tmp_path / "home")
        yield server
