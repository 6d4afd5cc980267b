"""The strength of a restorer follows from means over scenes."""

from __future__ import annotations

import pytest

from splatfix.training.validation import Row, summarize_gains


def test_strength_is_chosen_by_the_mean_over_scenes_not_over_pairs():
    rows = [Row("many", "near", 1.0, 1.0, 0.0)] * 9 + [Row("few", "far", 1.0, -3.0, 0.0)]
    rows += [Row("many", "near", 0.5, 0.6, 0.0)] * 9 + [Row("few", "far", 0.5, 0.2, 0.0)]
    summary = summarize_gains(rows)
    assert summary["strength"] == 0.5
    assert summary["psnr_gain"] == pytest.approx(0.4)
    assert summary["num_pairs"] == 10
    assert summary["by_strength"]["1.0"]["by_band"]["far"]["psnr_gain"] == -3.0
