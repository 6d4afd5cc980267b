"""The strength of a restorer follows from means over scenes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from splatfix.training.validation import (
    GOOD_ERROR,
    Row,
    WholeRepair,
    calibrate,
    measure_pair,
    summarize,
    summarize_gains,
    tabulate_errors,
)
from tests.restoration.scenery import pair


def test_strength_is_chosen_by_the_mean_over_scenes_not_over_pairs():
    rows = [Row("many", "near", 1.0, 1.0, 0.0)] * 9 + [Row("few", "far", 1.0, -3.0, 0.0)]
    rows += [Row("many", "near", 0.5, 0.6, 0.0)] * 9 + [Row("few", "far", 0.5, 0.2, 0.0)]
    summary = summarize_gains(rows)
    assert summary["strength"] == 0.5
    assert summary["psnr_gain"] == pytest.approx(0.4)
    assert summary["num_pairs"] == 10
    assert summary["by_strength"]["1.0"]["by_band"]["far"]["psnr_gain"] == -3.0


def test_good_and_bad_pixels_are_reported_apart():
    one = pair(1)
    render, clean = (torch.from_numpy(image / np.float32(255)) for image in (one.artifact, one.clean))
    is_good = (render - clean).abs().mean(-1) <= GOOD_ERROR

    def repair(conditioning):  # perfect where the render is bad, and brighter elsewhere
        return WholeRepair(torch.where(is_good[..., None], conditioning.rgb + 0.1, clean))

    summary = summarize([measure_pair(repair, one)])
    best = summary["by_strength"]["1.0"]
    assert best["psnr_gain_good"] < -0.1 and best["psnr_gain_bad"] > 20
    assert "calibration" not in summary


def test_the_expected_error_is_calibrated_by_deciles():
    generator = torch.Generator().manual_seed(0)
    expected = torch.empty(200, 300).log_normal_(-4.0, 0.8, generator=generator)
    found = 1.5 * expected**0.8 * torch.empty_like(expected).exponential_(1.0, generator=generator)
    known = torch.ones(200, 300, dtype=torch.bool)
    halves = [tabulate_errors(expected[part], found[part], known[part]) for part in (slice(0, 90), slice(90, 200))]
    calibration = calibrate(halves[0] + halves[1])
    assert calibration["scale"] == pytest.approx(1.5, rel=0.1)
    assert calibration["power"] == pytest.approx(0.8, abs=0.04)
    rows = calibration["deciles"]
    assert len(rows) == 10 and rows[0]["expected"] < rows[-1]["expected"]
    for row in rows:
        assert calibration["scale"] * row["expected"] ** calibration["power"] == pytest.approx(row["found"], rel=0.15)


def test_unknown_pixels_do_not_count_in_the_calibration():
    expected, found = torch.full((10, 10), 0.1), torch.full((10, 10), 0.2)
    found[:5] = 1.0
    known = torch.zeros(10, 10, dtype=torch.bool)
    known[5:] = True
    [row] = calibrate(tabulate_errors(expected, found, known))["deciles"]
    assert (row["expected"], row["found"]) == (pytest.approx(0.1), pytest.approx(0.2))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_errors_that_are_not_finite_do_not_count_in_the_calibration(value):
    expected = torch.rand(20, 20, generator=torch.Generator().manual_seed(0)) / 10 + 0.01
    known = torch.ones(20, 20, dtype=torch.bool)
    is_finite = known.clone()
    is_finite[:3] = False
    broken = torch.where(is_finite, expected, value)
    assert calibrate(tabulate_errors(broken, expected, known)) == calibrate(
        tabulate_errors(expected, expected, is_finite)
    )
