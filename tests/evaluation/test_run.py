"""The measurement of a splat that is given with a capture."""

import json
from dataclasses import replace

import torch

from splatfix.captures import open_capture
from splatfix.evaluation.run import EvaluateConfig, run_evaluate
from splatfix.files import read_json
from splatfix.gaussians import read_ply, write_ply, write_splat
from splatfix.sample import sample_path
from splatfix.splats.initial_points import InitializationConfig
from splatfix.splats.scene import load_scene, start_fit
from splatfix.splats.train import FitConfig, advance
from tests.captures.writers import write_splat as write_capture_of_a_splat


def test_a_splat_in_another_world_is_warned_of(tmp_path, caplog):
    capture = open_capture(sample_path(), longest_side_px=32)
    split = {"train_ids": capture.names[::6], "test_ids": capture.names[1:4], "size_px": 32}
    (tmp_path / "split.json").write_text(json.dumps(split))
    scene = load_scene(capture, split["train_ids"], torch.device("cpu"))
    fit = start_fit(scene, FitConfig(), InitializationConfig(sources=("random",)), seed=0)
    advance(fit, scene.views(), 20, seed=0)

    def measure(name, offset):
        gaussians = fit.splat().gaussians
        splat = replace(fit.splat(), gaussians=replace(gaussians, means=gaussians.means + offset))
        write_splat(tmp_path / f"{name}.ply", splat)
        config = EvaluateConfig(video=False)
        run_evaluate(sample_path(), tmp_path / f"{name}.ply", tmp_path / "split.json", tmp_path / name, config)
        return [note for note in read_json(tmp_path / name / "run.json")["notes"] if "world of the capture" in note]

    assert measure("right", 0.0) == []
    assert "world of the capture" not in caplog.text
    [note] = measure("moved", 30.0)
    assert note.startswith("moved.ply: its renders reach")
    assert "moved.ply: its renders reach" in caplog.text


def test_a_run_on_renders_of_a_splat_is_recorded_as_such(tmp_path):
    root = write_capture_of_a_splat(tmp_path / "splat")
    (tmp_path / "split.json").write_text(json.dumps({"train_ids": ["a.png", "b.png"], "test_ids": ["c.png"]}))
    splat = tmp_path / "other.ply"
    gaussians = read_ply(root / "point_cloud.ply")
    gaussians.means[3] = float("nan")
    write_ply(splat, gaussians)
    run_evaluate(root, splat, tmp_path / "split.json", tmp_path / "run", EvaluateConfig(video=False))
    record = read_json(tmp_path / "run" / "run.json")
    assert record["rendered_from"] == "point_cloud.ply"
    assert any("the photos are renders of point_cloud.ply" in note for note in record["notes"])
    assert "other.ply: 1 of 12 vertices are zeros or not finite (the first: 3): left out" in record["notes"]
