"""Mistakes that are easily made with the Python API end in one line with the remedy; values print in a line."""

from dataclasses import replace

import pytest

import splatfix
from splatfix import FitConfig, FittedCapture, LoopConfig, RepairConfig, ViewsConfig

CONFIG = LoopConfig(
    views=ViewsConfig(size_px=32, max_test=3),
    fit=FitConfig(steps=2),
    repair=RepairConfig(rounds=1, views=2, steps=1, siblings=0),
)


@pytest.fixture(scope="module")
def fitted() -> FittedCapture:
    """A fit of two steps."""
    return splatfix.fit_capture(splatfix.open_capture(splatfix.sample_path(), longest_side_px=32), CONFIG)


def test_split_is_that_of_the_fit(fitted):
    assert splatfix.make_split(fitted.capture, CONFIG.views) == fitted.split


def test_values_print_in_a_line(fitted):
    assert repr(fitted) == f"<FittedCapture tankard: 6 photos, 2 steps, {len(fitted.splat.gaussians)} Gaussians>"
    assert repr(fitted.capture) == f"<Capture tankard: 36 views, transforms, {splatfix.sample_path()}>"


def test_path_is_no_capture(unchecked):  # noqa: ARG001
    with pytest.raises(ValueError, match=r"^fit_capture: capture = 'mine', a path; wanted open_capture\('mine'\)$"):
        splatfix.fit_capture("mine")


def test_views_need_as_many_repairs(fitted):
    views = splatfix.render_flawed(fitted)
    with pytest.raises(ValueError, match=r"^retrain: 0 repaired for 2 views; wanted one for each: repair\(views\)"):
        splatfix.retrain(fitted, views)


@pytest.mark.parametrize("arm", ["gain", "post"])
def test_arms_have_their_names(fitted, arm):
    with pytest.raises(ValueError, match=f"^evaluate: arm '{arm}'; wanted one of before, control, after$"):
        splatfix.evaluate({arm: fitted})


def test_arms_are_fits_of_the_same_photos(fitted):
    other = replace(fitted, split=replace(fitted.split, train_ids=fitted.split.train_ids[:3]))
    with pytest.raises(ValueError, match=r"^evaluate: after was fitted to other photos than before; wanted the same$"):
        splatfix.evaluate({"before": fitted, "after": other})


def test_summary_names_its_bands_and_columns(fitted):
    summary = splatfix.evaluate({"before": fitted})
    assert summary.value("far", "before", "psnr") is not None
    assert summary.value("far", "gain", "psnr") is None
    with pytest.raises(ValueError, match=r"^summary: band 'farr'; wanted one of all, near, mid, far$"):
        summary.value("farr", "before", "psnr")
    with pytest.raises(
        ValueError, match=r"^summary: column 'first'; wanted one of before, control, after, post, gain$"
    ):
        summary.value("far", "first", "psnr")
