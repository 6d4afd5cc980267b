"""The rule that tells a gain from noise."""

import math

import numpy as np
import pytest

from splatfix.evaluation.measure import summarize
from splatfix.evaluation.noise import paired_gain, run_spread
from splatfix.evaluation.results import ViewResult


def views_with(before, control, after, metric="psnr"):
    return [
        ViewResult(
            name=str(k),
            band="near",
            distance=1.0,
            before={metric: b},
            control={metric: c},
            after={metric: a},
            post=None,
        )
        for k, (b, c, a) in enumerate(zip(before, control, after, strict=True))
    ]


def test_the_mean_is_the_gain_of_the_summary_and_the_error_that_of_the_paired_changes():
    rng = np.random.default_rng(0)
    before, control = rng.normal(20, 3, 12), rng.normal(20.5, 3, 12)
    after = control + rng.normal(0.3, 0.2, 12)
    views = views_with(before, control, after)
    gain = paired_gain(views, "psnr", noticeable=0.05)
    rival = max((before, control), key=np.mean)
    assert gain.mean == pytest.approx(summarize(views).value("all", "gain", "psnr"))
    assert gain.standard_error == pytest.approx(np.std(after - rival, ddof=1) / math.sqrt(12))
    assert gain.num == 12


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ([0.2, 0.3, 0.25, 0.22], "better"),
        ([-0.2, -0.3, -0.25, -0.22], "worse"),
        ([0.9, -0.5, 0.3, -0.1], "within noise"),  # a mean of 0.15 with an error of 0.3
        ([0.04, 0.041, 0.042, 0.04], "too small"),  # certain, but below notice
        ([0.2, 0.3], "better"),  # too few for an error
    ],
)
def test_a_verdict_follows_the_noise_not_the_sign(changes, verdict):
    views = views_with([19.0] * len(changes), [20.0] * len(changes), [20.0 + change for change in changes])
    gain = paired_gain(views, "psnr", noticeable=0.05)
    assert gain.verdict == verdict
    assert (gain.standard_error is None) == (len(changes) < 3)


def test_where_less_is_better_a_negative_change_is_better():
    views = views_with([0.3] * 4, [0.31] * 4, [0.2, 0.21, 0.2, 0.21], metric="lpips")
    gain = paired_gain(views, "lpips", noticeable=0.002)
    assert gain.verdict == "better"
    assert gain.mean == pytest.approx(-0.095)  # against before, the lower of the two


@pytest.mark.parametrize(
    ("spread", "verdict"), [(None, "better"), (0.0, "better"), (0.24, "better"), (0.25, "within noise")]
)
def test_a_gain_below_the_run_to_run_spread_is_noise(spread, verdict):
    changes = [0.2, 0.3, 0.25, 0.22]
    views = views_with([19.0] * 4, [20.0] * 4, [20.0 + change for change in changes])
    assert paired_gain(views, "psnr", noticeable=0.05, spread=spread).verdict == verdict


def test_the_run_to_run_spread_is_the_difference_of_two_controls_by_metric():
    control, again = {"psnr": 20.0, "lpips": 0.3, "ssim": 0.5}, {"psnr": 20.25, "lpips": None, "ssim": 0.5}
    assert run_spread(control, again) == {"psnr": 0.25, "lpips": None, "ssim": 0.0}
    assert run_spread(control, None) is None and run_spread(None, again) is None


def test_no_gain_without_each_arm():
    views = views_with([19.0] * 3, [None] * 3, [20.0] * 3)
    assert paired_gain(views, "psnr", noticeable=0.05) is None
    assert paired_gain([], "psnr", noticeable=0.05) is None
