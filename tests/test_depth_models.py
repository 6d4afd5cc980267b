"""Estimating depth with a model of transformers: offline, with a tiny random Depth Anything."""

from __future__ import annotations

import json
import logging
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from splatfix.depth_models import estimate_depths, hash_model
from splatfix.extras import install_line
from splatfix.fit import FitRunConfig, run_fit
from splatfix.restoration.flux import failures, loading
from splatfix.restoration.flux.options import LoadingOptions
from splatfix.sample import sample_path
from splatfix.splats.early_stopping import EarlyStoppingConfig
from splatfix.splats.initial_points import InitializationConfig
from splatfix.splats.train import FitConfig
from splatfix.views import ViewsConfig
from tests.restoration.flux.tiny import write_depth_anything
from tests.splats.scene import small_scene

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random model."""
    folder = tmp_path_factory.mktemp("models") / "depth"
    write_depth_anything(str(folder))
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def message(model: str | Path) -> str:
    with pytest.raises(ValueError, match=r"\w") as caught:
        estimate_depths(small_scene(), str(model))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_each_photo_gets_an_estimate_that_depends_on_it_alone(model: Path) -> None:
    scene = small_scene()
    assert estimate_depths(scene, None) is scene
    found = estimate_depths(scene, str(model))
    assert [tuple(each.shape) for each in found.nearness] == [(36, 48)] * 5
    assert all(each.min() == 0 and each.max() == 1 and not each.requires_grad for each in found.nearness)
    others = estimate_depths(scene.leave_out(0), str(model))
    for mine, theirs in zip(found.nearness[1:], others.nearness, strict=True):
        assert torch.equal(mine, theirs)
    assert found.nearness_from == others.nearness_from is not None


def test_the_hash_is_of_the_weights_and_of_how_images_are_prepared(model: Path, tmp_path: Path) -> None:
    load = loading.load_depth_estimator
    options, cpu = LoadingOptions(), torch.device("cpu")
    copied = tmp_path / "copied"
    shutil.copytree(model, copied)
    same = hash_model(*load(str(copied), options, cpu))
    assert same == hash_model(*load(str(model), options, cpu))
    processor, network = load(str(copied), options, cpu)
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] += 1
    assert hash_model(processor, network) != same
    loading._load_depth_estimator.cache_clear()  # that network was changed
    settings = json.loads((copied / "preprocessor_config.json").read_text())
    settings["size"] = {"height": 28, "width": 28}
    (copied / "preprocessor_config.json").write_text(json.dumps(settings))
    assert hash_model(*load(str(copied), options, cpu)) != same


def test_a_model_in_the_cache_of_the_hub_is_found_offline(model: Path, tmp_path: Path, monkeypatch) -> None:
    from huggingface_hub import constants

    commit = "a" * 40
    place = tmp_path / "models--someone--depth"
    shutil.copytree(model, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    found = estimate_depths(small_scene(), "someone/depth")
    assert found.nearness_from == estimate_depths(small_scene(), str(model)).nearness_from


def test_what_is_missing_is_named_with_its_remedy(tmp_path: Path, monkeypatch) -> None:
    from huggingface_hub import constants

    assert "no such folder; wanted one, or an id of the Hub" in message(tmp_path / "gone")
    assert "cannot be loaded" in message(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    text = message("depth-anything/Depth-Anything-V2-Small-hf")
    assert "(license Apache-2.0, about 0.0992 GB): not in the cache" in text
    assert "`hf download depth-anything/Depth-Anything-V2-Small-hf --local-dir FOLDER`" in text
    monkeypatch.setattr(failures, "find_spec", lambda _: None)
    assert message("a/model") == (
        f"the package transformers is not installed, and initial.depth_model needs it: {install_line('diffusion')}"
    )


def test_a_model_of_metric_depth_is_refused(model: Path, tmp_path: Path) -> None:
    metric = tmp_path / "metric"
    shutil.copytree(model, metric)
    config = json.loads((metric / "config.json").read_text())
    (metric / "config.json").write_text(json.dumps({**config, "depth_estimation_type": "metric", "max_depth": 20}))
    assert "estimates metric depth; wanted a model of relative (inverse) depth" in message(metric)


def settings(model: Path | None) -> FitRunConfig:
    return FitRunConfig(
        device="cpu",
        video=False,
        views=ViewsConfig(size_px=48, num_train=4),
        initial=InitializationConfig(num_random=50, depth_model=None if model is None else str(model)),
        fit=FitConfig(steps=6),
        choose=EarlyStoppingConfig(enabled=False),
    )


def test_a_run_says_what_became_of_the_estimates_and_resumes_with_the_same_weights_alone(
    model: Path, tmp_path: Path, caplog
) -> None:
    mine = tmp_path / "model"
    shutil.copytree(model, mine)
    caplog.set_level(logging.INFO)
    run_fit(sample_path(), tmp_path / "run", settings(mine))
    assert f"estimating the depth of 4 photos with {mine}" in caplog.text
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["inputs"]["depth_model"]["path"] == str(mine)
    notes = " ".join(record["notes"])
    assert f"uses depths that {mine} estimated from each photo by itself" in notes
    assert "gets no estimated depth: " in notes or "estimated depths cover another" in caplog.text
    assert len(run_fit(sample_path(), tmp_path / "run", settings(mine)).views) > 0

    write_depth_anything(str(mine))
    config = json.loads((mine / "preprocessor_config.json").read_text())
    (mine / "preprocessor_config.json").write_text(json.dumps({**config, "image_mean": [0.1, 0.2, 0.3]}))
    loading._load_depth_estimator.cache_clear()
    with pytest.raises(ValueError, match=r"depth_model .* has changed since the run began"):
        run_fit(sample_path(), tmp_path / "run", settings(mine))
    with pytest.raises(ValueError, match=r"initial\.depth_model was"):
        run_fit(sample_path(), tmp_path / "run", replace(settings(None)))
