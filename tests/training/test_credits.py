"""The credits of training photos reach the model card of the restorer."""

from __future__ import annotations

from dataclasses import replace

from splatfix.restoration.nafnet.checkpoint import load_checkpoint
from splatfix.training.train import train
from tests.training.small import CONFIG


def test_the_card_credits_the_photos_that_were_trained_on(shards, tmp_path):
    credits = {"a": "CC-BY-4.0, A. Person", "c": "held out", "d": "CC0-1.0 |\nnobody"}
    data = replace(CONFIG.data, validation_groups=("c",), credits=credits)
    train(shards, tmp_path, replace(CONFIG, data=data, steps=3))
    assert load_checkpoint(tmp_path)[1].provenance["credits"] == {"a": credits["a"], "d": credits["d"]}
    card = (tmp_path / "restorer/README.md").read_text()
    assert "| a | CC-BY-4.0, A. Person |\n| d | CC0-1.0 / nobody |" in card and "held out" not in card
    assert "## Limits\n\nNever evaluate it on a group that it was trained on." in card
    state = train(shards, tmp_path, replace(CONFIG, data=replace(data, credits={}), steps=6))
    assert state.step == 6, "credits may change when a training is resumed"
    more = replace(CONFIG, data=replace(data, credits={"b": "MIT, B"}), steps=3, start_from=str(tmp_path))
    train(shards, tmp_path / "first", replace(CONFIG, data=data, steps=3))
    train(shards, tmp_path / "more", replace(more, start_from=str(tmp_path / "first")))
    assert load_checkpoint(tmp_path / "more")[1].provenance["credits"] == {
        **load_checkpoint(tmp_path / "first")[1].provenance["credits"],
        "b": "MIT, B",
    }
