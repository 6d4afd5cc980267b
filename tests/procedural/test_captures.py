"""Procedural scenes as captures, and pairs of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splatfix.captures import is_remote, name_capture, open_capture, resolve_capture
from splatfix.config import load_config
from splatfix.pairs import read_pairs
from splatfix.pairs.config import GenerateConfig, read_settings
from splatfix.pairs.generate import generate
from splatfix.pairs.index import open_index
from splatfix.pairs.sources import find_sources
from splatfix.pairs.verify import verify
from splatfix.sfm.source import open_source
from splatfix.submission.paths import find_paths
from tests.pairs.test_generate import REAL, SMALL, read_shards


def test_a_name_opens_as_a_capture() -> None:
    capture = open_capture("procedural:3", longest_side_px=48)
    assert (capture.name, capture.format, capture.path) == ("procedural_000003", "procedural", "procedural:3")
    assert len(capture.views) >= 20 and capture.points is None and "CC0" in str(capture.license)
    photo = capture.views[4].load()
    camera = capture.views[4].camera
    assert photo.rgb.shape == (camera.height_px, camera.width_px, 3) and max(photo.rgb.shape) == 48
    assert open_capture("procedural:3", longest_side_px=48).views[4].load() is photo
    assert open_capture(Path("procedural:3"), longest_side_px=48).names == capture.names
    assert open_capture("procedural:3", longest_side_px=None).cameras[0].width_px == 1024


def test_names_are_no_paths() -> None:
    assert is_remote("procedural:3") and resolve_capture("procedural:3") == "procedural:3"
    assert name_capture("procedural:3") == "procedural_000003"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("procedural:", "wanted procedural:SEED or procedural:FIRST-LAST"),
        ("procedural:x", "wanted procedural:SEED"),
        ("procedural:-3", "wanted procedural:SEED"),
        ("procedural:1.5", "wanted procedural:SEED"),
        ("procedural:1000000", "no such scene; wanted .* from 0 to 999999"),
        ("procedural:9-3", "the first scene comes after the last"),
        ("procedural:1-2-3", "wanted procedural:SEED"),
    ],
)
def test_bad_names_are_errors(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: .*{message}|^{name}: {message}"):
        open_capture(name)
    with pytest.raises(ValueError, match=message):
        find_sources([name], {})


def test_a_range_opens_no_single_capture() -> None:
    with pytest.raises(ValueError, match="procedural:0-9: a range of scenes; wanted one here: procedural:0"):
        open_capture("procedural:0-9")


def test_a_scene_that_has_cameras_is_not_posed() -> None:
    with pytest.raises(ValueError, match=r"^procedural:3: a procedural scene has cameras already; fit it as it is$"):
        open_source("procedural:3")


def test_a_range_lists_scenes_without_opening_them(tmp_path: Path) -> None:
    found = find_sources(["procedural:0-499", "procedural:7"], {})
    assert len(found) == 500
    assert (found[123].url, found[123].name, found[123].group) == (
        *("procedural:123", "procedural_000123", "procedural_000123"),
    )
    (tmp_path / "list.yaml").write_text("- procedural:2-3\n- {path: procedural:9, name: nine, group: numbers}\n")
    listed = find_sources([str(tmp_path / "list.yaml")], {})
    assert [(source.name, source.group) for source in listed] == [
        *(("procedural_000002", "procedural_000002"), ("procedural_000003", "procedural_000003"), ("nine", "numbers")),
    ]


@pytest.mark.slow
def test_pairs_of_procedural_scenes_and_a_rerun(tmp_path: Path) -> None:
    config = replace(REAL, fits_per_capture=1, recipes={"procedural": SMALL})
    done = generate(["procedural:0-1"], str(tmp_path), config)
    assert (done.made, done.failed) == (2, 0) and done.pairs > 0
    before = read_shards(tmp_path)
    next(tmp_path.glob("procedural_000001-*.manifest.json")).unlink()
    again = generate([], str(tmp_path), config)
    assert (again.made, again.found) == (1, 1)
    assert read_shards(tmp_path) == before
    assert verify(tmp_path).problems == ()
    pairs = list(read_pairs(tmp_path))
    assert {pair.meta["group"] for pair in pairs} == {"procedural_000000", "procedural_000001"}
    assert {pair.meta["clean_from"] for pair in pairs} == {"procedural scene"}
    assert all("CC0" in pair.meta["license"] for pair in pairs)
    record = open_index(tmp_path)["procedural_000000-f000"].record
    assert "CC0" in record["license"] and record["capture"] == "procedural:0"
    assert read_settings(str(tmp_path)).captures == ("procedural:0-1",)
    capture = open_capture("procedural:0", longest_side_px=48)
    first = next(pair for pair in pairs if pair.scene == "procedural_000000")
    expected = capture.view(first.view).load().rgb
    assert np.array_equal(first.clean, np.round(255 * expected).astype(np.uint8))


def test_the_shipped_config_has_a_recipe_of_its_own() -> None:
    config = load_config(GenerateConfig, Path(__file__).parents[2] / "configs" / "generate_procedural.yaml")
    assert list(config.recipes) == ["procedural"] and config.recipes["procedural"].size_px == 192


def test_a_job_looks_for_no_files_of_procedural_scenes() -> None:
    arguments = {"settings": GenerateConfig(captures=("procedural:0-9", "/data/a")), "out": "s3://bucket/pairs"}
    assert [path.value for path in find_paths(arguments)] == ["s3://bucket/pairs", "/data/a"]
