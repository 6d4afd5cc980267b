"""A loop that starts from a splat which another program trained."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from splatfix.api import fit_capture
from splatfix.captures import open_capture
from splatfix.cli import main
from splatfix.evaluation.results import read_results
from splatfix.files import read_json
from splatfix.fit import FitRunConfig, run_fit
from splatfix.gaussians import Splat, read_ply, write_ply, write_splat
from splatfix.loop import LoopConfig, RepairConfig, run_loop
from splatfix.sample import sample_path
from splatfix.similarity import Similarity
from splatfix.splats.initial_points import InitializationConfig
from splatfix.splats.scene import fit_identity, load_scene, start_fit
from splatfix.splats.train import FitConfig
from splatfix.views import ViewsConfig

VIEWS = ViewsConfig(size_px=32, num_train=4, max_test=2)
CONFIG = LoopConfig(
    restorer="identity",
    video=False,
    views=VIEWS,
    initial=InitializationConfig(num_random=300, num_stereo=0),
    fit=FitConfig(steps=60),
    repair=RepairConfig(rounds=1, views=3, steps=6, siblings=1),
)


@pytest.fixture(scope="module")
def splat(tmp_path_factory) -> Path:
    """A splat of the sample, as another program writes it: without a splat.json."""
    path = tmp_path_factory.mktemp("other") / "trained.ply"
    write_ply(path, fit_capture(open_capture(sample_path(), longest_side_px=32), CONFIG).splat.gaussians)
    return path


def start_from(path: Path) -> LoopConfig:
    return replace(CONFIG, initial=replace(CONFIG.initial, start=path))


def test_all_arms_start_from_the_splat(splat, tmp_path):
    settings = {
        **{"restorer": "identity", "views.size-px": 32, "views.num-train": 4, "views.max-test": 2, "fit.steps": 60},
        **{"repair.rounds": 1, "repair.views": 3, "repair.steps": 6, "repair.siblings": 1},
    }
    flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    assert main(["loop", str(sample_path()), "--out", str(tmp_path), "--start", str(splat), "--no-video", *flags]) == 0
    given, before = read_ply(splat), read_ply(tmp_path / "before.ply")
    assert torch.equal(before.means, given.means)
    assert torch.equal(before.sh0, given.sh0)
    for arm in ("control", "after"):
        trained = read_ply(tmp_path / f"{arm}.ply")
        assert not torch.equal(trained.means, given.means)
        assert (trained.means - given.means).abs().max() < 0.2
    results = read_results(tmp_path)
    assert results.summary.value("all", "before", "psnr") > 12
    assert any("may have been trained on the test photos" in note for note in read_json(tmp_path / "run.json")["notes"])


def test_a_loop_from_another_splat_is_another_run(splat, tmp_path):
    copy = tmp_path / "copy.ply"
    copy.write_bytes(splat.read_bytes())
    run_loop(sample_path(), tmp_path / "run", start_from(copy))
    gaussians = read_ply(copy)
    write_ply(copy, gaussians[: len(gaussians) - 1])
    with pytest.raises(ValueError, match="initial"):
        run_loop(sample_path(), tmp_path / "run", start_from(copy))


def test_checkpoints_depend_on_the_content_of_the_splat(splat, tmp_path):
    scene = load_scene(
        open_capture(sample_path(), longest_side_px=32), ["frame_00001", "frame_00008"], torch.device("cpu")
    )
    copy = tmp_path / "copy.ply"
    copy.write_bytes(splat.read_bytes())
    first = fit_identity(scene, initial=start_from(copy).initial)
    gaussians = read_ply(copy)
    write_ply(copy, gaussians[: len(gaussians) - 1])
    assert fit_identity(scene, initial=start_from(copy).initial) != first


def move(gaussians, offset: float):
    return replace(gaussians, means=gaussians.means + offset)


@pytest.mark.parametrize(
    ("change", "mode", "message"),
    [
        (lambda g: move(g, 30.0), "classic", r"renders reach .* dB PSNR on the photos.*world of the capture"),
        (lambda g: g[:0], "classic", "no Gaussians"),
        (lambda g: g, "antialiased", "--fit.mode antialiased"),
    ],
)
def test_a_splat_that_cannot_be_repaired_is_refused(splat, tmp_path, change, mode, message):
    path = tmp_path / "other.ply"
    write_splat(path, Splat(change(read_ply(splat)), mode))
    capture = open_capture(sample_path(), longest_side_px=32)
    scene = load_scene(capture, capture.names[:4], torch.device("cpu"))
    with pytest.raises(ValueError, match=message):
        start_fit(scene, CONFIG.fit, start_from(path).initial, seed=0)


def test_a_missing_splat_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.ply: no such file"):
        run_loop(sample_path(), tmp_path / "run", start_from(tmp_path / "gone.ply"))


def test_a_fit_trains_nothing_from_a_splat(splat, tmp_path):
    config = FitRunConfig(views=VIEWS, initial=InitializationConfig(start=splat))
    with pytest.raises(ValueError, match="use splatfix loop"):
        run_fit(sample_path(), tmp_path / "run", config)


def test_a_splat_is_moved_to_the_world_of_its_capture(splat, tmp_path):
    capture = open_capture(sample_path(), longest_side_px=32)
    scene = load_scene(capture, capture.names[:4], torch.device("cpu"))
    far = Similarity(2.0, (430_000.0, 5_410_000.0, 180.0))
    write_splat(tmp_path / "far.ply", Splat(read_ply(splat)), file_from_world=far)
    fit = start_fit(replace(scene, file_from_world=far), CONFIG.fit, start_from(tmp_path / "far.ply").initial, seed=0)
    torch.testing.assert_close(fit.splat().gaussians.means, read_ply(splat).means)
    with pytest.raises(ValueError, match="world of the capture"):
        start_fit(scene, CONFIG.fit, start_from(tmp_path / "far.ply").initial, seed=0)
