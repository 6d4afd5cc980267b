"""Pairs of one fit: reproducible, and of views that the fit was not trained on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from splatfix.captures import PhotoOptions, open_capture
from splatfix.images import to_bytes
from splatfix.pairs.ground_truth import DenseConfig, fit_densely, read_reference_splat, render_clean_views
from splatfix.pairs.make import FitPairs, make_pairs
from splatfix.pairs.recipes import Recipe
from splatfix.sample import sample_path
from splatfix.similarity import Similarity
from tests.captures import writers

SMALL = Recipe(size_px=48, num_train=(3, 4), num_fits=(1, 1), steps=20, num_random=(50, 100), max_views=3)
CPU = torch.device("cpu")


def make_fit_pairs(seed: int, recipe: Recipe = SMALL, **more) -> FitPairs:
    capture = open_capture(sample_path(), longest_side_px=48)
    return make_pairs(capture, 0, seed=seed, recipe=recipe, device=CPU, group="mug", **more)


def make_small_pairs(seed: int, recipe: Recipe = SMALL):
    return make_fit_pairs(seed, recipe).pairs


def test_pairs_are_reproducible_and_of_unseen_views():
    first, again, other = make_small_pairs(0), make_small_pairs(0), make_small_pairs(1)
    assert 0 < len(first) <= 3
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.artifact, two.artifact)
        assert one.meta == two.meta
        assert one.view not in one.meta["fit_settings"]["train_ids"]
        assert one.meta["group"] == "mug"
        assert len(one.warps) == 2
    assert first[0].meta["fit_settings"] != other[0].meta["fit_settings"]


def test_several_fits_of_the_same_photos_are_paired_alone_and_as_their_mean():
    one = make_small_pairs(0)
    several = make_small_pairs(0, replace(SMALL, num_fits=(2, 2)))
    alone, mean = several[: len(one)], several[len(one) :]
    assert [pair.fit for pair in alone] == ["f000"] * len(one)
    assert [pair.fit for pair in mean] == ["f000m"] * len(mean) and mean
    assert {pair.view for pair in mean} <= {pair.view for pair in alone}
    for pair, same in zip(one, alone, strict=True):
        np.testing.assert_array_equal(pair.artifact, same.artifact)
    assert not np.array_equal(alone[0].artifact, mean[0].artifact)
    np.testing.assert_array_equal(alone[0].clean, mean[0].clean)
    assert [pair.meta["fit_settings"]["num_fits"] for pair in several] == [1] * len(alone) + [2] * len(mean)


def test_pairs_of_photos_with_ignored_pixels_have_masks():
    given = {"seed": 0, "recipe": SMALL, "device": CPU}
    options = PhotoOptions(masks="ignore")
    capture = open_capture(sample_path(), longest_side_px=48, options=options)
    pairs = make_pairs(capture, 0, **given).pairs
    assert pairs and capture.background is None
    for pair in pairs:
        np.testing.assert_array_equal(pair.mask, to_bytes(capture.view(pair.view).load().validity))
        assert 0.2 < (pair.mask == 0).mean() < 0.9
    assert all(pair.mask is None for pair in make_small_pairs(0))


def test_a_reference_splat_is_rendered_in_its_recorded_mode(tmp_path):
    root = writers.write_splat(tmp_path)
    (root / "splat.json").write_text('{"schema": 1, "mode": "antialiased", "background": null}')
    ground_truth = read_reference_splat(open_capture(root), CPU)
    assert (ground_truth.splat.mode, ground_truth.splat.background) == ("antialiased", (1.0, 1.0, 1.0))


def test_copies_of_training_photos_are_no_clean_views():
    capture = open_capture(sample_path(), longest_side_px=48)
    views = capture.views[:8:2]
    copies = [replace(view, camera=replace(view.camera, name=f"copy_{view.name}")) for view in views]
    capture = replace(capture, views=tuple(sorted((*views, *copies), key=lambda view: view.name)))
    for pair in make_pairs(capture, 0, seed=0, recipe=replace(SMALL, num_train=(3, 3)), device=CPU).pairs:
        assert pair.view.removeprefix("copy_") not in str(pair.meta["fit_settings"]["train_ids"])


def test_pairs_say_which_world_their_cameras_are_in():
    assert "file_from_world" not in make_small_pairs(0)[0].meta
    move = Similarity(0.5, (1e6, 2e6, 0.0))
    capture = replace(open_capture(sample_path(), longest_side_px=48), file_from_world=move)
    pairs = make_pairs(capture, 0, seed=0, recipe=SMALL, device=CPU).pairs
    assert {str(pair.meta["file_from_world"]) for pair in pairs} == {str(move.to_json())}


def test_the_clean_image_is_the_photo():
    pair = make_small_pairs(0)[0]
    capture = open_capture(sample_path(), longest_side_px=48)
    np.testing.assert_allclose(pair.clean / 255, capture.view(pair.view).load().rgb, atol=1 / 255)
    assert pair.artifact.shape == pair.clean.shape


def test_a_fit_stops_after_a_share_of_its_schedule():
    settings = [make_fit_pairs(seed, replace(SMALL, completed=(0.25, 0.5))).settings for seed in range(3)]
    assert all(5 <= each["num_steps"] <= 10 and each["schedule"] == 20 for each in settings)
    assert len({each["num_steps"] for each in settings}) > 1


def test_references_are_the_nearest_training_photos():
    for pair in make_small_pairs(0):
        names = [reference["name"] for reference in pair.meta["references"]]
        assert len(names) == 2 and set(names) <= set(pair.meta["fit_settings"]["train_ids"])


def make_falling_coverage():
    """Replacement of `compute_coverage`: full for the training views, low for all views after them."""
    calls = iter(range(1000))
    return lambda _alpha: 1.0 if next(calls) < 5 else 0.1


def test_views_that_cover_too_little_are_filtered_and_counted(monkeypatch):
    unfiltered = make_fit_pairs(0, replace(SMALL, min_coverage=0.0))
    assert unfiltered.filtered == 0 and len(unfiltered.pairs) == 3
    monkeypatch.setattr("splatfix.pairs.make.compute_coverage", make_falling_coverage())
    filtered = make_fit_pairs(0)
    assert filtered.filtered > 0 and filtered.filtered + len(filtered.pairs) == 3


def test_a_cycle_is_also_paired_with_the_photos_of_the_first_fit():
    result = make_fit_pairs(0, replace(SMALL, cycle=True, max_views=36, min_coverage=0.0))
    trained = set(result.settings["train_ids"])
    of_trained = [pair for pair in result.pairs if pair.view in trained]
    assert {pair.view for pair in of_trained} == trained
    for pair in of_trained:  # a photo is never its own reference
        assert pair.view not in [reference["name"] for reference in pair.meta["references"]]
    assert result.settings["cycle"] and all(pair.meta["clean_from"] == "photo" for pair in result.pairs)


@pytest.mark.slow
def test_a_dense_fit_gives_clean_views_at_new_poses():
    capture = open_capture(sample_path(), longest_side_px=48)
    ground_truth = fit_densely(capture, DenseConfig(size_px=48, steps=60, max_gaussians=3000), seed=0, device=CPU)
    assert 5 < ground_truth.psnr < 40
    result = make_fit_pairs(0, replace(SMALL, clean="renders", max_views=5), ground_truth=ground_truth)
    assert 0 < len(result.pairs) <= 5
    for pair in result.pairs:
        assert pair.view.startswith("new_") and pair.view not in capture.names
        assert pair.meta["clean_from"] == "dense fit" and pair.meta["clean_psnr"] == ground_truth.psnr
    with pytest.raises(ValueError, match="no ground truth to render"):
        make_fit_pairs(0, replace(SMALL, clean="renders"))


def test_a_reference_splat_is_its_own_ground_truth(scenes):
    capture = open_capture(scenes / "splat_guitar", longest_side_px=48)
    ground_truth = read_reference_splat(capture, CPU)
    assert ground_truth is not None and ground_truth.psnr is None
    views = render_clean_views(capture, ground_truth, 2, 1.0, np.random.default_rng(0))
    assert len(views) == 2 and all(image.shape == (camera.height_px, camera.width_px, 3) for camera, image in views)
    assert read_reference_splat(open_capture(sample_path()), CPU) is None
