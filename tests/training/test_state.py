"""A saved state that does not fit its training is refused with one line that names the file and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from splatfix.saved_states import decode_state, write_state
from splatfix.training.learner import build_learner, restore_learner
from splatfix.training.state import TrainingState, save_state
from tests.training.small import CONFIG

SHORT = replace(CONFIG, optimizer="adamw")
FIRST = "network.intro.weight"


@pytest.fixture
def saved(tmp_path) -> Path:
    learner = build_learner(SHORT)
    for weight in learner.network.parameters():
        weight.grad = torch.ones_like(weight)
    learner.optimizer.step()
    record = {"step": 3, "loss": 0.1, "validation": None}
    save_state(
        tmp_path / "state.pt", TrainingState(planned=6, step=3, history=[record]), *learner.stateful, {"seed": 0}
    )
    return tmp_path / "state.pt"


def drop_moments(state: dict[str, Any]) -> None:
    for each in state["optimizer"]["state"].values():
        del each["exp_avg"]


def change_moment(state: dict[str, Any]) -> None:
    next(iter(state["optimizer"]["state"].values()))["exp_avg"] = torch.zeros(2)


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "shape": (lambda s: s["network"].update({FIRST: torch.zeros(3)}), f"size mismatch for {FIRST}"),
    "missing tensor": (lambda s: s["ema"].pop(FIRST), f'Missing key.*"{FIRST}"'),
    "no tensor": (lambda s: s["network"].update({FIRST: [1]}), "expected torch.Tensor"),
    "no optimizer": (lambda s: s.pop("optimizer"), "optimizer is missing"),
    "list": (lambda s: s.update(network=[1]), "network is a list, wanted a mapping"),
    "groups": (lambda s: s["optimizer"].update(param_groups=[]), "parameter group"),
    "all moments": (drop_moments, "exp_avg of the optimizer is missing"),
    "moment": (change_moment, r"exp_avg of the optimizer is \(2,\), wanted \(8, 13, 3, 3\)"),
    "fewer moments": (lambda s: s["optimizer"]["state"].popitem(), "a state for 99 of 100 weights"),
    "tag": (lambda s: s.update(tag=None), "tag is a NoneType"),
    "step": (lambda s: s["progress"].update(step="x"), "step = 'x': wanted a valid integer"),
    "negative": (lambda s: s["progress"].update(step=-4), "step = -4: wanted greater than or equal to 0"),
    "part of a step": (lambda s: s["progress"].update(segment=1.5), "segment = 1.5"),
    "history": (lambda s: s["progress"].update(history=None), "history = None"),
    "record": (lambda s: s["progress"].update(history=[{"step": 3}]), "history has a record without loss"),
    "plan": (lambda s: s["progress"].pop("planned"), "planned is missing"),
}


def restore(path: Path) -> TrainingState:
    return restore_learner(build_learner(SHORT), path, SHORT, {"seed": 0})


def test_a_whole_state_is_restored(saved):
    assert restore(saved).history[0]["loss"] == 0.1


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_state_that_does_not_fit_is_one_line(damage, saved):
    change, reason = DAMAGES[damage]
    state = decode_state(saved.read_bytes())
    change(state)
    write_state(saved, state)
    with pytest.raises(ValueError, match=rf"state\.pt: .*{reason}.*; start over with --fresh") as caught:
        restore(saved)
    assert "\n" not in str(caught.value)
