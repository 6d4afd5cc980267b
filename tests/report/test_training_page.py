"""The page of a training: holds what the training wrote, at every stage of it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from splatfix import storage
from splatfix.cli import main
from splatfix.config import to_yaml
from splatfix.files import read_json, write_json
from splatfix.lease import hold_lease
from splatfix.report.training import load_training, write_training_page
from splatfix.report.wording import format_number
from splatfix.tracking.journal import JOURNAL, Journal
from splatfix.training.launch import launch
from tests.report.make_training import SCENES, make_shards, make_training, reset_accelerator
from tests.report.test_report import Page, read
from tests.training.small import CONFIG


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a finished training."""
    folder = tmp_path_factory.mktemp("training")
    make_training(folder)
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    return Path(shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("report.html")))


@pytest.fixture(autouse=True)
def own_accelerator() -> Iterator[None]:
    """Each training of a test sets up its own accelerator."""
    yield
    reset_accelerator()


def page_of(run: Path) -> Page:
    place = write_training_page(run)
    assert place == str(run / "report.html")
    return read(Path(place))


def stop(_: object) -> None:
    raise KeyboardInterrupt


def test_a_finished_training_shows_its_gains_losses_and_how_to_use_it(finished):
    page = page_of(finished)
    history = read_json(finished / "history.json")
    best = max(history, key=lambda record: record["validation"]["psnr_gain"])
    validation = best["validation"]
    gain = format_number(validation["psnr_gain"], 2, signed=True)
    assert f"{gain} dB PSNR gain on held-out scenes" in page.text
    assert f"weights of step {best['step']} of 12" in page.text and f"kept, step {best['step']}" in page.text
    best_gains = validation["by_strength"][str(validation["strength"])]
    good, bad = (format_number(best_gains[f"psnr_gain_{part}"], 2, signed=True) for part in ("good", "bad"))
    assert f"Pixels that the render had right change by {good} dB, the others by {bad} dB." in page.text
    by_scene = best_gains["by_scene"]
    assert set(by_scene) == {"<castle>", "moat", "mug"}
    for scene, gains in by_scene.items():
        assert scene in page.text and format_number(gains["psnr_gain"], 2, signed=True) in page.text
    mean = (by_scene["<castle>"]["psnr_gain"] + by_scene["moat"]["psnr_gain"]) / 2
    assert re.search(rf"castle {re.escape(format_number(mean, 2, signed=True))}", page.text)
    for record in history:
        assert format_number(record["loss"], 5) in page.text
    assert f"splatfix loop CAPTURE --restorer {finished} --out RUN" in page.text
    assert f"splatfix compare CAPTURE --restorers nafnet,{finished} --out COMPARISON" in page.text
    size = (finished / "restorer/restorer.safetensors").stat().st_size
    assert f"{size / 1e6:.1f} MB" in page.text
    assert (
        "fountain, tankard" in page.text and "castle, mug" in page.text and str(finished.parent / "shards") in page.text
    )
    assert "learning_rate 0.003" in page.text and "batch_size: 4" in page.text
    assert page.tags.count("img") == len(list((finished / "previews").iterdir())) == 4
    assert "Resume the training" not in page.text


def test_the_losses_of_steps_and_mlflow_are_those_of_the_tracking(run):
    assert "every tenth step" not in page_of(run).text
    journal = Journal(run / JOURNAL)
    for step, loss in ((10, 0.5), (20, 0.25), (10, 0.4)):
        journal.append({"kind": "metrics", "time": 1, "values": {"train.loss": loss, "other": 1.0}, "step": step})
    journal.close()
    state = {"key": "k", "experiment": "e", "name": "n", "parent": None, "uri": "http://mlflow:5000", "run": "r7"}
    write_json(run / "tracking.json", {**state, "experiment_id": "3"})
    source = Path(str(write_training_page(run))).read_text(encoding="utf-8")
    assert "every tenth step" in source and "http://mlflow:5000/#/experiments/3/runs/r7" in source
    assert f"splatfix sync {run}" in source


def test_an_interrupted_training_says_how_far_it_is_and_how_to_resume_it(tmp_path):
    make_training(tmp_path, on_segment=lambda state: state.segment == 2 and stop(state))
    page = page_of(tmp_path / "run")
    assert "Not finished: 6 of 12 steps are saved, and no process is at work" in page.text
    assert f"splatfix train --shards {tmp_path / 'shards'} --out {tmp_path / 'run'}" in page.text
    assert f"--restorer {tmp_path / 'run'} --out" in page.text  # the best weights so far
    with hold_lease(str(tmp_path / "run"), "splatfix train"):
        text = page_of(tmp_path / "run").text
    assert "Running: 6 of 12 steps were done when this page was written. splatfix train (process" in text
    assert "Resume the training" not in text


def test_a_training_without_any_segment_has_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr("splatfix.training.train._finish_segment", lambda *_: stop(None))
    monkeypatch.setattr("splatfix.training.train._save_unfinished", lambda *_: None)
    make_training(tmp_path)
    text = page_of(tmp_path / "run").text
    assert "0 of 12 steps are saved" in text and "losses are written every 3 steps" in text
    assert "No weights are kept yet" in text and "--restorer" not in text


def test_a_training_without_held_out_groups_claims_no_gain(tmp_path):
    data = replace(CONFIG.data, validation_share=0.0)
    make_training(tmp_path, data=data, steps=3)
    page = page_of(tmp_path / "run")
    assert "No group was held out, so its gain is not known" in page.text
    assert "img" not in page.tags and "Held-out groups" not in page.text


@pytest.mark.parametrize(
    ("gain", "words", "css"),
    [
        (0.31, "PSNR rises by 0.31 dB", "headline good"),
        (0.01, "changes next to nothing", "headline plain"),
        (-0.4, "worse: train longer, or on more captures", "headline bad"),
    ],
)
def test_the_verdict_is_that_of_the_kept_weights(run, gain, words, css):
    config = read_json(run / "restorer/config.json")
    config["provenance"]["validation"]["psnr_gain"] = gain
    write_json(run / "restorer/config.json", config)
    source = Path(str(write_training_page(run))).read_text(encoding="utf-8")
    assert words in source and css in source


def test_what_deserves_attention_is_noted(run):
    history = read_json(run / "history.json")
    history[1]["loss"] = None
    for record in history:
        record["data_wait"] = 0.6
    write_json(run / "history.json", history)
    text = page_of(run).text
    assert "60 % of the time of the steps went into waiting for data: raise data.num_workers" in text
    assert "The loss is not finite in the segment that ends at step 6" in text


def test_a_broken_history_is_an_error_of_the_file(run):
    (run / "history.json").write_text('[{"step": "three"}]')
    with pytest.raises(ValueError, match=r"history\.json: segments\.0\.step = 'three': wanted"):
        write_training_page(run)


def test_a_folder_of_another_command_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no run of splatfix train"):
        load_training(tmp_path, str(tmp_path))


def test_only_the_first_process_writes(run, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert write_training_page(run) is None and not (run / "report.html").exists()


def test_train_ends_with_the_page_and_report_writes_it_again(tmp_path, capsys):
    shards, out = make_shards(tmp_path / "shards"), tmp_path / "run"
    config = replace(CONFIG, steps=3, data=replace(CONFIG.data, groups=dict(SCENES)))
    (tmp_path / "train.yaml").write_text(to_yaml(config))
    command = ["train", "--shards", str(shards), "--out", str(out), "--config", str(tmp_path / "train.yaml")]
    assert main(command) == 0
    assert f"report: {out / 'report.html'}" in capsys.readouterr().out
    (out / "report.html").unlink()
    assert main(["report", str(out), "--out", str(tmp_path / "elsewhere.html")]) == 0
    assert f"report: {tmp_path / 'elsewhere.html'}" in capsys.readouterr().out
    assert "splatfix train" in read(tmp_path / "elsewhere.html").text
    assert main([*command, "--fresh"]) == 0


def test_the_page_of_a_training_on_an_object_store_is_put_there(tmp_path, bucket):
    config = replace(CONFIG, steps=3, data=replace(CONFIG.data, groups=dict(SCENES)))
    launch(make_shards(tmp_path / "shards"), f"{bucket}/run", config)
    assert write_training_page(f"{bucket}/run") == f"{bucket}/run/report.html"
    page = storage.read_bytes(f"{bucket}/run/report.html").decode()
    assert f"splatfix loop CAPTURE --restorer {bucket}/run --out RUN" in page
