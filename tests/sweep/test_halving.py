"""Rungs of successive halving."""

from __future__ import annotations

from splatfix.sweep.config import HalvingConfig
from splatfix.sweep.halving import passes_rung


def test_rungs_stop_trials_that_fall_behind():
    config = HalvingConfig(grace=1, factor=3.0)
    others = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]  # a third of them is above 3.33
    assert passes_rung(1, 3.4, others, config) and not passes_rung(1, 3.3, others, config)
    assert passes_rung(2, -9.0, others, config)  # no rung
    assert passes_rung(3, 3.4, others, config) and not passes_rung(3, 3.3, others, config)
    assert passes_rung(1, -9.0, [], config)  # no other trial to compare with
    assert not passes_rung(1, None, [], config)
    assert passes_rung(1, -9.0, others, HalvingConfig(grace=2))
