"""Photos that a run reads at its end are checked before its start."""

import numpy as np
import pytest
import torch

from splatfix import LoopConfig, fit_capture
from splatfix.captures import check_photos, open_capture, reading
from splatfix.evaluation.run import EvaluateConfig, run_evaluate
from splatfix.fit import FitRunConfig, run_fit
from splatfix.images import write_image
from splatfix.pairs.make import make_pairs
from splatfix.pairs.prefetch import CapturePrefetcher
from splatfix.pairs.recipes import Recipe
from splatfix.pairs.sources import Source
from splatfix.views import ViewsConfig
from tests.captures import writers
from tests.captures.test_finding import turn_file
from tests.captures.writers import HEIGHT, NAMES, WIDTH, edit_json, write_json


@pytest.fixture
def damaged(tmp_path):
    """A capture whose last photo, a test photo, is a JPEG without its second half."""
    root = writers.write_transforms(tmp_path / "thing")
    photo = root / "images" / "d.jpg"
    write_image(photo, np.random.default_rng(0).uniform(size=(HEIGHT, WIDTH, 3)))
    photo.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
    edit_json(root / "transforms.json", lambda value: value["frames"][3].update(file_path="images/d.jpg"))
    return root


WANTED = r"images/d\.jpg: cannot be decoded .*is the file whole"
TRAINED = ViewsConfig(train_ids=NAMES[:3])


def test_a_broken_test_photo_ends_a_fit_before_it_begins(damaged, tmp_path):
    with pytest.raises(ValueError, match=WANTED):
        run_fit(damaged, tmp_path / "run", FitRunConfig(views=TRAINED, device="cpu"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=WANTED):
        fit_capture(open_capture(damaged), LoopConfig(views=TRAINED, device="cpu"))


def test_a_broken_test_photo_ends_an_evaluation_before_it_begins(damaged, tmp_path):
    splat = writers.write_splat(tmp_path / "splat") / "point_cloud.ply"
    write_json(tmp_path / "split.json", {"train_ids": NAMES[:3], "test_ids": ["d.jpg"]})
    with pytest.raises(ValueError, match=WANTED):
        run_evaluate(damaged, splat, tmp_path / "split.json", tmp_path / "run", EvaluateConfig(device="cpu"))
    assert not (tmp_path / "run").exists()


def test_a_broken_clean_photo_ends_pairs_before_their_fit(damaged, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("the fit began")

    monkeypatch.setattr("splatfix.pairs.make.start_fit", fail)
    monkeypatch.setattr("splatfix.pairs.make.choose_random_views", lambda *_: NAMES[:3])
    with pytest.raises(ValueError, match=WANTED):
        make_pairs(open_capture(damaged), 0, seed=0, recipe=Recipe(num_train=(3, 3)), device=torch.device("cpu"))


def test_masks_are_checked_too(tmp_path):
    root = writers.write_transforms(tmp_path)
    write_image(root / "m.png", np.random.default_rng(0).uniform(size=(HEIGHT, WIDTH)))
    edit_json(root / "transforms.json", lambda value: value["frames"][0].update(mask_path="m.png"))
    check_photos(open_capture(root).views)
    (root / "m.png").write_bytes((root / "m.png").read_bytes()[:-400])
    with pytest.raises(ValueError, match=r"m\.png: cannot be decoded"):
        check_photos(open_capture(root).views)


def test_commands_pass_the_orientation_on(tmp_path):
    root = writers.write_transforms(tmp_path / "thing")
    turn_file(root / "images" / "a.png", 6)
    views = ViewsConfig(train_ids=NAMES[:3], orientation="ignore")
    with pytest.raises(ValueError, match=r"a\.png: image is 32x48"):
        run_fit(root, tmp_path / "run", FitRunConfig(views=views, device="cpu"))
    splat = writers.write_splat(tmp_path / "splat") / "point_cloud.ply"
    write_json(tmp_path / "split.json", {"train_ids": NAMES[:3], "test_ids": NAMES[3:]})
    config = EvaluateConfig(orientation="ignore", device="cpu")
    with pytest.raises(ValueError, match=r"a\.png: image is 32x48"):
        run_evaluate(root, splat, tmp_path / "split.json", tmp_path / "run", config)
    source, recipe = Source(str(root), "thing", "thing"), Recipe(orientation="ignore")
    with pytest.raises(ValueError, match=r"a\.png: image is 32x48"):
        CapturePrefetcher().open(source, recipe.size_px, recipe.photo_options).wait()


@pytest.mark.parametrize(("num_kept", "num_photos"), [(9, 2), (1, 1), (0, 0)])
def test_photos_are_read_ahead_up_to_a_limit_and_checked_beyond(damaged, monkeypatch, num_kept, num_photos):
    monkeypatch.setattr(reading, "MAX_KEPT_BYTES", num_kept * WIDTH * HEIGHT * 16)
    capture = open_capture(damaged)
    ahead = reading.read_ahead(capture, NAMES[:2])
    in_memory = [isinstance(view.load, reading.PhotoInMemory) for view in ahead.views]
    assert in_memory == [k < num_photos for k in range(len(NAMES))] and ahead.names == capture.names
    for name in NAMES[:2]:
        assert (ahead.view(name).load().rgb == capture.view(name).load().rgb).all()
    with pytest.raises(ValueError, match=WANTED):
        reading.read_ahead(capture, ["d.jpg"])
