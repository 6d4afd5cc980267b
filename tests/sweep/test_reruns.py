"""Figures of a rerun."""

from __future__ import annotations

import pytest

from splatfix.evaluation.results import Results, ViewResult
from splatfix.sweep.reruns import rerun_figures, subtract_figures
from tests.report.make_run import make_results


def results(after: float, control: float) -> Results:
    arms = {"before": {"psnr": 19.0}, "control": {"psnr": control}, "after": {"psnr": after}, "post": None}
    return make_results([ViewResult(name="a", band="far", distance=0.1, **arms)])


def test_longer_training_makes_no_difference_by_itself():
    default, longer = rerun_figures(results(20.0, 19.5), "psnr"), rerun_figures(results(20.3, 19.8), "psnr")
    assert longer.after > default.after and subtract_figures(default, longer) == pytest.approx(0.0)


def test_the_difference_is_of_the_gains():
    default, best = rerun_figures(results(20.0, 19.5), "psnr"), rerun_figures(results(20.4, 20.1), "psnr")
    assert subtract_figures(default, best) == pytest.approx(-0.2)
    assert (default.gain, best.gain) == pytest.approx((0.5, 0.3))
    assert best.near is None
