"""Find captures by folders, globs, lists, dataset roots and URLs; plan their tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from splatfix import storage
from splatfix.captures import PhotoOptions
from splatfix.pairs.recipes import Recipe, choose_recipe
from splatfix.pairs.sources import Source, find_sources
from splatfix.pairs.tasks import plan_tasks
from splatfix.sample import sample_path
from tests.pairs.folders import make_empty_capture
from tests.test_storage import put_folder


def find_names(*patterns: str | Path) -> list[str]:
    return [source.name for source in find_sources(patterns, {})]


def test_folders_globs_and_roots(tmp_path: Path) -> None:
    a, b = make_empty_capture(tmp_path / "set" / "a"), make_empty_capture(tmp_path / "set" / "b")
    (tmp_path / "set" / "notes").mkdir()
    assert find_names(a, b, a) == ["a", "b"]
    assert find_names(tmp_path / "set") == ["a", "b"]
    assert find_names(f"{tmp_path}/set/*") == ["a", "b"]
    assert find_names(a / "transforms.json") == ["a"]


def test_dl3dv_layout_names_scenes_by_their_hash(tmp_path: Path) -> None:
    for part, scene in (("1K", "0a1b"), ("1K", "2c3d"), ("2K", "4e5f")):
        make_empty_capture(tmp_path / part / scene / "nerfstudio")
    assert find_names(tmp_path) == ["0a1b", "2c3d", "4e5f"]


def test_equal_names_get_the_names_of_their_parent_folders(tmp_path: Path) -> None:
    make_empty_capture(tmp_path / "one" / "room")
    make_empty_capture(tmp_path / "two" / "room")
    assert find_names(tmp_path) == ["one-room", "two-room"]


def test_a_list_gives_names_and_groups(tmp_path: Path) -> None:
    make_empty_capture(tmp_path / "x" / "a")
    make_empty_capture(tmp_path / "x" / "b")
    (tmp_path / "list.yaml").write_text("captures:\n- x/a\n- {path: x/b, name: bee, group: insects}\n")
    found = find_sources([str(tmp_path / "list.yaml")], {"a": "letters"})
    assert [(source.name, source.group) for source in found] == [("a", "letters"), ("bee", "insects")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "wanted a list of captures"),
        ("- 3", r"captures\[0\] = 3: wanted a path"),
        ("- {path: x, label: y}", "unknown field label"),
        ("- {path: x, name: a/b}", "wanted letters, digits"),
        ("- {path: x, name: both}", "but .* is several captures"),
        ("- nowhere", "no such file or folder"),
        ("a: [", "not valid YAML"),
    ],
)
def test_invalid_lists_are_errors(tmp_path: Path, text: str, message: str) -> None:
    make_empty_capture(tmp_path / "x" / "a")
    make_empty_capture(tmp_path / "x" / "b")
    (tmp_path / "list.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        find_names(tmp_path / "list.yaml")


def test_patterns_without_captures_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no captures; name at least one folder"):
        find_names()
    with pytest.raises(ValueError, match="nowhere: no such file or folder"):
        find_names("nowhere")
    with pytest.raises(ValueError, match=r"\*: this glob matches no capture"):
        find_names(f"{tmp_path}/*")
    with pytest.raises(ValueError, match="no capture found"):
        find_names(tmp_path)


@pytest.mark.slow
def test_captures_on_an_object_store(bucket: str) -> None:
    for place in ("set/scenes/one", "set/scenes/two/nerfstudio"):
        put_folder(sample_path(), f"{bucket}/{place}")
    found = find_sources([f"{bucket}/set"], {})
    assert [source.name for source in found] == ["one", "two"]
    capture = found[1].open(32, PhotoOptions())
    assert capture.name == "two" and len(capture.views) == 36
    assert capture.views[3].load().rgb.shape[2] == 3
    with pytest.raises(ValueError, match="contains no capture"):
        find_sources([f"{bucket}/nothing"], {})
    broken = Source(f"{bucket}/bad", "bad", "bad")
    storage.write_bytes(f"{bucket}/bad/transforms.json", b"{")
    with pytest.raises(ValueError, match=r"transforms\.json: not valid JSON"):
        broken.open(32, PhotoOptions())


def test_recipes_are_mixed_by_weight_within_each_scene_too() -> None:
    recipes = {"a": Recipe(weight=3), "b": Recipe(weight=1), "never": Recipe(weight=0)}
    chosen = [[choose_recipe(recipes, f"scene{s}", i, 0) for i in range(8)] for s in range(100)]
    assert sum(row.count("a") for row in chosen) == pytest.approx(600, abs=20)
    assert all(5 <= row.count("a") <= 7 and "never" not in row for row in chosen)
    assert chosen[0] == [choose_recipe(recipes, "scene0", i, 0) for i in range(8)]


def test_a_dense_fit_is_planned_once_and_before_the_fits_that_need_it() -> None:
    recipes = {"photos": Recipe(), "renders": Recipe(clean="renders")}
    sources = [Source(f"/{name}", name, name) for name in "ab"]
    tasks = list(plan_tasks(sources, recipes, 4, 0))
    stems = [task.stem for task in tasks]
    assert len(stems) == len(set(stems)) == 10
    for k, task in enumerate(tasks):
        assert task.after is None or task.after in stems[:k]
        assert (task.after is not None) == (task.recipe == "renders")
    exact = list(plan_tasks([Source("procedural:3", "procedural_000003", "p")], recipes, 4, 0))
    assert [task.recipe for task in exact] == ["photos"] * 4
    with pytest.raises(ValueError, match=r"^procedural:3: no recipe has clean: photos"):
        list(plan_tasks([Source("procedural:3", "p", "p")], {"renders": Recipe(clean="renders")}, 1, 0))
    only_photos = list(plan_tasks(sources, {"photos": Recipe()}, 4, 0))
    assert all(task.kind == "pairs" for task in only_photos)
