"""How `splatfix train` ends: the gain and its spread, the weights, MLflow, and the next command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from splatfix import cli
from splatfix.config import to_yaml
from splatfix.report.training_summary import (
    NOT_VALIDATED,
    command_after_training,
    describe_gain,
    describe_training,
    restorer_of,
)
from splatfix.restoration.nafnet.checkpoint import CheckpointConfig, save_checkpoint
from splatfix.training.config import TrainTrackingConfig
from splatfix.training.validation import Row, summarize_gains
from tests.restoration.networks import SMALL, random_network
from tests.training.small import CONFIG

GROUPS = {"kitchen_a": "kitchen", "kitchen_b": "kitchen", "yard": "yard"}


def validation(yard: float) -> dict:
    gains = {"kitchen_a": 0.5, "kitchen_b": 0.3, "yard": yard}
    return summarize_gains([Row(scene, None, 1.0, gain, 0.01) for scene, gain in gains.items()], GROUPS)


def write_run(folder: Path, measured: dict | None) -> Path:
    config = CheckpointConfig(network=SMALL, strength=0.75, provenance={"validation": measured})
    save_checkpoint(folder / "restorer", random_network(), config)
    return folder


def test_the_gain_is_spread_over_groups_not_scenes():
    text = " ".join(" ".join(describe_gain(validation(-0.2))).split())
    assert "gain: +0.20 dB PSNR, +0.0100 SSIM over the renders, on 3 held-out scenes" in text
    assert "groups: -0.20 (yard) to +0.40 dB (kitchen), standard deviation 0.42; 1 of 2 worse than the renders" in text
    assert "does not improve" not in text
    assert max(map(len, "\n".join(describe_gain(validation(-0.2))).splitlines())) <= 80


def test_a_training_that_helps_is_used_and_one_that_does_not_is_continued(tmp_path):
    helps, hurts = write_run(tmp_path / "helps", validation(-0.2)), write_run(tmp_path / "hurts", validation(-2.0))
    assert f"weights: {helps}/restorer (75% of the correction is applied)" in describe_training(helps)
    next_line = f"next:   splatfix loop CAPTURE --restorer {helps} --out runs/mine"
    assert command_after_training(helps, "pairs", 600) == next_line
    assert "It does not improve held-out scenes: train it longer" in describe_training(hurts)
    assert command_after_training(hurts, "my pairs", 600) == (
        f"next:   splatfix train --shards 'my pairs' --out {hurts} --steps 1200"
    )
    unknown = write_run(tmp_path / "unknown", None)
    assert describe_training(unknown).startswith(NOT_VALIDATED)
    assert "splatfix loop" in command_after_training(unknown, "pairs", 600)


def test_a_training_in_a_folder_called_like_a_restorer_is_still_found():
    assert restorer_of("runs/warp") == "runs/warp"
    assert restorer_of("warp") == "warp/restorer"


@pytest.mark.slow
def test_the_command_ends_with_it_also_when_nothing_is_left_to_do(shards, tmp_path, capsys):
    config = tmp_path / "train.yaml"
    tracking = TrainTrackingConfig(also=("tensorboard",))
    config.write_text(to_yaml(replace(CONFIG, steps=3, tracking=tracking)))
    out = tmp_path / "run"
    for _ in range(2):
        assert cli.main(["train", "--shards", shards, "--out", str(out), "--config", str(config)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("gain:    +")
        [weights] = [line for line in lines if line.startswith("weights: ")]
        assert f"{out}/restorer" in weights and Path(weights.split()[1], "restorer.safetensors").is_file()
        assert f"MLflow:  mlflow ui --backend-store-uri sqlite:///{out}/mlflow.db, then http://127.0.0.1:5000/#/" in (
            "\n".join(lines)
        )
        assert f"also:    tensorboard --logdir {out}/tensorboard" in lines
        assert lines[-1] == f"next:   splatfix loop CAPTURE --restorer {out} --out runs/mine"


def test_only_the_first_process_of_torchrun_says_it(shards, tmp_path, monkeypatch, capsys):
    run = write_run(tmp_path / "run", validation(0.0))
    monkeypatch.setattr("splatfix.training.launch.launch", lambda *_, **__: None)
    monkeypatch.setattr("splatfix.report.training.write_training_page", lambda *_: run / "report.html")
    monkeypatch.setenv("RANK", "1")
    arguments = ["train", "--shards", shards, "--out", str(run)]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RANK", "0")
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("gain:") and f"report: {run / 'report.html'}" in said and said[-1].startswith("next:")
