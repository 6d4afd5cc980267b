"""Names of pictures in a run folder."""

import pytest

from splatfix.evaluation import layout

NAMES = [
    *("0001.jpg", "0001.png", "a/b.jpg", "a_b.jpg", "A/B.jpg", "../../etc/passwd", "..", "", 'a b<c>&".png'),
    *("é.jpg", "猫.png", "x" * 300 + ".jpg", "con.jpg", "-rf"),
]


def test_stems_are_safe_and_unique():
    stems = [layout.view_stem(name) for name in NAMES]
    assert len({stem.lower() for stem in stems}) == len(NAMES)
    for stem in stems:
        assert stem and len(stem) < 60 and stem.replace("-", "").replace("_", "").isalnum() and stem.isascii()
        assert not stem.startswith("-")
    assert layout.view_stem("images/0001.jpg").startswith("images_0001-")


@pytest.mark.parametrize("name", NAMES)
def test_pictures_stay_inside_the_run_folder(name, tmp_path):
    for path in (
        layout.image_path(tmp_path, name, "photo"),
        layout.error_path(tmp_path, name, "after"),
        layout.repair_path(tmp_path, 1, name, "render"),
    ):
        assert path.resolve().is_relative_to(tmp_path.resolve())


def test_repair_pairs_need_both_images(tmp_path):
    for name, kinds in (("b", ("render", "repaired")), ("a", ("render", "repaired")), ("c", ("render",))):
        for kind in kinds:
            path = layout.repair_path(tmp_path, 2, name, kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    assert layout.repair_rounds(tmp_path) == [2]
    pairs = layout.repair_pairs(tmp_path, 2)
    assert [render.name[0] for render, _ in pairs] == ["a", "b"]
    assert layout.repair_rounds(tmp_path / "none") == []
