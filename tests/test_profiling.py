"""Time by section."""

from __future__ import annotations

import json

import pytest

from splatfix.fit import FitRunConfig, run_fit
from splatfix.profiling import OPTIMIZERS, REST, record_profile, section
from splatfix.sample import sample_path
from splatfix.splats.train import FitConfig
from splatfix.views import ViewsConfig


class Clock:
    """Stands for ``time.perf_counter``."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("splatfix.profiling.time.perf_counter", clock)
    return clock


def test_time_counts_for_the_innermost_section(clock: Clock) -> None:
    settled = []
    with record_profile(lambda: settled.append(1)) as profile:
        with section("outer"):
            clock.now += 2
            with section("inner"):
                clock.now += 5
            clock.now += 1
        clock.now += 0.5
        for _ in range(3):
            with section(OPTIMIZERS):
                clock.now += 1
    assert profile.seconds == {"outer": 3, "inner": 5, REST: 0.5, OPTIMIZERS: 3}
    assert profile.calls == {"outer": 1, "inner": 1, OPTIMIZERS: 3}
    assert profile.num_steps == 3
    assert len(settled) == 11
    first, last = profile.table().splitlines()[1::4]
    assert first.split() == ["inner", "1666.67", "43.5%"]
    assert last.split() == ["all", "3833.33", "100.0%"]


def test_a_section_that_fails_is_closed(clock: Clock) -> None:
    with record_profile() as profile:
        with pytest.raises(KeyError), section("broken"):
            raise KeyError
        clock.now += 2
    assert profile.seconds[REST] == 2
    with section("after the profile"):
        pass
    assert "after the profile" not in profile.calls


def test_a_profiled_fit(tmp_path, caplog) -> None:
    config = FitRunConfig(video=False, views=ViewsConfig(num_train=3, size_px=64), fit=FitConfig(steps=6))
    with caplog.at_level("INFO"):
        run_fit(sample_path(), tmp_path, config, profile=True)
    written = json.loads((tmp_path / "profile.json").read_text())
    assert written["steps"] == 6
    assert {"project", "draw", "draw, backward", "loss", OPTIMIZERS, REST} <= set(written["seconds"])
    assert written["calls"]["draw"] == written["calls"]["draw, backward"] == 6
    assert "time of a step by section" in caplog.text
