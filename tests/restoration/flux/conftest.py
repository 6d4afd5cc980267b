"""Fixtures for restorers that run diffusion pipelines."""

from __future__ import annotations

import pytest

from tests.restoration.flux.tiny import TinyModels, write_models


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    """Folders of tiny random models; written once."""
    pytest.importorskip("diffusers")
    return write_models(tmp_path_factory.mktemp("tiny"))
