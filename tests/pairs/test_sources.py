"""Words to captures: folders, globs, lists, dataset roots and URLs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from splatfix import storage
from splatfix.pairs.recipes import Recipe, recipe_of
from splatfix.pairs.sources import Source, find_sources, make_download_folder
from splatfix.pairs.tasks import plan_tasks
from splatfix.sample import sample_path


def mark(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "transforms.json").write_text("{}")
    return folder


def names(*words: str | Path, groups: dict[str, str] | None = None) -> list[str]:
    return [source.name for source in find_sources(words, groups or {})]


def test_folders_globs_and_roots(tmp_path: Path) -> None:
    a, b = mark(tmp_path / "set" / "a"), mark(tmp_path / "set" / "b")
    (tmp_path / "set" / "notes").mkdir()
    assert names(a, b, a) == ["a", "b"]
    assert names(tmp_path / "set") == ["a", "b"]
    assert names(f"{tmp_path}/set/*") == ["a", "b"]
    assert names(a / "transforms.json") == ["a"]


def test_dl3dv_layout_names_scenes_by_their_hash(tmp_path: Path) -> None:
    for part, scene in (("1K", "0a1b"), ("1K", "2c3d"), ("2K", "4e5f")):
        mark(tmp_path / part / scene / "nerfstudio")
    assert names(tmp_path) == ["0a1b", "2c3d", "4e5f"]


def test_equal_names_take_their_parents_in(tmp_path: Path) -> None:
    mark(tmp_path / "one" / "room")
    mark(tmp_path / "two" / "room")
    assert names(tmp_path) == ["one-room", "two-room"]


def test_a_list_gives_names_and_groups(tmp_path: Path) -> None:
    mark(tmp_path / "x" / "a")
    mark(tmp_path / "x" / "b")
    (tmp_path / "list.yaml").write_text("captures:\n- x/a\n- {path: x/b, name: bee, group: insects}\n")
    found = find_sources([str(tmp_path / "list.yaml")], {"a": "letters"})
    assert [(source.name, source.group) for source in found] == [("a", "letters"), ("bee", "insects")]


@pytest.mark.parametrize(
    ("text", "words"),
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
def test_errors_of_lists(tmp_path: Path, text: str, words: str) -> None:
    mark(tmp_path / "x" / "a")
    mark(tmp_path / "x" / "b")
    (tmp_path / "list.yaml").write_text(text)
    with pytest.raises(ValueError, match=words):
        names(tmp_path / "list.yaml")


def test_errors_name_the_word(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no captures; name at least one folder"):
        names()
    with pytest.raises(ValueError, match="nowhere: no such file or folder"):
        names("nowhere")
    with pytest.raises(ValueError, match=r"\*: no capture fits this glob"):
        names(f"{tmp_path}/*")
    with pytest.raises(ValueError, match="no capture found"):
        names(tmp_path)


def test_captures_on_an_object_store(bucket: str, tmp_path: Path) -> None:
    for place in ("set/scenes/one", "set/scenes/two/nerfstudio"):
        for file in sample_path().rglob("*"):
            if file.is_file():
                name = file.relative_to(sample_path()).as_posix()
                storage.write_bytes(f"{bucket}/{place}/{name}", file.read_bytes())
    found = find_sources([f"{bucket}/set"], {})
    assert [source.name for source in found] == ["one", "two"]
    room = make_download_folder()
    capture = found[1].open(32, room)
    assert capture.name == "two" and len(capture.views) == 36
    assert capture.views[3].load().rgb.shape[2] == 3
    shutil.rmtree(room)
    with pytest.raises(ValueError, match="no capture there"):
        find_sources([f"{bucket}/nothing"], {})
    hostile = Source(f"{bucket}/bad", "bad", "bad")
    storage.write_bytes(f"{bucket}/bad/transforms.json", b"{")
    with pytest.raises(ValueError, match=r"transforms\.json: invalid JSON"):
        hostile.open(32, tmp_path)


def test_recipes_are_mixed_by_weight_also_within_a_scene() -> None:
    recipes = {"a": Recipe(weight=3), "b": Recipe(weight=1), "never": Recipe(weight=0)}
    chosen = [[recipe_of(recipes, f"scene{s}", i, 0) for i in range(8)] for s in range(100)]
    assert sum(row.count("a") for row in chosen) == pytest.approx(600, abs=20)
    assert all(5 <= row.count("a") <= 7 and "never" not in row for row in chosen)
    assert chosen[0] == [recipe_of(recipes, "scene0", i, 0) for i in range(8)]


def test_a_dense_fit_comes_once_and_before_the_fits_that_draw_it() -> None:
    recipes = {"photos": Recipe(), "renders": Recipe(clean="renders")}
    sources = [Source(f"/{name}", name, name) for name in "ab"]
    tasks = list(plan_tasks(sources, recipes, 4, 0))
    stems = [task.stem for task in tasks]
    assert len(stems) == len(set(stems)) == 10
    for k, task in enumerate(tasks):
        assert task.after is None or task.after in stems[:k]
        assert (task.after is not None) == (task.recipe == "renders")
    only_photos = list(plan_tasks(sources, {"photos": Recipe()}, 4, 0))
    assert all(task.kind == "pairs" for task in only_photos)
