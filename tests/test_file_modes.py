"""Files and folders that users share get the modes of the umask, whatever temporary file they were written through."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from splatfix.files import write_bytes, write_json
from splatfix.fit import FitRunConfig, run_fit
from splatfix.restoration.command.restorer import _call_folder
from splatfix.restoration.nafnet.checkpoint import CheckpointConfig, save_checkpoint
from splatfix.restoration.nafnet.network import GuidedNet, NetworkConfig
from splatfix.sample import sample_path
from splatfix.splats.train import FitConfig
from splatfix.views import ViewsConfig

UMASKS = [0o022, 0o027]


@pytest.fixture(params=UMASKS, ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def check_modes(folder: Path, umask: int, *, at_least: int) -> None:
    """Check the mode of every file and folder below a folder."""
    paths = list(folder.rglob("*"))
    assert len(paths) >= at_least
    wrong = {
        path.name: oct(path.stat().st_mode & 0o777)
        for path in paths
        if path.stat().st_mode & 0o777 != (0o777 if path.is_dir() else 0o666) & ~umask
    }
    assert not wrong


def test_whole_files_and_checkpoints(umask: int, tmp_path: Path) -> None:
    write_bytes(tmp_path / "folder" / "a.bin", b"a")
    write_json(tmp_path / "b.json", {})
    network = NetworkConfig(width=4, enc_blocks=(1,), mid_blocks=1, dec_blocks=(1,))
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "restorer", GuidedNet(network), CheckpointConfig(network=network))
    assert (tmp_path / "restorer" / "restorer.safetensors").is_file()
    check_modes(tmp_path, umask, at_least=7)


def test_the_kept_folder_of_a_command(umask: int, tmp_path: Path) -> None:
    with _call_folder(str(tmp_path / "kept")) as first, _call_folder(str(tmp_path / "kept")) as second:
        assert first != second
    check_modes(tmp_path, umask, at_least=3)


@pytest.mark.slow
def test_a_run(umask: int, tmp_path: Path) -> None:
    config = FitRunConfig(views=ViewsConfig(size_px=32), fit=FitConfig(steps=5), device="cpu")
    run_fit(str(sample_path()), tmp_path / "run", config)
    check_modes(tmp_path, umask, at_least=20)
