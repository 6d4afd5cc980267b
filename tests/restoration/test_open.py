"""Restorers by name, folder and Hub id, their options, and the errors of those that cannot be opened."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from splatfix import storage
from splatfix.config import build_config, to_tree
from splatfix.restoration import (
    KINDS,
    RESTORERS,
    RestorerChoice,
    absolute_choice,
    nafnet,
    open_restorer,
    restorer_options,
)
from splatfix.restoration.baselines import Bilateral, Warp
from splatfix.restoration.checkpoint import CONFIG
from splatfix.restoration.choice import format_choice, parse_choice
from splatfix.restoration.identity import describe_training_overlap, restorer_input
from tests.fake_hub import Repository
from tests.restoration.scenery import flawed_view
from tests.test_storage import put_folder


def repair(choice) -> torch.Tensor:
    return open_restorer(choice, "cpu").repair([flawed_view(0)], seed=0)[0].rgb


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=", ".join(RESTORERS)):
        open_restorer("nafnett")


def test_missing_weights_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(nafnet, "SHIPPED_WEIGHTS", tmp_path / "weights")
    with pytest.raises(ValueError, match="splatfix train"):
        open_restorer("nafnet")


def test_places_without_a_checkpoint(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no such folder"):
        open_restorer(tmp_path / "nowhere")
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^runs/nothing: no such folder"):  # the Hub is not asked
        open_restorer("runs/nothing")
    with pytest.raises(ValueError, match=r"^runs: has no config.json; wanted a checkpoint folder"):
        open_restorer(tmp_path.joinpath("runs").relative_to(tmp_path))
    file = tmp_path / "file.pth"
    file.touch()
    with pytest.raises(ValueError, match="is a file; wanted a checkpoint folder"):
        open_restorer(file)


def test_a_hub_repository_is_downloaded_once_its_kind_is_known(checkpoint, hub_server):
    repository = hub_server.repositories["org/model"] = Repository()
    files = {file.name: file.read_bytes() for file in checkpoint.iterdir()}
    commit = repository.commit({**files, CONFIG: b"not JSON"})
    with pytest.raises(ValueError, match="not valid JSON"):
        open_restorer("org/model")
    repository.commit(
        {**files, CONFIG: json.dumps({"format": "splatfix-restorer", "schema": 1, "kind": "magic"}).encode()}
    )
    with pytest.raises(ValueError, match="kind = 'magic'"):
        open_restorer("org/model")
    assert hub_server.num_requests("restorer.safetensors") == 0
    assert commit != repository.commit(files)
    torch.testing.assert_close(repair("org/model"), repair(checkpoint))


@pytest.mark.parametrize("folder", ["weights", "run/restorer"])
def test_a_checkpoint_on_a_store_is_copied_to_this_machine(checkpoint, bucket, folder):
    url = f"{bucket}/{folder}"
    put_folder(checkpoint, url)
    place = url.removesuffix("/restorer")  # also the folder of a training run
    torch.testing.assert_close(repair(place), repair(checkpoint))
    weights = restorer_input(place)["restorer"]
    assert weights.path == place and weights.digest == restorer_input(str(checkpoint))["restorer"].digest
    assert restorer_options(RestorerChoice(name=place, options={"strength": 0.5})).strength == 0.5
    storage.write_bytes(f"{url}/restorer.safetensors", b"other weights")
    assert restorer_input(place)["restorer"].digest != weights.digest
    with pytest.raises(ValueError, match=rf"{bucket}/nowhere: no config.json there"):
        open_restorer(f"{bucket}/nowhere")


def test_a_checkpoint_of_unknown_kind_names_the_known_ones(checkpoint):
    tree = json.loads((checkpoint / CONFIG).read_text())
    assert tree["kind"] == "nafnet"
    (checkpoint / CONFIG).write_text(json.dumps(tree | {"kind": "magic"}))
    with pytest.raises(ValueError, match=rf"config\.json: kind = 'magic': wanted {' or '.join(KINDS)}; ") as caught:
        open_restorer(checkpoint)
    assert "\n" not in str(caught.value)
    expected = repair(write_tree(checkpoint, tree))
    del tree["kind"]  # as checkpoints were written when there was only one kind
    assert torch.equal(repair(write_tree(checkpoint, tree)), expected)


def write_tree(checkpoint, tree):
    (checkpoint / CONFIG).write_text(json.dumps(tree))
    return checkpoint


def test_the_shipped_weights_name_their_kind():
    assert json.loads((nafnet.SHIPPED_WEIGHTS / CONFIG).read_text())["kind"] == "nafnet"


def test_options_are_applied_by_name_and_by_folder(checkpoint):
    render = flawed_view(0).rgb.clamp(0, 1)
    for name in ("nafnet", str(checkpoint)):
        torch.testing.assert_close(repair(RestorerChoice(name=name, options={"strength": 0})), render)
        half, whole = (repair(RestorerChoice(name=name, options={"strength": s})) for s in (0.5, 1.0))
        assert (whole - render).abs().max() > (half - render).abs().max() > 0
    tiled = RestorerChoice(name=str(checkpoint), options={"tile_px": 65})
    torch.testing.assert_close(repair(tiled), repair(checkpoint))  # an image of 40 px is one tile
    assert torch.equal(repair(RestorerChoice(name="warp")), repair("warp"))
    assert torch.equal(repair(RestorerChoice(name="warp", options={"num_references": 2})), repair("warp"))
    assert not torch.equal(repair(RestorerChoice(name="warp", options={"num_references": 1})), repair("warp"))


def test_options_are_built_as_the_restorers_own_type(checkpoint):
    classical = RestorerChoice(name="classical", options={"sigma_px": 2})
    assert restorer_options(classical) == Bilateral(sigma_px=2.0)
    assert restorer_options("warp") == Warp()
    assert restorer_options(checkpoint) == nafnet.NafnetOptions()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("warp", {"sigma": 1}, r"restorer 'warp': unknown option 'sigma'; known: num_references, sigma_color$"),
        ("identity", {"strength": 1}, r"restorer 'identity': unknown option 'strength'; it has no options$"),
        (
            "nafnet",
            {"tiles": 1},
            r"restorer 'nafnet': unknown option 'tiles'; known: strength, max_correction, calibrated, tile_px$",
        ),
        ("classical", {"radius_px": "wide"}, r"restorer 'classical': radius_px = 'wide': wanted a whole number"),
        ("classical", {"sigma_px": 0}, r"restorer 'classical': sigma_px = 0\.0: wanted a number above 0"),
        ("nafnet", {"strength": 1.5}, r"restorer 'nafnet': strength = 1\.5: wanted 0 to 1"),
        ("nafnet", {"tile_px": 64}, r"restorer '.*weights': tile_px = 64: wanted more than tile_overlap_px = 64"),
        ("magic", {"strength": 1}, r"restorer 'magic': unknown; wanted one of identity"),
    ],
)
def test_options_that_cannot_be_used_are_refused_in_one_line(name, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        open_restorer(RestorerChoice(name=name, options=options), "cpu")
    assert "\n" not in str(caught.value)


def test_folders_become_absolute_and_names_stay(checkpoint, tmp_path, monkeypatch, hub_server):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "warp").mkdir()
    assert absolute_choice("restorer") == str(checkpoint)
    assert absolute_choice("warp") == "warp"
    repository = hub_server.repositories["org/model"] = Repository()
    commit = repository.commit({CONFIG: b"{}"})
    assert absolute_choice("org/model") == f"hf:org/model@{commit}"
    options = {"strength": 1}
    expected = RestorerChoice(name=str(checkpoint), options=options)
    assert absolute_choice(RestorerChoice(name="restorer", options=options)) == expected


@pytest.mark.parametrize("choice", ["warp", "runs/my run", RestorerChoice(name="warp", options={"num_references": 1})])
def test_a_choice_survives_the_command_line(choice):
    assert parse_choice(format_choice(choice)) == choice


def test_a_choice_on_the_command_line_may_be_a_mapping():
    assert parse_choice("{name: nafnet, options: {strength: 0.5}}") == RestorerChoice(
        name="nafnet", options={"strength": 0.5}
    )
    for text, message in (
        ("{name: [}", "not valid YAML"),
        ("{title: warp}", "unknown field title; known: name, options"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_choice(text)


def test_no_network_is_imported_before_one_is_opened():
    code = "import sys, splatfix.restoration as r; r.open_restorer('warp', 'cpu'); r.restorer_options('nafnet')\n"
    heavy = ("safetensors", "huggingface_hub", "timm", "accelerate", "diffusers", "transformers")
    code += f"print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_options_survive_yaml():
    choice = RestorerChoice(name="nafnet", options={"strength": 0.5})
    assert build_config(RestorerChoice, to_tree(choice), source="test") == choice


def test_a_capture_that_a_restorer_was_trained_on_is_named(checkpoint):
    config = json.loads((checkpoint / CONFIG).read_text())
    config["provenance"] = {"train_groups": ["kitchen"], "train_scenes": ["kitchen_a", "kitchen_b"]}
    (checkpoint / CONFIG).write_text(json.dumps(config))
    for capture in ("kitchen", "kitchen_b"):
        (note,) = describe_training_overlap(str(checkpoint), capture)
        assert f"was trained on {capture}: its gain here says nothing" in note
    assert describe_training_overlap(str(checkpoint), "garden") == []
    assert describe_training_overlap("warp", "kitchen") == []


def test_the_shipped_weights_name_the_captures_that_trained_them():
    assert len(describe_training_overlap("nafnet", "banana")) == 1
    assert describe_training_overlap("nafnet", "tankard") == []
