"""Charts and the plan of the cameras as SVG."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from splatfix.evaluation.results import ViewResult
from splatfix.evaluation.view_cameras import ViewCameras
from splatfix.report import charts
from splatfix.report.load import load_runs
from splatfix.report.top_view import camera_plan
from splatfix.report.wording import format_number
from splatfix.views import BANDS
from tests.report.make_run import make_camera, make_run

BASE = {"psnr": 20.0}


def points(svg) -> np.ndarray:
    """Centres of the training cameras in the drawing."""
    found = re.findall(r'<path class="mark train" transform="translate\(([\d.]+) ([\d.]+)\)', svg)
    return np.array(found, float)


def ring(normal_axis: int, num: int = 6) -> ViewCameras:
    cameras = []
    for angle in np.arange(num) * 2 * np.pi / num:
        center = np.insert(3 * np.array([np.cos(angle), np.sin(angle)]), normal_axis, 0.1 * (angle > 3))
        up = np.eye(3)[normal_axis]
        cameras.append(make_camera("c", center, -center / 3, up))
    return ViewCameras(train=tuple(cameras))


@pytest.mark.parametrize("normal_axis", [0, 1, 2])
def test_a_ring_is_seen_as_a_ring(normal_axis):
    svg = camera_plan(ring(normal_axis))
    ElementTree.fromstring(svg)
    drawn = points(svg)
    radii = np.linalg.norm(drawn - drawn.mean(axis=0), axis=1)
    assert len(drawn) == 6 and radii.min() > 0.95 * radii.max() > 80


@pytest.mark.parametrize("normal_axis", [0, 1, 2])
def test_the_plan_is_seen_from_above_not_mirrored(normal_axis):
    drawn = points(camera_plan(ring(normal_axis)))
    (ax, ay), (bx, by) = drawn[0] - drawn.mean(axis=0), drawn[1] - drawn.mean(axis=0)
    counterclockwise = -(ax * by - ay * bx) > 0  # y points down on the page
    # angle grows from the first to the second remaining axis: counterclockwise seen against x and z, clockwise for y
    assert counterclockwise == (normal_axis != 1)


def test_cameras_in_a_line_or_too_few():
    line = tuple(make_camera(f"{k}", (k, 0, 0), (0, 0, 1)) for k in range(3))
    ElementTree.fromstring(camera_plan(ViewCameras(train=line)))
    assert camera_plan(ViewCameras(train=line[:1])) is None
    assert camera_plan(ViewCameras()) is None


def test_loss_curves_average_long_histories_and_skip_what_has_no_logarithm():
    history = [{"arm": "before", "step": s, "loss": 0.0 if s == 5 else 1.0 / (1 + s)} for s in range(5000)]
    svg = charts.loss_curves(history)
    ElementTree.fromstring(svg)
    (curve,) = re.findall(r'<path d="([^"]+)"[^>]*style="fill: none; stroke: var\(--before\)', svg)
    assert 10 < curve.count("L") < charts.MAX_POINTS
    assert charts.loss_curves([]) is None
    assert charts.loss_curves([{"arm": "before", "step": 0, "loss": None}]) is None


def test_scatter_escapes_names():
    views = [
        ViewResult(name="<x>", band="near", distance=d, before=BASE, control=BASE, after={"psnr": 20.0 + d}, post=None)
        for d in (0.1, 0.2)
    ]
    svg = charts.gain_scatter(views)
    ElementTree.fromstring(svg)
    assert "&lt;x&gt;" in svg and charts.gain_scatter(views[:1]) is None


def test_a_chart_follows_the_page_and_is_the_same_each_time():
    history = [{"arm": arm, "step": s, "loss": 1.0 / (1 + s)} for arm in ("before", "control") for s in range(50)]
    svg = charts.loss_curves(history)
    assert svg == charts.loss_curves(history)
    assert set(re.findall(r"var\(--([a-z0-9-]+)\)", svg)) == {"soft", "line", "before", "control"}
    assert not re.search(r"#[0-9a-f]{6}\b|font-family|<style|<metadata|http", svg)


def test_the_loss_of_control_is_drawn_on_top():
    arms = ("before", "control", "after")
    history = [{"arm": arm, "step": s, "loss": 1.0 / (1 + s)} for arm in arms for s in range(9)]
    drawn = re.findall(r'style="[^"]*stroke: var\(--(before|control|after)\)', charts.loss_curves(history))
    assert drawn == ["before", "after", "control"]


def test_gain_bars_hold_every_figure_and_name(tmp_path):
    for name, shift in (("one", 0.0), ("<two> $x$", -3.0)):
        make_run(tmp_path / name, shift=shift)
    runs = load_runs([tmp_path / "one", tmp_path / "<two> $x$"])
    drawn = [text.text for text in ElementTree.fromstring(charts.gain_bars(runs)).iter("text")]
    gains = [run.results.summary.value(band, "gain", "psnr") for run in runs for band in BANDS]
    assert {format_number(gain, 2, signed=True) for gain in gains} | {"one", "<two> $x$"} == set(drawn)
    assert min(gains) < 0 < max(gains)
