"""Summaries: bands, gain, nulls."""

import pytest

from splatfix.evaluation.measure import summarise


def row(name, band, before, control, after):
    def figures(psnr):
        return None if psnr is None else {"psnr": psnr, "ssim": psnr / 40, "lpips": 1 - psnr / 40}

    return {
        "name": name,
        "band": band,
        "distance": 0.1,
        "before": figures(before),
        "control": figures(control),
        "after": figures(after),
        "post": None,
    }


def test_gain_is_over_the_better_of_before_and_control():
    summary = summarise([row("a", "near", 20, 22, 23), row("b", "near", 24, 20, 23), row("c", "far", 10, 11, 10)])
    assert summary["near"]["before"]["psnr"] == 22
    assert summary["near"]["control"]["psnr"] == 21
    assert summary["near"]["gain"]["psnr"] == pytest.approx(1)
    assert summary["far"]["gain"]["psnr"] == pytest.approx(-1)
    assert summary["far"]["gain"]["lpips"] == pytest.approx(1 / 40)  # larger LPIPS is worse
    assert summary["mid"] is None
    assert summary["all"]["after"]["psnr"] == pytest.approx(56 / 3)
    assert summary["all"]["post"] is None


def test_a_single_splat_has_no_gain():
    summary = summarise([row("a", "near", None, None, 23)])
    assert summary["all"]["after"]["psnr"] == 23
    assert summary["all"]["gain"] is None


def test_a_metric_that_one_view_lacks_is_null():
    rows = [row("a", "near", 20, 20, 20), row("b", "near", 20, 20, 20)]
    rows[1]["after"]["ssim"] = None
    summary = summarise(rows)
    assert summary["near"]["after"]["ssim"] is None
    assert summary["near"]["gain"]["ssim"] is None
    assert summary["near"]["gain"]["psnr"] == 0
