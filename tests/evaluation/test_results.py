"""``results.json`` and ``views.json``: the same bytes after reading and writing, and one line on what is not read."""

import json

import pytest

from splatfix.evaluation.measure import summarize
from splatfix.evaluation.results import Elongation, Results, ViewResult, read_results, write_results
from splatfix.evaluation.view_cameras import ViewCameras, read_view_cameras, write_view_cameras
from tests.report.make_run import make_camera

AFTER = ("views", 0, "after")


def some_results() -> Results:
    metrics = {"psnr": 20.1 + 0.2, "ssim": 1 / 3, "lpips": None}
    arms = {"before": metrics, "control": metrics, "after": {**metrics, "psnr": 23.0}, "post": None}
    views = (ViewResult(name="猫.jpg", band="near", distance=0.1 + 0.2, **arms),)
    return Results(
        capture="mug",
        restorer=None,
        seed=3,
        size_px=64,
        views=views,
        summary=summarize(views),
        elongation={"before": Elongation(median=4.25, p95=None)},
        seconds={"fit": 1.25},
        num_gaussians={"before": 7},
        reasons={"lpips": "no weights"},
    )


def test_results_keep_their_bytes(tmp_path):
    results = some_results()
    write_results(tmp_path, results)
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    assert read_results(tmp_path) == results
    write_results(tmp_path, read_results(tmp_path))
    assert (tmp_path / "results.json").read_text(encoding="utf-8") == text
    tree = json.loads(text)
    assert list(tree)[:3] == ["schema", "capture", "restorer"] and tree["schema"] == 1
    assert list(tree["views"][0]) == ["name", "band", "distance", "before", "control", "after", "post"]
    assert list(tree["summary"]) == ["all", "near", "mid", "far"] and tree["summary"]["mid"] is None
    assert list(tree["summary"]["all"]) == ["before", "control", "after", "post", "gain"]


def without(tree: dict, *path: str | int) -> dict:
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return tree


def changed(tree: dict, value: object, *path: str | int) -> dict:
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return tree


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tree: [tree], "wanted a mapping at the top, saw list"),
        (lambda tree: changed(tree, 2, "schema"), "schema = 2, but this splatfix reads schema 1"),
        (lambda tree: without(tree, "schema"), "schema = None, but this splatfix reads schema 1"),
        (lambda tree: without(tree, "size_px"), "size_px is missing"),
        (lambda tree: without(tree, *AFTER), "views.0.after is missing"),
        (lambda tree: changed(tree, "64", "size_px"), "size_px = '64': wanted a valid integer"),
        (lambda tree: changed(tree, "x", *AFTER, "psnr"), "views.0.after.psnr = 'x': wanted a valid number"),
        (lambda tree: changed(tree, "by", "views", 0, "band"), "views.0.band = 'by': wanted 'near', 'mid' or 'far'"),
        (lambda tree: changed(tree, 3, "summary", "all"), "summary.all = 3: wanted an object"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(edit, message, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(edit(some_results().to_json())))
    with pytest.raises(ValueError, match="run the command again") as caught:
        read_results(tmp_path)
    assert str(caught.value).startswith(f"{path}: {message}") and "\n" not in str(caught.value)


def test_a_later_field_is_ignored():
    assert Results.from_json({**some_results().to_json(), "drift": 0.5}) == some_results()


def test_a_folder_without_results(tmp_path):
    with pytest.raises(ValueError, match=r"no results\.json; wanted the folder of a finished fit, loop or"):
        read_results(tmp_path)


def test_view_cameras_keep_their_bytes_and_have_an_old_name(tmp_path):
    cameras = ViewCameras(
        train=(make_camera("a", (1, 0, 0), (-1, 0, 0)),),
        test=(make_camera("b", (0, 0, 1), (0, 0, -1), band="far", distance=0.1 + 0.2),),
        repair=(make_camera("c", (0, 0, 1), (0, 0, -1), round=2),),
    )
    write_view_cameras(tmp_path, cameras)
    tree = json.loads((tmp_path / "views.json").read_text())
    keys = ["name", "centre", "axis", "up", "focal_px", "width_px", "height_px"]
    assert [list(tree[role][0]) for role in tree] == [keys, [*keys, "band", "distance"], [*keys, "round"]]
    assert read_view_cameras(tmp_path) == cameras
    (tmp_path / "views.json").rename(tmp_path / "cameras.json")
    assert read_view_cameras(tmp_path) == cameras
    (tmp_path / "cameras.json").unlink()
    assert read_view_cameras(tmp_path) == ViewCameras()
