"""What the viewer finds in run folders, splats and captures."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from splatfix.captures.capture import Photo, View
from splatfix.gaussians import write_splat
from splatfix.rendering import render
from splatfix.similarity import Similarity
from splatfix.viewer import find_live_run, open_scene
from splatfix.viewer import scene as scenes
from tests.viewer.scenes import WORLD, a_camera, a_capture, a_run, a_splat, some_gaussians


def by_group(scene):
    groups: dict[str, list] = {}
    for view in scene.views:
        groups.setdefault(view.group, []).append(view)
    return groups


def test_a_run_of_a_procedural_scene_shows_its_photos(tmp_path):
    scene = open_scene([a_run(tmp_path / "run", capture="procedural:3")])
    assert not scene.notes
    assert sum(view.role == "other" for view in scene.views) >= 20


def test_a_run_whose_capture_is_gone_shows_its_own_cameras(tmp_path):
    scene = open_scene([a_run(tmp_path / "run")])
    assert list(scene.splats) == ["before", "control", "after"]
    assert "its capture /gone is gone" in scene.notes[0]
    groups = by_group(scene)
    assert {name: len(views) for name, views in groups.items()} == {
        "training photos": 1,
        "test photos": 1,
        "repaired, round 1": 1,
        "repaired, round 2": 1,
    }
    for view, expected in [(groups["training photos"][0], 0), (groups["test photos"][0], 1)]:
        wanted = a_camera(view.name, expected)
        np.testing.assert_allclose(view.camera.camera_from_world, wanted.camera_from_world, atol=1e-9)
        np.testing.assert_allclose(view.camera.intrinsics, wanted.intrinsics)
    assert groups["training photos"][0].load() is None
    assert groups["test photos"][0].load().mean() == pytest.approx(0.3, abs=0.01)
    assert groups["repaired, round 2"][0].load().mean() == pytest.approx(0.4, abs=0.01)
    torch.testing.assert_close(scene.splats["before"].gaussians.means, some_gaussians().means, atol=1e-4, rtol=0)


def test_a_run_shows_its_capture_by_the_roles_of_its_photos(tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "open_capture", lambda *_, **__: a_capture(file_from_world=WORLD))
    scene = open_scene([a_run(tmp_path / "run", capture=str(tmp_path))])
    assert not scene.notes
    groups = by_group(scene)
    names = {name: [view.camera.name for view in views] for name, views in groups.items() if "photos" in name}
    assert names == {"training photos": ["0.jpg"], "test photos": ["1.jpg"], "other photos": ["2.jpg", "3.jpg"]}
    assert groups["training photos"][0].load().mean() == pytest.approx(0.1)


def test_splats_are_named_by_their_files(tmp_path):
    paths = [tmp_path / "a.ply", tmp_path / "b.ply", tmp_path / "other" / "b.ply"]
    for path in paths:
        write_splat(path, a_splat())
    assert list(open_scene(paths[:2]).splats) == ["a", "b"]
    assert list(open_scene(paths).splats) == ["a", str(paths[1]), str(paths[2])]
    run = a_run(tmp_path / "run", arms=("before",))
    assert list(open_scene([run, paths[0]]).splats) == ["before", "a"]
    twin = a_run(tmp_path / "twin", arms=("before",))
    assert list(open_scene([run, twin]).splats) == ["run: before", "twin: before"]


def test_a_splat_far_from_the_origin_is_moved(tmp_path):
    far = Similarity(2.0, (1e6, 0.0, 0.0))
    write_splat(tmp_path / "a.ply", a_splat(), file_from_world=far)
    scene = open_scene([tmp_path / "a.ply"])
    torch.testing.assert_close(scene.splats["a"].gaussians.means, some_gaussians().means)
    assert scene.world.describe() == far.describe()


def test_a_splat_in_another_world_than_its_photos_is_reported(tmp_path, monkeypatch):
    write_splat(tmp_path / "a.ply", a_splat())
    monkeypatch.setattr(scenes, "open_capture", lambda _: a_capture())
    notes = open_scene([tmp_path / "a.ply", "photos"]).notes
    assert "the splat does not fit the photos: its renders reach" in notes[0]
    white = (1.0, 1.0, 1.0)
    photo = render(a_splat(background=white), [a_capture().cameras[0]]).rgb[0].clamp(0, 1).numpy()
    views = (View(a_capture().cameras[0], lambda: Photo(photo)),)
    monkeypatch.setattr(scenes, "open_capture", lambda _: replace(a_capture(), views=views, background=white))
    assert not open_scene([tmp_path / "a.ply", "photos"]).notes


def test_what_cannot_be_shown_is_refused(tmp_path):
    empty_run = a_run(tmp_path / "run", arms=())
    write_splat(tmp_path / "empty.ply", a_splat(0))
    for sources, message in [
        ([], "nothing to look at; wanted the folder"),
        (["photos"], "photos: no such file or folder; wanted the folder"),
        ([tmp_path], "no splat; wanted the folder"),
        ([tmp_path / "missing.ply"], "missing.ply"),
        ([empty_run], "no before.ply, control.ply or after.ply in it yet; splatfix view --live"),
        ([empty_run, "photos", "more"], "more: neither a .ply nor a run folder, and photos is the capture already"),
        ([tmp_path / "empty.ply"], "empty.ply: the splat has no Gaussians"),
    ]:
        with pytest.raises(ValueError, match=message):
            open_scene(sources)


def test_only_folders_can_be_watched(tmp_path):
    assert find_live_run([str(tmp_path / "later")]) == tmp_path / "later"
    write_splat(tmp_path / "a.ply", a_splat())
    for sources in ([], [str(tmp_path / "a.ply")], ["s3://bucket/run"]):
        with pytest.raises(ValueError, match="wanted the folder of a fit, loop or demo first"):
            find_live_run(sources)
