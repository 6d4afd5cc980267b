"""The benchmarks of stages: each row is there, and the old ways give the same results as ours."""

from __future__ import annotations

import pytest

from tests.benchmarks.bench_rendering import table
from tests.benchmarks.bench_stages import BEFORE, in_turn, stages


@pytest.mark.slow
def test_each_stage_is_timed_beside_the_way_before() -> None:
    rows = stages(1, small=True)  # asserts that both ways agree
    ours = ["metrics of a view", "step of Adam", "20 steps on the host", "restorer step", "photos of a splat"]
    named = {row["work"]: row for row in rows}
    assert {*ours, *(work + BEFORE for work in ours), "matching, numpy", "matching, torch"} <= set(named)
    assert all(row["median_ms"] > 0 for row in rows) and all("times_as_fast" in named[work] for work in ours)
    machine = {"processor": "p", "threads": 1, "compiled_for": "p", "device": "cpu"}
    machine |= {"multiply_adds_per_ns": 1.0, "copied_bytes_per_ns": 1.0}
    text = table({"machine": machine, "rows": rows})
    assert text.count("times as fast as before") == 6 and "MB from process to process" in text


def test_ways_are_timed_in_turn() -> None:
    calls: list[str] = []
    ways = {BEFORE: lambda: calls.append("before"), "": lambda: calls.append("ours")}
    rows = in_turn("scene", "work", ways, 3)
    assert calls == ["before", "ours"] * 4
    assert [row["work"] for row in rows] == ["work, before", "work"]
    assert "times_as_fast" in rows[1] and "times_as_fast" not in rows[0]
