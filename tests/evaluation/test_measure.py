"""Summaries: bands, gain, nulls."""

from dataclasses import replace

import pytest

from splatfix.evaluation.measure import summarize
from splatfix.evaluation.results import Metrics, ViewResult


def view(name: str, band: str, before: float | None, control: float | None, after: float | None) -> ViewResult:
    def metrics(psnr: float | None) -> Metrics | None:
        return None if psnr is None else {"psnr": psnr, "ssim": psnr / 40, "lpips": 1 - psnr / 40}

    arms = {"before": metrics(before), "control": metrics(control), "after": metrics(after), "post": None}
    return ViewResult(name=name, band=band, distance=0.1, **arms)


def test_gain_is_over_the_better_of_before_and_control():
    views = [view("a", "near", 20, 22, 23), view("b", "near", 24, 20, 23), view("c", "far", 10, 11, 10)]
    summary = summarize(views)
    assert summary.value("near", "before", "psnr") == 22
    assert summary.value("near", "control", "psnr") == 21
    assert summary.value("near", "gain", "psnr") == pytest.approx(1)
    assert summary.value("far", "gain", "psnr") == pytest.approx(-1)
    assert summary.value("far", "gain", "lpips") == pytest.approx(1 / 40)  # larger LPIPS is worse
    assert summary.mid is None and summary.value("mid", "gain", "psnr") is None
    assert summary.value("all", "after", "psnr") == pytest.approx(56 / 3)
    assert summary.all.post is None
    assert views[0].gain["psnr"] == pytest.approx(1) and views[1].gain["psnr"] == pytest.approx(-1)


def test_a_single_splat_has_no_gain():
    views = [view("a", "near", None, None, 23)]
    summary = summarize(views)
    assert summary.value("all", "after", "psnr") == 23
    assert summary.all.gain is None and views[0].gain is None


def test_a_metric_that_one_view_lacks_is_null():
    views = [view("a", "near", 20, 20, 20), view("b", "near", 20, 20, 20)]
    views[1] = replace(views[1], after={**views[1].after, "ssim": None})
    summary = summarize(views)
    assert summary.value("near", "after", "ssim") is None
    assert summary.value("near", "gain", "ssim") is None
    assert summary.value("near", "gain", "psnr") == 0
