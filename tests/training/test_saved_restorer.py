"""A restorer that is lost or damaged beside a whole state is written again by the same command."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from splatfix.restoration.nafnet.checkpoint import WEIGHTS, load_checkpoint
from splatfix.saved_states import decode_state, digest_tensors, write_state
from splatfix.training.train import train
from tests.training.small import CONFIG


def cut(run: Path) -> None:
    (run / "restorer" / WEIGHTS).write_bytes((run / "restorer" / WEIGHTS).read_bytes()[:5000])


def flip(run: Path) -> None:
    content = bytearray((run / "restorer" / WEIGHTS).read_bytes())
    content[-5] ^= 64
    (run / "restorer" / WEIGHTS).write_bytes(content)


DAMAGES = {
    "removed": lambda run: shutil.rmtree(run / "restorer"),
    "cut": cut,
    "flipped": flip,
    "no config": lambda run: (run / "restorer" / "config.json").unlink(),
    "moved aside": lambda run: (run / "restorer").rename(run / ".restorer.old"),
}


@pytest.fixture(scope="module")
def finished(shards, tmp_path_factory) -> Path:
    """A training whose last weights are the best."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    state = train(shards, folder, CONFIG)
    assert state.best == state.history[-1]["validation"]["psnr_gain"]
    return folder


def weights(run: Path) -> str:
    return digest_tensors(load_checkpoint(run)[0].state_dict())


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_finished_training_writes_a_lost_restorer_again(damage, finished, shards, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    DAMAGES[damage](run)
    train(shards, run, CONFIG)
    assert weights(run) == weights(finished)
    kept = [json.loads((folder / "restorer" / "config.json").read_text()) for folder in (finished, run)]
    assert kept[0] == kept[1]
    assert sorted(path.name for path in run.glob(".restorer*")) == []


def set_best(run: Path, gain: float) -> None:
    saved = decode_state((run / "state.pt").read_bytes())
    saved["progress"]["best"] = gain
    write_state(run / "state.pt", saved)


def test_the_last_weights_replace_better_ones_that_are_lost(finished, shards, tmp_path, caplog):
    run = shutil.copytree(finished, tmp_path / "run")
    set_best(run, 99.0)
    shutil.rmtree(run / "restorer")
    with caplog.at_level("WARNING", "splatfix"):
        state = train(shards, run, CONFIG)
    assert "the best weights, of +99.00 dB, are lost; these are the last, of " in caplog.text
    assert weights(run) == weights(finished)
    assert state.best == train(shards, run, CONFIG).best == state.history[-1]["validation"]["psnr_gain"]


def test_a_training_that_goes_on_keeps_its_next_weights(finished, shards, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    set_best(run, 99.0)
    shutil.rmtree(run / "restorer")
    state = train(shards, run, replace(CONFIG, steps=9))
    assert state.step == 9
    assert load_checkpoint(run)[1].provenance["step"] == 9
