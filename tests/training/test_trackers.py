"""TensorBoard and wandb beside MLflow: read back, continued without repeated steps, and never the end of a training."""

from __future__ import annotations

import sys
import types
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from splatfix.training import trackers
from splatfix.training.config import TrainTrackingConfig
from splatfix.training.train import train
from tests.training.small import CONFIG

VALIDATION = "validation.psnr_gain"


def config(*also: str, **more: Any):
    """A short training that is tracked beside MLflow, each of its steps."""
    return replace(CONFIG, tracking=TrainTrackingConfig(also=also, name="mine"), **more)


@pytest.fixture(autouse=True)
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splatfix.training.train.TRACKED_STEPS", 1)


def read_events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run: steps and values by name."""
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    accumulator = reading.EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    shown = {name: [(e.step, e.value) for e in accumulator.Scalars(name)] for name in accumulator.Tags()["scalars"]}
    texts = [tag for tag in accumulator.Tags()["tensors"] if tag.startswith("settings")]
    assert len(texts) == 1 and len(accumulator.Tensors(texts[0])) == 1
    assert b"learning_rate" in accumulator.Tensors(texts[0])[0].tensor_proto.string_val[0]
    return shown


@pytest.mark.slow
def test_tensorboard_shows_each_step_once_after_an_interruption(shards, tmp_path):
    class KilledError(Exception):
        pass

    def kill_at_5(step: int, _numbers: dict[str, float]) -> None:
        if step == 5:
            raise KilledError

    state = train(shards, tmp_path / "whole", config("tensorboard"))
    whole = read_events(tmp_path / "whole")
    assert [step for step, _ in whole["train.loss"]] == [1, 2, 3, 4, 5, 6]
    gains = [record["validation"]["psnr_gain"] for record in state.history]
    assert whole[VALIDATION] == [(3, pytest.approx(gains[0])), (6, pytest.approx(gains[1]))]
    with pytest.raises(KilledError):  # the state of step 3 is the last saved one
        train(shards, tmp_path / "killed", config("tensorboard"), on_step=kill_at_5)
    assert [step for step, _ in read_events(tmp_path / "killed")["train.loss"]] == [1, 2, 3, 4, 5]
    train(shards, tmp_path / "killed", config("tensorboard"))
    resumed = read_events(tmp_path / "killed")
    assert resumed["train.loss"] == whole["train.loss"] and resumed[VALIDATION] == whole[VALIDATION]
    train(shards, tmp_path / "killed", config("tensorboard", steps=9))
    assert [step for step, _ in read_events(tmp_path / "killed")["train.loss"]] == [*range(1, 10)]
    train(shards, tmp_path / "killed", config("tensorboard", steps=3), fresh=True)
    assert [step for step, _ in read_events(tmp_path / "killed")["train.loss"]] == [1, 2, 3]


@pytest.mark.slow
def test_nothing_is_written_unless_it_is_asked_for(shards, tmp_path):
    train(shards, tmp_path / "run", config(steps=3))
    off = TrainTrackingConfig(enabled=False, also=("tensorboard",))
    train(shards, tmp_path / "off", replace(CONFIG, steps=3, tracking=off))
    assert list(tmp_path.glob("*/tensorboard")) == []


@pytest.mark.slow
def test_a_tracker_that_fails_is_left_out_with_one_warning(shards, tmp_path, monkeypatch, caplog):
    from torch.utils.tensorboard import SummaryWriter

    written = Counter[str]()

    def fail(_writer: Any, name: str, *_: Any, **__: Any) -> None:
        written[name] += 1
        raise OSError("quota exceeded\non this disk")

    monkeypatch.setattr(SummaryWriter, "add_scalar", fail)
    with caplog.at_level("WARNING", "splatfix"):
        state = train(shards, tmp_path / "run", config("tensorboard"))
    assert state.step == 6 and sum(written.values()) == 1
    [message] = [record.getMessage() for record in caplog.records if "tracking.also" in record.getMessage()]
    assert message == (
        "tracking.also: tensorboard failed and gets no more numbers (quota exceeded on this disk); the training goes on"
    )


@pytest.mark.slow
def test_a_tracker_that_does_not_answer_is_given_up(shards, tmp_path, monkeypatch, caplog):
    import threading

    monkeypatch.setattr(trackers, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(trackers.TensorBoardTracker, "start", lambda _self: threading.Event().wait(60))
    with caplog.at_level("WARNING", "splatfix"):
        assert train(shards, tmp_path / "run", config("tensorboard")).step == 6
    assert "tensorboard failed and gets no more numbers (no end after 0.3 s)" in caplog.text


def test_a_missing_package_is_named_before_anything_is_written(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None if name == "wandb" else True)
    with pytest.raises(ValueError, match=r"^tracking\.also = wandb: the package wandb is not installed: pip install"):
        train(shards, tmp_path / "run", config("wandb"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=r"tracking\.also = .*wanted each once"):
        TrainTrackingConfig(also=("wandb", "wandb"))


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """A module in place of wandb, which records the calls of Accelerate's tracker."""
    calls: list[tuple[str, Any]] = []

    class Run:
        def log(self, values: dict[str, Any], step: int | None = None) -> None:
            calls.append(("log", (step, values)))

        def finish(self) -> None:
            calls.append(("finish", None))

    def init(**settings: Any) -> Run:
        calls.append(("init", settings))
        return Run()

    module = types.ModuleType("wandb")
    module.init = init  # type: ignore[attr-defined]
    update = lambda values, **_: calls.append(("config", values))  # noqa: E731
    module.config = types.SimpleNamespace(update=update)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(trackers, "find_spec", lambda _name: True)
    return calls


@pytest.mark.slow
def test_wandb_continues_the_same_run(shards, tmp_path, fake_wandb):
    train(shards, tmp_path / "run", config("wandb"))
    kinds = [kind for kind, _ in fake_wandb]
    assert kinds[:2] == ["init", "config"] and kinds[-1] == "finish"
    first = fake_wandb[0][1]
    assert (first["project"], first["name"], first["resume"]) == ("splatfix", "mine", "allow")
    assert fake_wandb[1][1]["learning_rate"] == CONFIG.learning_rate
    logged = [step for kind, value in fake_wandb if kind == "log" for step in [value[0]]]
    assert logged == [1, 2, 3, 3, 4, 5, 6, 6]
    num = len(fake_wandb)
    train(shards, tmp_path / "run", config("wandb", steps=9))
    again = fake_wandb[num:]
    assert again[0][1]["id"] == first["id"] is not None
    assert [value[0] for kind, value in again if kind == "log"] == [7, 8, 9, 9]
