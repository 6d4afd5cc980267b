"""Restorers by name and from checkpoints, and what they say when they cannot be had."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from splatfix import restoration
from splatfix.metrics import psnr
from splatfix.restoration import RESTORERS, open_restorer
from splatfix.restoration.nafnet.checkpoint import CONFIG, WEIGHTS, RestorerConfig, load_checkpoint, save_checkpoint
from splatfix.restoration.nafnet.network import GuidedNet, NetworkConfig
from tests.restoration.scenery import flawed_view
from tests.test_warping import painted

SMALL = NetworkConfig(width=8, enc_blocks=(1, 1), mid_blocks=1, dec_blocks=(1, 1))


def trained(seed: int = 0) -> GuidedNet:
    torch.manual_seed(seed)
    network = GuidedNet(SMALL)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "restorer"
    save_checkpoint(folder, trained(), RestorerConfig(network=SMALL, strength=0.75, provenance={"seed": 3}))
    return folder


@pytest.mark.parametrize("name", ["identity", "classical", "warp"])
def test_untrained_restorers(name):
    views = [flawed_view(i) for i in range(3)] + [flawed_view(0, 37, 51), flawed_view(1, num_references=0)]
    made = open_restorer(name, device="cpu").repair(views, seed=0)
    assert len(made) == len(views)
    for view, repaired in zip(views, made, strict=True):
        assert repaired.rgb.shape == view.rgb.shape
        assert repaired.rgb.min() >= 0
        assert repaired.rgb.max() <= 1
        if repaired.confidence is not None:
            assert repaired.confidence.shape == view.alpha.shape
            assert repaired.confidence.min() >= 0
            assert repaired.confidence.max() <= 1


@pytest.mark.parametrize(("name", "least_gain"), [("identity", -1e-6), ("classical", 0.5), ("warp", 3.0)])
def test_untrained_restorers_help_where_they_should(name, least_gain):
    views = [flawed_view(i) for i in range(4)]
    for view, repaired in zip(views, open_restorer(name, "cpu").repair(views, seed=0), strict=True):
        clean = painted(view.camera)
        assert psnr(repaired.rgb, clean) - psnr(view.rgb.clamp(0, 1), clean) >= least_gain


def test_warp_leaves_the_render_alone_without_agreeing_photos():
    view = flawed_view(1, num_references=0)
    (made,) = open_restorer("warp", "cpu").repair([view], seed=0)
    torch.testing.assert_close(made.rgb, view.rgb.clamp(0, 1))
    assert made.confidence.max() == 0


def test_checkpoint_round_trip(checkpoint):
    network, config = load_checkpoint(checkpoint)
    assert config == RestorerConfig(network=SMALL, strength=0.75, provenance={"seed": 3})
    for (name, a), b in zip(trained().state_dict().items(), network.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    assert "75%" in (checkpoint / "README.md").read_text()
    save_checkpoint(checkpoint, trained(1), RestorerConfig(network=SMALL))  # over the old one
    assert load_checkpoint(checkpoint)[1].strength == 0.5
    assert [path.name for path in checkpoint.parent.iterdir()] == ["restorer"]


def test_a_learned_restorer_repairs_from_its_folder_or_its_run(checkpoint):
    views = [flawed_view(0), flawed_view(1, 37, 51)]
    made = open_restorer(checkpoint, "cpu").repair(views, seed=0)
    again = open_restorer(str(checkpoint.parent), "cpu").repair(views, seed=1)
    for view, a, b in zip(views, made, again, strict=True):
        assert a.rgb.shape == view.rgb.shape
        assert a.confidence.shape == view.alpha.shape
        assert (a.rgb - view.rgb.clamp(0, 1)).abs().max() > 1e-3
        torch.testing.assert_close(a.rgb, b.rgb)


def test_strength_zero_is_the_render(tmp_path):
    save_checkpoint(tmp_path / "a", trained(), RestorerConfig(network=SMALL, strength=0.0))
    (made,) = open_restorer(tmp_path / "a", "cpu").repair([flawed_view(0)], seed=0)
    torch.testing.assert_close(made.rgb, flawed_view(0).rgb.clamp(0, 1))


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=", ".join(RESTORERS)):
        open_restorer("nafnett")


def test_missing_weights_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(restoration, "SHIPPED_NAFNET", tmp_path / "weights")
    with pytest.raises(ValueError, match="splatfix train"):
        open_restorer("nafnet")


def _cut(folder):
    file = folder / WEIGHTS
    file.write_bytes(file.read_bytes()[:1000])


def _garbage(folder):
    (folder / WEIGHTS).write_bytes(b"\x80\x04cos\nsystem\n.")


def _rename_tensor(folder):
    tensors = load_file(folder / WEIGHTS)
    tensors["other"] = tensors.pop("intro.bias")
    save_file(tensors, folder / WEIGHTS)


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
        (lambda folder: (folder / CONFIG).unlink(), "no such file"),
        (lambda folder: (folder / CONFIG).write_text("{"), "not valid JSON"),
        (_edit(format="something else"), "not a restorer of splatfix"),
        (_edit(schema=2), "schema = 2"),
        (_edit(strength=3.0), "strength = 3.0"),
        (_edit(network={"widht": 8}), "did you mean network.width"),
        (_edit(network={"width": 16}), "do not fit config.json"),
    ],
)
def test_broken_checkpoints_get_one_clear_line(checkpoint, break_it, message):
    break_it(checkpoint)
    with pytest.raises(ValueError, match=message) as caught:
        load_checkpoint(checkpoint)
    assert "\n" not in str(caught.value)
    assert str(checkpoint) in str(caught.value)


def test_places_that_are_no_checkpoint(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no such folder"):
        open_restorer(tmp_path / "nowhere")
    file = tmp_path / "file.pth"
    file.touch()
    with pytest.raises(ValueError, match="is a file; wanted a checkpoint folder"):
        open_restorer(file)

    def offline(*_, **__):
        raise OSError("cannot reach the Hub\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(ValueError, match=r"some-org/some-model.*\(cannot reach the Hub\)"):
        open_restorer("some-org/some-model")


def test_a_hub_id_is_looked_up(checkpoint, monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: asked.append(name) or str(checkpoint))
    assert load_checkpoint("org/model")[1].strength == 0.75
    assert asked == ["org/model"]
