"""A training that starts from a restorer of the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from splatfix.restoration.nafnet.checkpoint import load_checkpoint
from splatfix.restoration.publish import prepare, publish
from splatfix.training.train import train
from tests.training.small import CONFIG

NAME = "hf:octocat/restorer"


@pytest.mark.slow
@pytest.mark.usefixtures("hub_server")
def test_a_training_from_the_hub_records_the_commit_and_is_not_resumed_with_another(shards, tmp_path):
    data = replace(CONFIG.data, validation_groups=("c",))
    train(shards, tmp_path / "first", replace(CONFIG, data=data, steps=3))
    pinned = publish(prepare(str(tmp_path / "first"), NAME, license="mit"))
    config = replace(CONFIG, data=data, steps=3, start_from=NAME)
    here = train(shards, tmp_path / "here", replace(config, start_from=str(tmp_path / "first"))).history
    there = train(shards, tmp_path / "there", config).history
    assert [record["loss"] for record in there] == [record["loss"] for record in here]
    assert yaml.safe_load((tmp_path / "there/config.yaml").read_text())["start_from"] == str(pinned)
    assert load_checkpoint(tmp_path / "there")[1].provenance["start_from"]["step"] == 3
    publish(prepare(str(tmp_path / "here"), NAME, license="mit"))
    with pytest.raises(ValueError, match=rf"start_from was '{pinned}', now it is '{NAME}@"):
        train(shards, tmp_path / "there", replace(config, steps=6))
    assert train(shards, tmp_path / "there", replace(config, steps=6, start_from=str(pinned))).step == 6
