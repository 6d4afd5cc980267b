"""Saved states and weights: any flipped bit is noticed, and files without a digest still load."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from splatfix.pairs.checkpoints import FitCheckpoints
from splatfix.restoration.nafnet.checkpoint import WEIGHTS, CheckpointConfig, load_checkpoint, save_checkpoint
from splatfix.restoration.nafnet.network import GuidedNet
from splatfix.saved_states import MARK, decode_state, digest_tensors, encode_state, write_state
from splatfix.splats.checkpoints import read_checkpoint, write_checkpoint
from splatfix.training.state import TrainingState, read_state, save_state
from tests.training.small import NETWORK

NUM_FLIPS = 60
CPU = torch.device("cpu")


def write_fit(folder: Path) -> Path:
    write_checkpoint(folder / "fit.pt", "one", {"step": 3, "params": {"means": torch.randn(40, 3)}})
    return folder / "fit.pt"


def write_training(folder: Path) -> Path:
    network = torch.nn.Linear(20, 20)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.rand(1, 20)).sum().backward()
    optimizer.step()
    save_state(folder / "state.pt", TrainingState(planned=6, step=3), network, network, optimizer, {"seed": 0})
    return folder / "state.pt"


def write_weights(folder: Path) -> Path:
    save_checkpoint(folder / "restorer", GuidedNet(NETWORK), CheckpointConfig(network=NETWORK))
    return folder / "restorer" / WEIGHTS


def read_weights(path: Path) -> dict[str, Any]:
    return load_checkpoint(path.parent)[0].state_dict()


KINDS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any]]] = {
    "fit": (write_fit, lambda path: read_checkpoint(path, "one", CPU)),
    "training": (write_training, read_state),
    "weights": (write_weights, read_weights),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_changes_no_value_in_silence(kind, tmp_path):
    write, read = KINDS[kind]
    path = write(tmp_path)
    whole, wanted = path.read_bytes(), encode_state(read(path))
    rng = random.Random(0)
    refusals = []
    for _ in range(NUM_FLIPS):
        damaged, bit = bytearray(whole), rng.randrange(8 * len(whole))
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            value = read(path)
        except ValueError as error:
            refusals.append(str(error))
        else:
            assert encode_state(value) == wanted  # the bit is in the mark or the padding
    assert len(refusals) > 0.9 * NUM_FLIPS
    for line in refusals:
        assert str(path) in line and "\n" not in line
        assert any(remedy in line for remedy in ("delete it", "--fresh", "again", "complete"))


@pytest.mark.parametrize("kind", KINDS)
def test_files_without_a_digest_still_load(kind, tmp_path):
    write, read = KINDS[kind]
    path = write(tmp_path)
    wanted = encode_state(read(path))
    if kind == "weights":
        save_file(load_file(path), path, metadata={"format": "splatfix-restorer"})
    else:
        path.write_bytes(path.read_bytes().rpartition(MARK)[0])
    assert encode_state(read(path)) == wanted


def test_torch_reads_over_the_digest(tmp_path):
    """Older versions of splatfix read the file, too."""
    write_state(tmp_path / "a.pt", {"step": 3})
    assert torch.load(tmp_path / "a.pt", weights_only=True) == {"step": 3}


def test_damaged_content_is_a_value_error():
    for content in (b"", b"nothing", encode_state({"step": 3})[:200]):
        with pytest.raises(ValueError, match=r"."):
            decode_state(content)


def test_a_digest_of_tensors_covers_names_types_and_shapes():
    ones = torch.ones(2, 3)
    several = [{"a": ones}, {"b": ones}, {"a": ones.T}, {"a": ones.double()}, {"a": 2 * ones}, {"a": ones, "b": ones}]
    assert len({digest_tensors(tensors) for tensors in several}) == len(several)
    assert digest_tensors({"b": ones, "a": 2 * ones}) == digest_tensors({"a": 2 * ones, "b": ones})
    assert digest_tensors({"a": torch.ones((), dtype=torch.bfloat16)}) != digest_tensors({"a": torch.ones(())})


def test_a_damaged_checkpoint_of_a_pair_starts_the_fit_again(tmp_path):
    path = tmp_path / "a.pt"
    identity = FitCheckpoints(None, "fits")._identity
    content = {"identity": identity, "finished": [{"means": torch.zeros(9)}], "state": None}
    write_state(path, content)
    assert len(FitCheckpoints(str(path), "fits")._finished) == 1
    damaged = path.read_bytes().replace(bytes(36), bytes(35) + b"\x01", 1)
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    assert FitCheckpoints(str(path), "fits")._finished == []
