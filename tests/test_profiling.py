"""Time by stage."""

from __future__ import annotations

import json
import time

import pytest

from splatfix.fit import FitRunConfig, run_fit
from splatfix.profiling import OPTIMIZERS, REST, profiled, stage
from splatfix.sample import sample_path
from splatfix.splats.train import FitConfig
from splatfix.views import ViewsConfig


def test_time_counts_for_the_innermost_stage() -> None:
    settled = []
    with profiled(lambda: settled.append(1)) as profile:
        with stage("outer"):
            time.sleep(0.02)
            with stage("inner"):
                time.sleep(0.05)
        for _ in range(3):
            with stage(OPTIMIZERS):
                pass
    assert profile.seconds["inner"] >= 0.05
    assert 0.02 <= profile.seconds["outer"] < 0.05
    assert profile.seconds[REST] < 0.02
    assert profile.calls == {"outer": 1, "inner": 1, OPTIMIZERS: 3}
    assert profile.num_steps == 3
    assert len(settled) == 11
    assert profile.table().splitlines()[1].startswith("inner")


def test_a_stage_that_fails_is_left() -> None:
    with profiled() as profile:
        with pytest.raises(KeyError), stage("broken"):
            raise KeyError
        time.sleep(0.02)
    assert profile.seconds[REST] >= 0.02
    with stage("after the stretch"):
        pass
    assert "after the stretch" not in profile.calls


def test_a_profiled_fit(tmp_path, caplog) -> None:
    config = FitRunConfig(video=False, views=ViewsConfig(num_train=3, size_px=64), fit=FitConfig(steps=6))
    with caplog.at_level("INFO"):
        run_fit(sample_path(), tmp_path, config, profile=True)
    written = json.loads((tmp_path / "profile.json").read_text())
    assert written["steps"] == 6
    assert {"project", "draw", "draw, backward", "loss", OPTIMIZERS, REST} <= set(written["seconds"])
    assert written["calls"]["draw"] == written["calls"]["draw, backward"] == 6
    assert "where the time of a step went" in caplog.text
