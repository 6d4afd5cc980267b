"""A fit or a loop of photos without poses: they are posed first, and the run says what its poses know of."""

import shutil

import numpy as np
import pytest

from splatfix.cli import main
from splatfix.files import read_json
from splatfix.fit import FitRunConfig, pose_first
from splatfix.images import write_image
from splatfix.sfm import FirstPosesConfig, read_pose_record
from splatfix.views import ViewsConfig
from tests.sfm.conftest import CONFIG
from tests.test_pipeline import SMALL


@pytest.fixture(autouse=True)
def small_estimate(monkeypatch):
    monkeypatch.setattr(FirstPosesConfig, "to_pose_config", lambda _: CONFIG)


@pytest.mark.slow
def test_photos_without_poses_are_posed_into_the_run(posed, tmp_path):
    shutil.copytree(posed.capture, tmp_path / "run" / "capture", symlinks=True)
    config = FitRunConfig(views=ViewsConfig(num_train=3))
    assert pose_first(posed.photos, tmp_path / "run", config) == (tmp_path / "run" / "capture", config)
    assert pose_first(posed.capture, tmp_path / "other", config) == (posed.capture, config)
    assert not (tmp_path / "other").exists()


def test_a_run_of_another_capture_is_left_alone(posed, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    shutil.copy(posed.capture / "run.json", out / "run.json")  # another command's
    with pytest.raises(ValueError, match=r"capture was None, now it is .*my photos.*--fresh to start over"):
        pose_first(posed.photos, out, FitRunConfig())
    assert not (out / "capture").exists()


@pytest.mark.slow
@pytest.mark.parametrize("known", ["all", "chosen"])
def test_a_fit_of_photos_says_what_its_poses_know_of(posed, tmp_path, known):
    out = tmp_path / "run"
    small = [*SMALL, "--views.num-train", "3", "--views.max-test", "2", "--no-video", "--pose.from", known]
    assert main(["fit", str(posed.photos), "--out", str(out), *small]) == 0
    split, record = read_json(out / "split.json"), read_pose_record(out / "capture")
    notes, page = " ".join(read_json(out / "run.json")["notes"]), (out / "report.html").read_text()
    assert read_json(out / "results.json")["capture"] == "my photos"
    if known == "chosen":
        assert record.estimated_from == tuple(split["train_ids"])
        assert "from 3 photos, the training photos alone" in notes
        assert "the training photos alone" in page
    else:
        assert len(record.estimated_from) == 5
        assert "from 5 photos (3 training, 2 test): they know of photos that the fit has not seen" in notes
        assert "they know of photos that the fit has not seen" in page
    assert "1 of 6 photos have no camera" in notes
    assert "my photos: splatfix pose" in (out / "capture" / "pose.html").read_text(encoding="utf-8")
    before = (out / "results.json").stat().st_mtime_ns
    assert main(["fit", str(posed.photos), "--out", str(out)]) == 0
    assert (out / "results.json").stat().st_mtime_ns == before


def test_too_few_photos_are_refused_before_they_are_posed(tmp_path, monkeypatch, capsys):
    for index in range(6):
        write_image(tmp_path / "photos" / f"{index}.jpg", np.zeros((30, 40, 3), np.float32))
    monkeypatch.setattr("splatfix.fit.pose_photos", lambda *_, **__: pytest.fail("photos were posed"))
    assert main(["loop", str(tmp_path / "photos"), "--out", str(tmp_path / "run")]) == 2
    message = "photos: num_train = 6, but there are 6 photos and at least one must be held out for testing; wanted --"
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run" / "capture").exists()
