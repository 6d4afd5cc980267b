"""Checkpoint folders: written whole, read back equal, readable by others, and refused in one line where broken."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from splatfix.restoration.checkpoint import CONFIG
from splatfix.restoration.nafnet.checkpoint import WEIGHTS, CheckpointConfig, load_checkpoint, save_checkpoint
from tests.fake_hub import Repository
from tests.restoration.networks import SMALL, random_network


def test_checkpoint_round_trip(checkpoint):
    network, config = load_checkpoint(checkpoint)
    assert config == CheckpointConfig(network=SMALL, strength=0.75, provenance={"seed": 3})
    for (name, a), b in zip(random_network().state_dict().items(), network.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    assert "75%" in (checkpoint / "README.md").read_text()
    save_checkpoint(checkpoint, random_network(1), CheckpointConfig(network=SMALL))  # over the old one
    assert load_checkpoint(checkpoint)[1].strength == 0.5
    assert [path.name for path in checkpoint.parent.iterdir()] == ["restorer"]


def test_colleagues_can_read_every_file(tmp_path):
    before = os.umask(0o022)
    try:
        save_checkpoint(tmp_path / "shared", random_network(), CheckpointConfig(network=SMALL))
    finally:
        os.umask(before)
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "shared").iterdir()}
    assert modes == dict.fromkeys([WEIGHTS, CONFIG, "README.md"], 0o644)


def _cut(folder):
    file = folder / WEIGHTS
    file.write_bytes(file.read_bytes()[:1000])


def _garbage(folder):
    (folder / WEIGHTS).write_bytes(b"\x80\x04cos\nsystem\n.")


def _rename_tensor(folder):
    tensors = load_file(folder / WEIGHTS)
    tensors["other"] = tensors.pop("intro.bias")
    save_file(tensors, folder / WEIGHTS)


def _set_value(value):
    def set_value(folder):
        tensors = load_file(folder / WEIGHTS)
        tensors["intro.bias"][0] = value
        save_file(tensors, folder / WEIGHTS)

    return set_value


def _edit(**changes):
    def edit(folder):
        tree = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(tree | changes))

    return edit


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (_cut, "cannot be read as safetensors"),
        (_garbage, "cannot be read as safetensors"),
        (_rename_tensor, "do not fit config.json"),
        (lambda folder: (folder / WEIGHTS).unlink(), "no such file"),
        (lambda folder: (folder / CONFIG).unlink(), "has no config.json"),
        (lambda folder: (folder / CONFIG).write_text("{"), "not valid JSON"),
        (_edit(format="something else"), "not a restorer of splatfix"),
        (_edit(schema=2), "schema = 2"),
        (_edit(kind="magic"), "kind = 'magic': wanted nafnet"),
        (_edit(kind=["nafnet"]), r"kind = \['nafnet'\]: wanted nafnet"),
        (_edit(strength=3.0), "strength = 3.0"),
        (_edit(tile_px=64), "tile_px = 64: wanted more than tile_overlap_px = 64"),
        (_edit(network={"widht": 8}), "did you mean network.width"),
        (_edit(network={"width": 16}), "do not fit config.json"),
        (_edit(network={"width": 512, "enc_blocks": [100] * 4, "dec_blocks": [100] * 4}), "do not fit config.json"),
        (_edit(network={"width": 20_000}), "network.width = 20000: wanted 1 to 512"),
        (_edit(network={"width": 0}), "network.width = 0"),
        (_edit(network={"mid_blocks": 10**9}), "network.mid_blocks = 1000000000: wanted 0 to 100"),
        (_edit(network={"enc_blocks": [10**9, 1, 1, 1]}), "network.enc_blocks = 1000000000"),
        (_edit(network={"dec_blocks": [1, 1, 1, -1]}), "network.dec_blocks = -1"),
        (_edit(network={"enc_blocks": [1] * 40, "dec_blocks": [1] * 40}), "enc_blocks has 40 levels: wanted at most 8"),
        (_edit(network={"enc_blocks": [1, 1, 1]}), "dec_blocks has 4 levels: wanted .* as many in enc_blocks"),
        (_edit(network={"max_residual": float("nan")}), "network.max_residual = nan"),
        (_edit(train_patch_px=0), "train_patch_px = 0: wanted 1 to"),
        (_edit(tile_px=-1), "tile_px = -1: wanted more than"),
        (_edit(tile_px=8, tile_overlap_px=32), "tile_px = 8: wanted more than tile_overlap_px = 32"),
        (_edit(tile_px=10**9, tile_overlap_px=10**8), "tile_overlap_px = 100000000: wanted 0 to"),
        (_set_value(float("nan")), "intro.bias is not finite"),
        (_set_value(float("inf")), "intro.bias is not finite"),
    ],
)
def test_broken_checkpoints_get_one_clear_line(checkpoint, break_it, message):
    break_it(checkpoint)
    with pytest.raises(ValueError, match=message) as caught:
        load_checkpoint(checkpoint)
    assert "\n" not in str(caught.value)
    assert str(checkpoint) in str(caught.value)


def test_a_hub_id_is_downloaded(checkpoint, hub_server):
    repository = hub_server.repositories["org/model"] = Repository()
    repository.commit({file.name: file.read_bytes() for file in checkpoint.iterdir()})
    assert load_checkpoint("org/model")[1].strength == 0.75
    assert hub_server.num_requests("GET /org/model/resolve/") == 2
