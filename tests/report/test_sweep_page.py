"""The page of a sweep: holds what the sweep found, at every stage of it, and draws each trial where it belongs."""

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from splatfix.report.sweep.axes import NOT_SET, FieldScale, field_scales
from splatfix.report.sweep.charts import best_so_far, differences, gain_against_cost, objective_over_time, slices
from splatfix.report.sweep.load import format_setting, load_sweep
from splatfix.report.sweep.page import MAX_ROWS, write_sweep_page
from splatfix.report.sweep.parallel_coordinates import parallel_coordinates
from splatfix.report.sweep.results import RerunRow
from splatfix.report.wording import format_number
from tests.report.make_sweep import SPACE, VIEWS, make_sweep
from tests.report.test_report import Page

SECTIONS = ["objective", "every-trial", "importance", "cost", "reruns", "views", "trials", "setup"]
UNKNOWN = {"importance": None, "importance_reason": "needs at least 4 finished trials that differ", "reruns": None}


def read(path) -> Page:
    source = path.read_text(encoding="utf-8")
    without_data = re.sub(r"data:[a-z0-9/+]+;base64,[A-Za-z0-9+/=]+", "data:", source)
    assert "http://" not in without_data and "https://" not in without_data and "@import" not in without_data
    page = Page(source)
    loaded = [address for tag, address in page.addresses if tag != "a"]
    assert all(address.startswith("data:") for address in loaded), loaded
    assert page.tags.count("script") == 2  # that of all pages, and that of this one
    assert len(source) < 4_000_000
    return page


def sections(path) -> list[str]:
    return re.findall(r'<section id="([^"]+)"', path.read_text(encoding="utf-8"))


def polylines(svg: str, kind: str) -> dict[int, np.ndarray]:
    """The corners ``[N, 2]`` of each trial's line."""
    tree = ElementTree.fromstring(svg)
    groups = [group for group in tree.iter("g") if group.get("class", "").split()[0] == kind]
    lines = {int(g.get("data-trial")): next(e for e in g if e.tag == "polyline").get("points") for g in groups}
    return {number: np.array([p.split(",") for p in line.split()], float) for number, line in lines.items()}


def marks(svg: str) -> dict[int, float]:
    """How high (from the top) each trial's mark lies."""
    found = re.findall(r'data-trial="(\d+)" transform="translate\([\d.]+ ([\d.]+)\)', svg)
    return {int(number): float(height) for number, height in found}


def ticks(svg: str) -> dict[str, float]:
    """Height of each tick label, by its whole text."""
    texts = [element for element in ElementTree.fromstring(svg).iter("text") if "tick" in element.get("class", "")]
    return {(t.find("title").text if t.find("title") is not None else t.text): float(t.get("y")) for t in texts}


def test_a_finished_sweep_shows_everything(tmp_path):
    record = make_sweep(tmp_path)
    path = write_sweep_page(tmp_path)
    assert path == tmp_path / "sweep.html" and sections(path) == SECTIONS
    page = read(path)
    assert "first <b>sweep</b>" in page.text and "18 of 24 trials complete, 4 stopped early, 2 failed" in page.text
    assert record["reruns"]["verdict"]["sentence"] in page.text
    assert record["reruns"]["held_out"]["sentence"] in page.text
    assert "splatfix loop CAPTURE --config best.yaml --out RUN" in page.text
    assert "From 18 trials: a hint, not a measurement" in page.text and "20 min 08 s" in page.text
    for trial in record["trials"]:
        if trial["status"] == "complete":
            assert format_number(trial["gain"], 2, signed=True) in page.text
            assert format_setting(trial["values"]["repair.weight"]) in page.text
    for row in record["reruns"]["rows"]:
        assert format_number(row["default"]["after"], 2) in page.text
        assert format_number(row["difference"], 2, signed=True) in page.text
    for dangerous in ("<script>alert(2)</script>", "loss = nan; <script>alert(3)</script>", VIEWS[1]):
        assert dangerous in page.text  # as text: read() counts the elements
    assert page.tags.count("img") == 6 * 3 + 2 * 3 * 2  # photo, control, after; pairs of the last round
    assert page.text.count("largest gain") == page.text.count("smallest gain") == 3


def test_the_settings_that_differ_are_marked(tmp_path):
    record = make_sweep(tmp_path)
    best, default = (record["trials"][k]["values"] for k in (record["best"], 0))
    source = write_sweep_page(tmp_path).read_text(encoding="utf-8")
    rows = re.findall(r'<tr( class="differs")?><th scope="row">(.*?)</th>', source)
    marked = {re.sub(r"<[^>]+>", "", name) for differs, name in rows if differs}
    assert marked == {entry["field"] for entry in SPACE if best[entry["field"]] != default[entry["field"]]}
    assert 0 < len(marked) < len(SPACE)


@pytest.mark.parametrize(
    ("kept", "shown", "sentence"),
    [
        (0, ["objective", "importance", "trials", "setup"], "No trial is complete yet."),
        (1, ["objective", "every-trial", "importance", "trials", "setup"], "Best so far: trial 0"),
        (4, ["objective", "every-trial", "importance", "cost", "trials", "setup"], "not rerun with other seeds yet."),
    ],
)
def test_a_running_sweep(tmp_path, kept, shown, sentence):
    trials = make_sweep(tmp_path / "whole")["trials"][:kept]
    best = max(trials, key=lambda trial: trial["gain"])["number"] if trials else None
    if kept > 1:
        running = {"status": "running", "gain": None, "seconds": None, "elapsed": None, "cases": {}}
        trials.append(trials[0] | running | {"number": kept, "is_default": False, "rounds": trials[0]["rounds"][:1]})
    folder = tmp_path / "part"
    make_sweep(folder, pictures=False, state="running", trials=trials, best=best, pareto=[], seconds={}, **UNKNOWN)
    path = write_sweep_page(folder)
    page = read(path)
    assert sections(path) == shown and sentence in page.text
    assert f"{kept} of 24 trials complete" in page.text and "needs at least 4 finished trials" in page.text


def test_the_time_of_a_running_sweep_is_that_of_its_trials(tmp_path):
    trials = make_sweep(tmp_path, pictures=False)["trials"][:4]
    ended = {"baselines": 95.0}  # the stage of the trials has not ended
    make_sweep(tmp_path, pictures=False, state="running", trials=trials, best=0, seconds=ended, **UNKNOWN)
    text = read(write_sweep_page(tmp_path)).text
    assert trials[-1]["elapsed"] == 227.0 and "running · 4 of 24 trials complete · 3 min 47 s" in text


def test_only_trials_that_run_or_failed(tmp_path):
    record = make_sweep(tmp_path, pictures=False)
    bare = {"gain": None, "gain_worst": None, "near": None, "mid": None, "far": None, "rounds": [], "cases": {}}
    trials = [trial | bare for trial in record["trials"][:2]]
    trials[0]["status"], trials[1] = "running", trials[1] | {"status": "failed", "error": "no photo"}
    make_sweep(tmp_path, pictures=False, state="finished", trials=trials, best=None, pareto=[], **UNKNOWN)
    page = read(write_sweep_page(tmp_path))
    assert "No trial was completed." in page.text and "no photo" in page.text and "No trial has a gain yet" in page.text


def test_any_figure_may_be_missing(tmp_path):
    figures = ("gain", "gain_worst", "near", "mid", "far", "gain_ssim", "seconds", "before", "control", "after")

    def without_figures(value):
        if isinstance(value, dict):
            return {
                name: None if name in figures and isinstance(inner, float) else without_figures(inner)
                for name, inner in value.items()
            }
        return [without_figures(inner) for inner in value] if isinstance(value, list) else value

    record = make_sweep(tmp_path)
    empty = {key: without_figures(record[key]) for key in ("trials", "cases")}
    rows = [{**without_figures(row), "difference": None} for row in record["reruns"]["rows"]]
    make_sweep(tmp_path, **empty, reruns={**record["reruns"], "rows": rows, "verdict": None, "held_out": None})
    page = read(write_sweep_page(tmp_path))
    assert "—" in page.text and "null" in page.text


def test_the_tone_follows_the_verdict(tmp_path):
    reruns = make_sweep(tmp_path, pictures=False)["reruns"]
    cases = [
        (True, (0.1, 0.3), "good"),
        (True, (-0.1, 0.3), "plain"),  # better than the default, but not surely than its own control
        (True, (-0.3, -0.1), "bad"),
        (None, (0.1, 0.3), "plain"),
        (False, (0.1, 0.3), "bad"),
    ]
    for beats, (low, high), tone in cases:
        verdict = reruns["verdict"] | {"beats": beats, "gain_low": low, "gain_high": high}
        make_sweep(tmp_path, pictures=False, reruns=reruns | {"verdict": verdict})
        assert f'class="headline {tone}"' in write_sweep_page(tmp_path).read_text(encoding="utf-8")


def test_ssim_and_the_worst_case_as_objective(tmp_path):
    record = make_sweep(tmp_path, metric="ssim", objectives=["gain_worst"])
    page = read(write_sweep_page(tmp_path))
    assert "gain of the worst case, SSIM" in page.text and "before, SSIM" in page.text
    assert format_number(record["reruns"]["verdict"]["difference"], 3, signed=True) in page.text
    assert "best trade-offs" not in page.text
    best = load_sweep(tmp_path).best
    assert best is not None and load_sweep(tmp_path).gain(best) == best.gain_worst


@pytest.mark.slow
def test_many_trials_stay_readable(tmp_path):
    record = make_sweep(tmp_path, num=1000, pictures=False)
    record["trials"][0]["gain"] = -0.3  # the default is far down the table
    (tmp_path / "sweep.json").write_text(json.dumps(record))
    path = write_sweep_page(tmp_path)
    assert f"{MAX_ROWS} of 1000 trials are shown here; trials.csv has all of them" in read(path).text
    rows = re.findall(r'<tr data-trial="(\d+)"', path.read_text(encoding="utf-8"))
    assert len(rows) == len(set(rows)) == MAX_ROWS and rows[-1] == "0" and rows[0] == str(record["best"])


def test_the_most_important_field_comes_first(tmp_path):
    make_sweep(tmp_path, pictures=False, importance={"repair.views": 0.1, "restorer": 0.6, "repair.weight": 0.3})
    source = write_sweep_page(tmp_path).read_text(encoding="utf-8").replace("<wbr/>", "")
    assert re.findall(r"<div><dt>([^<]+)</dt><dd><span class=\"meter\" style=\"width: calc", source) == [
        "restorer",
        "repair.weight",
        "repair.views",
    ]
    charts = re.findall(r"<figure class=\"panel\"><figcaption>([^<]+)<", source)
    assert charts[:3] == ["restorer", "repair.weight", "repair.views"] and len(charts) == len(SPACE)


def test_failed_trials_come_last(tmp_path):
    record = make_sweep(tmp_path, pictures=False)
    source = write_sweep_page(tmp_path).read_text(encoding="utf-8")
    order = [record["trials"][int(k)] for k in re.findall(r'<tr data-trial="(\d+)"', source)]
    statuses = [trial["status"] for trial in order]
    assert statuses == ["complete"] * 18 + ["stopped"] * 4 + ["failed"] * 2
    gains = [trial["gain"] for trial in order[:18]]
    assert gains == sorted(gains, reverse=True)


def test_pictures_of_the_trial_come_before_those_of_the_references(tmp_path):
    record = make_sweep(tmp_path)
    trial = tmp_path / "trials" / f"{record['best']:04d}"
    photos = list(tmp_path.glob("baselines/tankard-s0/images/*/photo.jpg"))
    for photo in photos:
        photo.unlink()
    assert read(write_sweep_page(tmp_path)).tags.count("img") < 30
    for photo in photos:
        own = trial / photo.relative_to(tmp_path / "baselines")
        shutil.copy(own.with_name("after.jpg"), own)
    assert read(write_sweep_page(tmp_path)).tags.count("img") == 30
    shutil.rmtree(trial)
    assert "views" not in sections(write_sweep_page(tmp_path))


def test_a_field_that_is_not_set_lies_below_its_axis(tmp_path):
    record = make_sweep(tmp_path, pictures=False)
    svg = parallel_coordinates(load_sweep(tmp_path))
    axis = [entry["field"] for entry in SPACE].index("repair.spread_scale")
    label = ticks(svg)
    lines = polylines(svg, "path")
    assert len(lines) == len(record["trials"])
    for trial in record["trials"]:
        values, height = trial["values"], lines[trial["number"]][axis, 1]
        wanted = format_setting(values["repair.spread_scale"]) if "repair.spread_scale" in values else NOT_SET
        assert height == pytest.approx(label[wanted] - 4, abs=0.11), wanted  # a label's base line lies 4 px below
    assert label[NOT_SET] > label["null"] + 20 > label["0.02"] + 20


def test_logarithmic_axes(tmp_path):
    scale = FieldScale(field="w", low=-1.0, high=1.0, log=True)
    places = [scale.at({"w": value}) for value in (0.1, 1.0, 10.0)]
    assert places == pytest.approx([0.0, 0.5, 1.0])
    assert scale.at({"w": 2.0}) == pytest.approx(0.5 + np.log10(2) / 2)
    assert [label for _, label in scale.ticks()] == ["0.1", "1", "10"]
    make_sweep(tmp_path, pictures=False)
    weight, probability = field_scales(load_sweep(tmp_path))[:2]
    assert weight.at({"repair.weight": (0.1 * 2.0) ** 0.5}) == pytest.approx(0.5)
    assert probability.at({"repair.probability": 0.5}) == pytest.approx(0.5)
    assert weight.at({}) == 0.0


def test_a_narrow_or_wide_logarithmic_range_has_ticks():
    for low, high in ((np.log10(1100), np.log10(1900)), (-8.0, 3.0), (0.0, 0.1)):
        found = FieldScale(field="w", low=low, high=high, log=True).ticks()
        assert 2 <= len(found) <= 6 and all(-1e-9 <= place <= 1 + 1e-9 for place, _ in found)


def test_choices_keep_null_true_and_one_apart():
    scale = FieldScale(field="c", choices=(None, True, 1, "x"), has_unset=True)
    places = [scale.at({"c": choice}) for choice in (None, True, 1, "x")]
    assert len(set(places)) == 4 and places == sorted(places) and places[0] > scale.at({}) == 0.0
    assert [label for _, label in scale.ticks()] == [NOT_SET, "null", "true", "1", "x"]


def test_the_best_so_far_never_falls_and_takes_complete_trials_alone(tmp_path):
    record = make_sweep(tmp_path, pictures=False)
    stopped = next(trial for trial in record["trials"] if trial["status"] == "stopped")
    stopped["rounds"][-1]["gain"] = 9.0
    (tmp_path / "sweep.json").write_text(json.dumps(record))
    sweep = load_sweep(tmp_path)
    gains = [gain for _, gain in best_so_far(sweep)]
    assert gains == sorted(gains) and gains[0] < gains[-1] == record["trials"][record["best"]]["gain"]
    (line,) = re.findall(r'd="([^"]+)"[^>]*stroke: var\(--accent\)', objective_over_time(sweep))
    corners = np.array(re.findall(r"([\d.]+) ([\d.]+)", line), float)
    assert len(corners) > len(gains)
    assert (np.diff(corners[:, 0]) >= 0).all() and (np.diff(corners[:, 1]) <= 0).all()


def test_a_larger_gain_lies_higher(tmp_path):
    record = make_sweep(tmp_path, pictures=False)
    sweep = load_sweep(tmp_path)
    for svg in (objective_over_time(sweep), gain_against_cost(sweep), slices(sweep, field_scales(sweep))[0]["chart"]):
        height = marks(svg)
        complete = sorted((t for t in record["trials"] if t["status"] == "complete"), key=lambda trial: -trial["gain"])
        heights = [height[trial["number"]] for trial in complete]
        assert heights == sorted(heights) and heights[0] < heights[-1] - 60


def test_one_wrecked_trial_does_not_flatten_the_others(tmp_path):
    record = make_sweep(tmp_path, pictures=False)
    before = marks(objective_over_time(load_sweep(tmp_path)))
    record["trials"][5]["gain"] = -40.0
    (tmp_path / "sweep.json").write_text(json.dumps(record))
    after = marks(objective_over_time(load_sweep(tmp_path)))
    others = [number for number in before if number != 5]
    assert [after[k] for k in others] == pytest.approx([before[k] for k in others], abs=0.2)
    assert after[5] > max(after[k] for k in others) - 1
    assert "1 trial gained less than the chart covers" in read(write_sweep_page(tmp_path)).text


def test_trade_offs_are_joined_where_time_is_an_objective(tmp_path):
    record = make_sweep(tmp_path, pictures=False)
    svg = gain_against_cost(load_sweep(tmp_path))
    (line,) = re.findall(r'd="([^"]+)"[^>]*stroke: var\(--accent\)', svg)
    assert line.count("L") + 1 == len(record["pareto"]) > 1 and "best</text>" in svg and "default</text>" in svg
    make_sweep(tmp_path, pictures=False, objectives=["gain"])
    assert "--accent" not in gain_against_cost(load_sweep(tmp_path))


def test_reruns_lie_on_the_side_of_the_better_one(tmp_path):
    sweep = load_sweep(tmp_path) if make_sweep(tmp_path, pictures=False) else None
    rows = [RerunRow(capture="<a>", seed=k, difference=value) for k, value in enumerate((-0.2, 0.0, 0.1))]
    svg = differences(sweep, rows)
    (zero,) = re.findall(r'd="M ([\d.]+)[^>]*stroke: var\(--soft\)', svg)
    left, middle, right = (float(x) - float(zero) for x in re.findall(r'<use [^>]*x="([\d.]+)"[^>]*ramp-5', svg))
    assert left < middle == 0 < right and left == pytest.approx(-2 * right, abs=0.3)
    assert differences(sweep, []) is None


def test_lines_and_rows_name_the_same_trial(tmp_path):
    record = make_sweep(tmp_path, pictures=False)
    source = write_sweep_page(tmp_path).read_text(encoding="utf-8")
    lines = set(re.findall(r'<g class="path [^"]*" data-trial="(\d+)"', source))
    rows = set(re.findall(r'<tr data-trial="(\d+)" tabindex="0"', source))
    assert lines == rows == {str(trial["number"]) for trial in record["trials"]}
    drawn = re.findall(r'<g class="path ([^"]*)" data-trial="(\d+)"', source)
    assert [number for kinds, number in drawn if "default" in kinds] == ["0"]
    assert [number for kinds, number in drawn if "best" in kinds] == [str(record["best"])] == [drawn[-1][1]]  # on top


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; wanted the folder of a sweep"),
        ("{", "not valid JSON"),
        ("[]", "wanted a mapping"),
        ('{"schema": 1}', "schema = 1, but this splatfix reads schema 2; resume the sweep"),
    ],
)
def test_errors_name_the_file(tmp_path, content, message):
    if content is not None:
        (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        write_sweep_page(tmp_path)
    assert str(tmp_path / "sweep.json") in str(caught.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (3, "3"),
        (2.0, "2"),
        (0.22941, "0.2294"),
        (-0.5, "-0.5"),
        (1e-5, "1e-5"),
        (123456.7, "123500"),
        ("nafnet", "nafnet"),
        ([1, None], "1, null"),
    ],
)
def test_values_are_written_as_in_a_config_file(value, text):
    assert format_setting(value) == text
