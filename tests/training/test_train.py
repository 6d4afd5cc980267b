"""Training learns, resumes exactly, validates on held-out groups, and stops when it should."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from splatfix import process, storage
from splatfix.config import build_config, to_tree
from splatfix.files import read_json, write_json
from splatfix.images import read_image
from splatfix.lease import hold_lease
from splatfix.pairs import write_shards
from splatfix.process import stop_on_signals
from splatfix.restoration import open_restorer
from splatfix.restoration.nafnet.checkpoint import load_checkpoint
from splatfix.runs import remove_run
from splatfix.telemetry import METRICS, run_label
from splatfix.training import train as training
from splatfix.training.config import TrainConfig, TrainTrackingConfig
from splatfix.training.families import FAMILIES
from splatfix.training.launch import launch
from splatfix.training.losses import LOSSES
from splatfix.training.train import train
from tests.restoration.scenery import flawed_view, pair
from tests.training.small import CONFIG, NETWORK

PARTS = METRICS["splatfix_train_seconds_total"].labels["part"]


def test_training_lowers_the_error_on_a_group_that_it_has_not_seen(shards, tmp_path, ray_metrics):
    config = replace(CONFIG, steps=40, segment_steps=20, validate_every=1)
    steps = []
    state = train(shards, tmp_path, config, on_step=lambda step, numbers: steps.append((step, numbers["loss"])))
    assert [step for step, _ in steps] == list(range(1, 41))
    first, last = (np.mean([loss for _, loss in steps[part]]) for part in (slice(0, 10), slice(30, 40)))
    assert last < first
    assert state.best > 1.0
    network, kept = load_checkpoint(tmp_path)
    assert kept.provenance["validation_groups"] == ["c"]
    assert kept.provenance["train_groups"] == ["a", "b", "d"]
    assert kept.strength == kept.provenance["validation"]["strength"]
    assert kept.provenance["validation"]["num_pairs"] == 3
    assert "PSNR" in (tmp_path / "restorer" / "README.md").read_text()
    assert json.loads((tmp_path / "history.json").read_text())[-1]["step"] == 40
    (repaired,) = open_restorer(tmp_path, "cpu").repair([flawed_view(2)], seed=0)
    assert (repaired.rgb - flawed_view(2).rgb).abs().max() > 1e-3
    assert not network.training
    assert ray_metrics.runs == {run_label(tmp_path)}
    assert ray_metrics.total("splatfix_train_steps_total") == 40
    assert ray_metrics.total("splatfix_train_crops_total") == 40 * config.data.batch_size
    assert ray_metrics.last("splatfix_train_steps_left") == 0
    assert ray_metrics.last("splatfix_train_loss") == pytest.approx(steps[-1][1])
    assert ray_metrics.last("splatfix_train_best_gain_db") == pytest.approx(state.best)
    assert ray_metrics.last("splatfix_train_gain_db") == pytest.approx(state.history[-1]["validation"]["psnr_gain"])
    parts = [ray_metrics.total("splatfix_train_seconds_total", part=part) for part in PARTS]
    assert all(seconds > 0 for seconds in parts) and sum(parts[:2]) <= state.seconds
    declared = {name for name, metric in METRICS.items() if "train" in metric.senders}
    assert declared - set(ray_metrics.sent) == {"splatfix_train_gpu_memory_bytes"}


def stop_after(segments: int):
    def on_segment(state):
        if state.segment == segments:
            raise KeyboardInterrupt

    return on_segment


def test_stopping_and_resuming_equals_never_stopping(shards, tmp_path):
    train(shards, tmp_path / "uninterrupted", CONFIG)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "interrupted", CONFIG, on_segment=stop_after(1))
    state = train(shards, tmp_path / "interrupted", CONFIG)
    assert state.step == 6
    a, b = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("uninterrupted", "interrupted"))
    for part in ("network", "ema"):
        for name, tensor in a[part].items():
            assert torch.equal(tensor, b[part][name]), f"{part} {name}"
    kept = [load_checkpoint(tmp_path / name)[0].state_dict() for name in ("uninterrupted", "interrupted")]
    assert all(torch.equal(tensor, kept[1][name]) for name, tensor in kept[0].items())
    assert [record["loss"] for record in a["progress"]["history"]] == [
        record["loss"] for record in b["progress"]["history"]
    ]


@pytest.mark.parametrize("steps_before", [1, 2, 4])
def test_a_stop_signal_ends_a_step_and_its_state_is_saved(shards, tmp_path, steps_before, monkeypatch):
    """Twice: within a segment, and in the same or the next one. The steps are those of an uninterrupted run."""
    train(shards, tmp_path / "uninterrupted", CONFIG)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # a stop replaces it
    stop_on_signals()

    def stop(step, _numbers):
        if step in (steps_before, 5):
            signal.raise_signal(signal.SIGINT)

    for step in (steps_before, 5):
        process._requested = None  # as in a new process
        with pytest.raises(KeyboardInterrupt):
            train(shards, tmp_path / "interrupted", CONFIG, on_step=stop)
        assert torch.load(tmp_path / "interrupted/state.pt", weights_only=True)["progress"]["step"] == step
    process._requested = None
    train(shards, tmp_path / "interrupted", CONFIG)
    a, b = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("uninterrupted", "interrupted"))
    for part in ("network", "ema"):
        assert all(torch.equal(tensor, b[part][name]) for name, tensor in a[part].items())
    histories = ([(r["step"], r["loss"]) for r in saved["progress"]["history"]] for saved in (a, b))
    assert next(histories) == next(histories)


def test_a_batch_in_parts_has_the_gradients_of_the_whole(shards, tmp_path):
    def norms(name: str, config: TrainConfig) -> list[float]:  # AdamW hardly sees how long a gradient is
        seen: list[float] = []
        train(shards, tmp_path / name, config, on_step=lambda _, numbers: seen.append(numbers["gradient_norm"]))
        return seen

    assert norms("whole", CONFIG) == pytest.approx(norms("parts", replace(CONFIG, accumulate=2)), rel=1e-3)


@pytest.mark.parametrize("writer", ["save", "save_preview", "save_state", "write_json"])
def test_a_kill_between_the_files_of_a_segment_loses_nothing(shards, tmp_path, monkeypatch, writer):
    uninterrupted = train(shards, tmp_path / "uninterrupted", CONFIG)
    with monkeypatch.context() as patched:

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        if writer == "save":
            patched.setitem(FAMILIES, "nafnet", replace(FAMILIES["nafnet"], save=killed))
        else:
            patched.setattr(f"splatfix.training.train.{writer}", killed)
        with pytest.raises(KeyboardInterrupt):
            train(shards, tmp_path / "interrupted", CONFIG)
    state = train(shards, tmp_path / "interrupted", CONFIG)
    assert [r["loss"] for r in state.history] == [r["loss"] for r in uninterrupted.history]
    kept = [load_checkpoint(tmp_path / name)[0].state_dict() for name in ("uninterrupted", "interrupted")]
    assert all(torch.equal(tensor, kept[1][name]) for name, tensor in kept[0].items())


def test_a_history_older_than_its_state_is_completed(shards, tmp_path):
    state = train(shards, tmp_path, CONFIG)
    history = tmp_path / "history.json"
    whole = history.read_text()
    record = {name: value for name, value in read_json(tmp_path / "run.json").items() if name != "finished"}
    for left in (json.dumps(state.history[:-1]), whole[:100], None):
        history.unlink()
        if left is not None:
            history.write_text(left)
        write_json(tmp_path / "run.json", record)
        train(shards, tmp_path, CONFIG)
        assert history.read_text() == whole


@pytest.mark.slow
def test_a_longer_limit_is_resumed(shards, tmp_path):
    limited = replace(CONFIG, steps=10**6, max_seconds=2.0, validate_every=1000)
    first = train(shards, tmp_path, limited)
    assert train(shards, tmp_path, limited).step == first.step
    assert train(shards, tmp_path, replace(limited, max_seconds=first.seconds + 2)).step > first.step
    assert train(shards, tmp_path, replace(limited, max_seconds=None, steps=first.step)).step > first.step


def test_a_training_resumes_with_shards_that_were_made_again_and_not_with_others(tmp_path):
    folder, out = tmp_path / "shards", tmp_path / "run"

    def make_shards(num_pairs: int, change: int = 0) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        pairs = [pair(i, scene) for scene in ("a", "b", "c") for i in range(num_pairs)]
        pairs = [replace(each, artifact=each.artifact ^ np.uint8(change)) for each in pairs]
        write_shards(pairs, folder, samples_per_shard=4)

    make_shards(5)
    before = {path.name for path in folder.glob("*.tar")}
    train(folder, out, replace(CONFIG, steps=3))
    make_shards(5, change=1)  # as on a GPU, whose sums differ from run to run
    assert not before & {path.name for path in folder.glob("*.tar")}
    assert train(folder, out, replace(CONFIG, steps=6)).step == 6
    make_shards(6)
    with pytest.raises(ValueError, match=r"shards .* has changed since the run began"):
        train(folder, out, replace(CONFIG, steps=9))


def test_a_folder_in_place_of_the_journal_is_refused_before_the_training(shards, tmp_path):
    (tmp_path / "out" / "tracking.jsonl").mkdir(parents=True)
    config = replace(CONFIG, tracking=TrainTrackingConfig(enabled=True))
    with pytest.raises(ValueError, match=r"holds tracking\.jsonl, which no run of this version recorded"):
        train(shards, tmp_path / "out", config)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tracking.jsonl"]


def test_a_refused_run_leaves_the_settings_as_they_were(shards, tmp_path):
    train(shards, tmp_path, replace(CONFIG, steps=3))
    before = (tmp_path / "config.yaml").read_text()
    with pytest.raises(ValueError, match="learning_rate"):
        train(shards, tmp_path, replace(CONFIG, learning_rate=0.1))
    assert (tmp_path / "config.yaml").read_text() == before


def test_gradients_that_are_not_finite_stop_before_the_weights_change(shards, tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.Accelerator.clip_grad_norm_", lambda *_: torch.tensor(float("inf")))
    with pytest.raises(FloatingPointError, match="step 1: gradient norm = inf"):
        train(shards, tmp_path, CONFIG)
    assert not (tmp_path / "state.pt").exists()


def test_a_broken_shard_is_reported_in_one_line_by_workers_too(shards, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(shards, folder)
    for shard in folder.glob("*.tar"):
        shard.write_bytes(shard.read_bytes()[:3000])
    data = replace(CONFIG.data, num_workers=1, validation_share=0.0)
    with pytest.raises(ValueError, match=r"^\S+\.tar: .*") as caught:
        train(folder, tmp_path / "run", replace(CONFIG, data=data))
    assert "Traceback" not in str(caught.value)


@pytest.mark.slow
def test_workers_read_from_an_object_store(shards, tmp_path, bucket):
    for file in Path(shards).iterdir():
        storage.write_bytes(f"{bucket}/shards/{file.name}", file.read_bytes())
    config = replace(CONFIG, steps=3, data=replace(CONFIG.data, num_workers=1))
    losses = [
        train(url, tmp_path / str(i), config).history[0]["loss"] for i, url in enumerate((shards, f"{bucket}/shards"))
    ]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_workers_make_the_batches_of_a_training(shards, tmp_path):
    with_workers = replace(CONFIG, data=replace(CONFIG.data, num_workers=2))
    losses = [
        [r["loss"] for r in train(shards, tmp_path / n, c).history] for n, c in (("a", CONFIG), ("b", with_workers))
    ]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_previews_show_each_scene_of_the_validation(shards, tmp_path):
    train(shards, tmp_path, CONFIG)
    assert sorted(path.name for path in (tmp_path / "previews").iterdir()) == ["step_000003.png", "step_000006.png"]
    picture = read_image(tmp_path / "previews" / "step_000006.png")
    height_px, width_px = 164, 5 * 213
    assert picture.shape[0] == height_px and abs(picture.shape[1] - width_px) <= 5
    assert picture[:160].std() > 0.05


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("optimizer", "magic", "one that timm knows"),
        ("precision", "float16", "wanted float32 or bfloat16 on the CPU"),
        ("accumulate", 0, "at least 1 part"),
        ("clip_norm", 0.0, "a number above 0"),
        ("strength", 1.5, "0 to 1"),
        ("device", "cuda:1", "auto, cpu or cuda"),
    ],
)
def test_settings_that_cannot_work_are_refused(shards, tmp_path, field, value, message):
    with pytest.raises(ValueError, match=rf"{field} = .*{message}"):
        train(shards, tmp_path, replace(CONFIG, **{field: value}))


@pytest.mark.slow
def test_training_on_named_scenes_alone(shards, tmp_path):
    data = replace(CONFIG.data, train_scenes=("a", "d"), validation_groups=("b",))
    train(shards, tmp_path, replace(CONFIG, steps=1, data=data))
    assert load_checkpoint(tmp_path)[1].provenance["train_scenes"] == ["a", "d"]
    with pytest.raises(ValueError, match=r"train_scenes: no shard to train on of scene 'b'; known: a, c, d"):
        train(shards, tmp_path, replace(CONFIG, data=replace(data, train_scenes=("b",))))


def test_recipes_without_a_fit_are_refused(shards, tmp_path):
    data = replace(CONFIG.data, recipe_weights={"nothing": 1.0})
    with pytest.raises(ValueError, match=r"data\.recipe_weights: no fit of recipe 'nothing'"):
        train(shards, tmp_path, replace(CONFIG, data=data))


def test_a_state_of_other_settings_or_a_broken_one_is_refused(shards, tmp_path):
    config = replace(CONFIG, steps=3)
    train(shards, tmp_path, config)
    with pytest.raises(ValueError, match=r"learning_rate was 0\.003, now it is 0\.1; use the same settings"):
        train(shards, tmp_path, replace(config, learning_rate=0.1))
    assert train(shards, tmp_path, config).step == 3  # nothing left to do
    (tmp_path / "state.pt").write_bytes(b"garbage")
    with pytest.raises(ValueError, match="start over with --fresh"):
        train(shards, tmp_path, config)
    (tmp_path / "notes.txt").write_text("mine")
    assert train(shards, tmp_path, replace(config, learning_rate=0.1), fresh=True).step == 3
    remove_run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"notes.txt", "mlflow.db", "mlartifacts"}


def test_a_finished_training_is_not_done_again_unless_it_is_made_longer(shards, tmp_path, caplog):
    config = replace(CONFIG, steps=3)
    train(shards, tmp_path, config)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    logging.getLogger("splatfix").propagate = True
    with caplog.at_level(logging.INFO, "splatfix"):
        assert train(shards, tmp_path, replace(config, device="cpu")).step == 3
    assert "this run is finished" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert train(shards, tmp_path, replace(config, steps=4)).step == 4
    assert read_json(tmp_path / "run.json")["steps"] == 4


def test_a_loss_that_is_not_finite_stops_and_names_the_step(shards, tmp_path, monkeypatch):
    losses = iter([0.1, 0.1, float("nan")])
    monkeypatch.setitem(LOSSES, "charbonnier", lambda a, *_: a.mean() * 0 + next(losses))
    with pytest.raises(FloatingPointError, match="step 3"):
        train(shards, tmp_path, CONFIG)


def test_figures_of_several_steps_may_be_fetched_at_once(shards, tmp_path, monkeypatch):
    """As on a GPU: two steps, then the last one of a segment."""

    def figures(name: str) -> list[tuple[int, float, float, float]]:
        seen: list[tuple[int, float, float, float]] = []
        names = ("loss", "gradient_norm", "learning_rate")
        train(shards, tmp_path / name, CONFIG, on_step=lambda step, n: seen.append((step, *(n[k] for k in names))))
        return seen

    expected = figures("one")
    fetch, sizes = training._fetch_figures, []

    def count_and_fetch(accelerator, pending):
        sizes.append(len(pending))
        return fetch(accelerator, pending)

    monkeypatch.setattr(training, "_fetch_figures", count_and_fetch)
    monkeypatch.setitem(training.FETCH_EVERY, "cpu", 2)
    assert figures("two") == expected
    assert sizes == [2, 1, 2, 1]
    one, two = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("one", "two"))
    for part in ("network", "ema"):
        assert all(torch.equal(tensor, two[part][name]) for name, tensor in one[part].items())


def test_a_stop_signal_saves_the_state_after_all_steps_that_were_fetched(shards, tmp_path, monkeypatch):
    train(shards, tmp_path / "uninterrupted", CONFIG)
    monkeypatch.setitem(training.FETCH_EVERY, "cpu", 2)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # a stop replaces it
    stop_on_signals()
    seen: list[int] = []

    def stop(step, _numbers):
        seen.append(step)
        if step == 1:
            signal.raise_signal(signal.SIGINT)

    process._requested = None  # as in a new process
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "interrupted", CONFIG, on_step=stop)
    assert torch.load(tmp_path / "interrupted/state.pt", weights_only=True)["progress"]["step"] == 2
    process._requested = None
    train(shards, tmp_path / "interrupted", CONFIG, on_step=stop)
    assert seen == [1, 2, 3, 4, 5, 6]
    a, b = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("uninterrupted", "interrupted"))
    assert all(torch.equal(tensor, b["network"][name]) for name, tensor in a["network"].items())


def test_a_stop_while_no_batch_comes_counts_the_steps_before(shards, tmp_path, monkeypatch):
    train(shards, tmp_path / "uninterrupted", CONFIG)
    monkeypatch.setitem(training.FETCH_EVERY, "cpu", 3)
    find_batches = training._remaining_batches

    def two_batches(*arguments):
        yield from islice(find_batches(*arguments), 2)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "_remaining_batches", two_batches)
        with pytest.raises(KeyboardInterrupt):
            train(shards, tmp_path / "interrupted", CONFIG)
    assert torch.load(tmp_path / "interrupted/state.pt", weights_only=True)["progress"]["step"] == 2
    train(shards, tmp_path / "interrupted", CONFIG)
    a, b = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("uninterrupted", "interrupted"))
    assert all(torch.equal(tensor, b["network"][name]) for name, tensor in a["network"].items())


@pytest.mark.parametrize("fault", ["loss", "gradient norm"])
def test_steps_after_one_that_was_not_finite_spoil_nothing_that_is_saved(shards, tmp_path, monkeypatch, fault):
    """Step 4 spoils the weights, which is noticed two steps later."""
    train(shards, tmp_path, replace(CONFIG, steps=3))
    saved = [tmp_path / "state.pt", *(path for path in (tmp_path / "restorer").iterdir() if path.is_file())]
    before = {path: path.read_bytes() for path in saved}
    monkeypatch.setitem(training.FETCH_EVERY, "cpu", 3)
    if fault == "loss":
        factors = iter([float("nan"), 1.0, 1.0])
        monkeypatch.setitem(LOSSES, "charbonnier", lambda a, *_: a.mean() * next(factors))
    else:
        norms = iter([float("inf"), 1.0, 1.0])
        monkeypatch.setattr("accelerate.Accelerator.clip_grad_norm_", lambda *_: torch.tensor(next(norms)))
    with pytest.raises(FloatingPointError, match=f"step 4: {fault} = (nan|inf); try a lower learning_rate"):
        train(shards, tmp_path, CONFIG)
    assert len(saved) >= 3 and {path: path.read_bytes() for path in saved} == before


def test_time_limits_shorten_the_plan(shards, tmp_path):
    state = train(shards, tmp_path, replace(CONFIG, steps=10**6, max_seconds=3.0, validate_every=1000))
    assert 3 <= state.step < 2000
    assert state.seconds < 30
    assert state.history[-1]["validation"] is not None


def test_without_a_held_out_group_nothing_is_validated(tmp_path):
    write_shards([pair(i) for i in range(4)], tmp_path / "shards")
    state = train(tmp_path / "shards", tmp_path / "run", replace(CONFIG, steps=2, strength=0.3))
    assert state.best is None
    assert load_checkpoint(tmp_path / "run")[1].strength == 0.3


@pytest.mark.parametrize(("loss", "head"), [("l1", "residual"), ("psnr", "gated")])
def test_other_losses_heads_and_precision_run(shards, tmp_path, loss, head):
    config = replace(CONFIG, steps=2, loss=loss, network=replace(NETWORK, head=head), precision="bfloat16")
    assert train(shards, tmp_path, config).step == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_training_step_on_cuda(shards, tmp_path):
    config = replace(CONFIG, steps=4, segment_steps=2, device="cuda", precision="bfloat16")
    state = train(shards, tmp_path, config)
    assert state.step == 4
    assert np.isfinite(state.history[-1]["loss"])
    assert next(iter(load_checkpoint(tmp_path, "cuda")[0].parameters())).is_cuda


def test_the_config_survives_yaml():
    assert build_config(TrainConfig, to_tree(CONFIG), source="test") == CONFIG


def test_training_starts_from_given_weights_and_records_their_data(shards, tmp_path):
    train(shards, tmp_path / "first", replace(CONFIG, data=replace(CONFIG.data, validation_groups=("a", "c"))))
    start = replace(CONFIG, start_from=str(tmp_path / "first"), data=replace(CONFIG.data, validation_groups=("c",)))
    still = replace(start, steps=1, learning_rate=1e-12, least_learning_rate=1e-12, warmup_steps=0)
    train(shards, tmp_path / "still", still)
    first, _ = load_checkpoint(tmp_path / "first")
    same, config = load_checkpoint(tmp_path / "still")
    for name, value in first.state_dict().items():
        assert torch.allclose(value, same.state_dict()[name], atol=1e-6), name
    assert config.provenance["train_groups"] == ["a", "b", "d"]
    assert config.provenance["start_from"]["step"] == 6
    with pytest.raises(ValueError, match=r"start_from = .*: its network is"):
        train(shards, tmp_path / "other", replace(start, network=replace(NETWORK, width=4)))
    with pytest.raises(ValueError, match="'d' was trained on by start_from"):
        train(shards, tmp_path / "other", replace(start, data=replace(CONFIG.data, validation_groups=("d",))))


def test_measurements_go_to_mlflow(shards, tmp_path):
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path}/tracked.db"
    tracked = replace(CONFIG, steps=12, tracking=TrainTrackingConfig(uri=uri, experiment="restorers", name="first"))
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "run", tracked, on_segment=stop_after(2))
    state = train(shards, tmp_path / "run", tracked)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("restorers")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "first")
    assert run.data.params["network.width"] == "8" and run.data.params["data.batch_size"] == "4"
    assert len(run.data.params["shards_digest"]) == 16
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert [(one.step, one.value) for one in losses] == [(r["step"], r["loss"]) for r in state.history]
    assert run.data.metrics["validation.psnr_gain"] == state.history[-1]["validation"]["psnr_gain"]
    assert [one.step for one in client.get_metric_history(run.info.run_id, "train.gradient_norm")] == [10]
    assert {one.path for one in client.list_artifacts(run.info.run_id)} >= {"previews", "restorer"}
    assert len(client.list_artifacts(run.info.run_id, "previews")) == 4


def test_a_second_training_in_a_run_folder_is_refused(shards, tmp_path):
    with (
        hold_lease(str(tmp_path / "run"), "splatfix train"),
        pytest.raises(ValueError, match=r"run: splatfix train \(process .* is at work here"),
    ):
        launch(shards, tmp_path / "run", CONFIG)
    assert not (tmp_path / "run").exists()
