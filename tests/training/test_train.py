"""Training learns, resumes exactly, validates on held-out groups, and stops when it should."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from splatfix import storage
from splatfix.config import build_config, to_tree
from splatfix.images import read_image
from splatfix.pairs import write_shards
from splatfix.pairs.shards import Shard
from splatfix.restoration import open_restorer
from splatfix.restoration.nafnet.checkpoint import load_checkpoint
from splatfix.restoration.nafnet.network import NetworkConfig, network_inputs, warps_in
from splatfix.tracking import TrackingConfig
from splatfix.training.batches import (
    Batch,
    Crop,
    JitterConfig,
    jitter_colors,
    make_batch,
    random_color_change,
    random_crop,
)
from splatfix.training.config import TrainConfig
from splatfix.training.data import DataConfig, open_data, split_by_group, validation_pairs
from splatfix.training.families import FAMILIES
from splatfix.training.losses import LOSSES, edge_loss
from splatfix.training.nafnet import NafnetInputs
from splatfix.training.train import train
from splatfix.training.validation import Row, summarize_gains
from tests.restoration.scenery import flawed_view, pair, random_mask

NETWORK = NetworkConfig(width=8, enc_blocks=(1, 1), mid_blocks=1, dec_blocks=(1, 1))
INPUTS = NafnetInputs(NETWORK)
UNCHANGED = np.array([1, 1, 1, 1, 1, 0, 1, 2], np.float32)
CONFIG = TrainConfig(
    network=NETWORK,
    data=DataConfig(batch_size=4, patch_px=24, shuffle_buffer=8, samples_per_visit=4, validation_pairs=3),
    steps=6,
    segment_steps=3,
    validate_every=1,
    learning_rate=3e-3,
    warmup_steps=2,
    ema_decay=0.9,
    device="cpu",
    tracking=TrackingConfig(enabled=False),
)


def test_training_lowers_the_error_on_a_group_that_it_has_not_seen(shards, tmp_path):
    config = replace(CONFIG, steps=40, segment_steps=20, validate_every=1)
    steps = []
    done = train(shards, tmp_path, config, on_step=lambda step, numbers: steps.append((step, numbers["loss"])))
    assert [step for step, _ in steps] == list(range(1, 41))
    first, last = (np.mean([loss for _, loss in steps[part]]) for part in (slice(0, 10), slice(30, 40)))
    assert last < first
    assert done.best > 1.0
    network, kept = load_checkpoint(tmp_path)
    assert kept.provenance["validation_groups"] == ["c"]
    assert kept.provenance["train_groups"] == ["a", "b", "d"]
    assert kept.strength == kept.provenance["validation"]["strength"]
    assert kept.provenance["validation"]["num_pairs"] == 3
    assert "PSNR" in (tmp_path / "restorer" / "README.md").read_text()
    assert json.loads((tmp_path / "history.json").read_text())[-1]["step"] == 40
    (made,) = open_restorer(tmp_path, "cpu").repair([flawed_view(2)], seed=0)
    assert (made.rgb - flawed_view(2).rgb).abs().max() > 1e-3
    assert not network.training


def stop_after(segments: int):
    def on_segment(state):
        if state.segment == segments:
            raise KeyboardInterrupt

    return on_segment


def test_stopping_and_going_on_equals_never_stopping(shards, tmp_path):
    train(shards, tmp_path / "unbroken", CONFIG)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "broken", CONFIG, on_segment=stop_after(1))
    done = train(shards, tmp_path / "broken", CONFIG)
    assert done.step == 6
    a, b = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("unbroken", "broken"))
    for part in ("network", "ema"):
        for name, tensor in a[part].items():
            assert torch.equal(tensor, b[part][name]), f"{part} {name}"
    kept = [load_checkpoint(tmp_path / name)[0].state_dict() for name in ("unbroken", "broken")]
    assert all(torch.equal(tensor, kept[1][name]) for name, tensor in kept[0].items())
    assert [record["loss"] for record in a["progress"]["history"]] == [
        record["loss"] for record in b["progress"]["history"]
    ]


@pytest.mark.parametrize("num_workers", [1, 2, 9])
def test_batches_are_the_same_whoever_makes_them(shards, num_workers):
    alone = open_data(shards, CONFIG.data, INPUTS, 0)
    with_workers = replace(alone, config=replace(CONFIG.data, num_workers=num_workers))

    def batches(data, segment: int, num: int, **more) -> list[Batch]:
        made = data.batches(segment, segment_steps=3, jitter=JitterConfig(), **more)
        return list(islice(made, num))

    expected = batches(alone, 0, 8)
    assert not torch.equal(expected[0].inputs, expected[3].inputs)
    for a, b in zip(expected, batches(with_workers, 0, 8), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    for a, b in zip(expected[3:], batches(alone, 1, 5), strict=True):  # from the next segment on
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    shares = [batches(with_workers, 0, 8, rank=rank, num_processes=2) for rank in (0, 1)]
    for a, first, second in zip(expected, *shares, strict=True):
        assert torch.equal(a.inputs[0::2], first.inputs) and torch.equal(a.inputs[1::2], second.inputs)
        assert torch.equal(a.colors[1::2], second.colors)
    with pytest.raises(ValueError, match=r"batch_size = 4: wanted a multiple of 3, the number of processes"):
        batches(alone, 0, 1, num_processes=3)


def test_a_batch_in_parts_has_the_gradients_of_the_whole(shards, tmp_path):
    def norms(name: str, config: TrainConfig) -> list[float]:  # AdamW hardly sees how long a gradient is
        seen: list[float] = []
        train(shards, tmp_path / name, config, on_step=lambda _, numbers: seen.append(numbers["gradient_norm"]))
        return seen

    assert norms("whole", CONFIG) == pytest.approx(norms("parts", replace(CONFIG, accumulate=2)), rel=1e-3)


@pytest.mark.parametrize("writer", ["save", "save_preview", "save_state", "write_json"])
def test_a_kill_between_the_files_of_a_segment_loses_nothing(shards, tmp_path, monkeypatch, writer):
    unbroken = train(shards, tmp_path / "unbroken", CONFIG)
    with monkeypatch.context() as patched:

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        if writer == "save":
            patched.setitem(FAMILIES, "nafnet", replace(FAMILIES["nafnet"], save=killed))
        else:
            patched.setattr(f"splatfix.training.train.{writer}", killed)
        with pytest.raises(KeyboardInterrupt):
            train(shards, tmp_path / "broken", CONFIG)
    done = train(shards, tmp_path / "broken", CONFIG)
    assert [r["loss"] for r in done.history] == [r["loss"] for r in unbroken.history]
    kept = [load_checkpoint(tmp_path / name)[0].state_dict() for name in ("unbroken", "broken")]
    assert all(torch.equal(tensor, kept[1][name]) for name, tensor in kept[0].items())


def test_a_history_that_a_kill_left_behind_its_state_is_made_whole(shards, tmp_path):
    done = train(shards, tmp_path, CONFIG)
    history = tmp_path / "history.json"
    whole = history.read_text()
    for left in (json.dumps(done.history[:-1]), whole[:100], None):
        history.unlink()
        if left is not None:
            history.write_text(left)
        train(shards, tmp_path, CONFIG)
        assert history.read_text() == whole


def test_a_longer_limit_goes_on(shards, tmp_path):
    limited = replace(CONFIG, steps=10**6, max_seconds=2.0, validate_every=1000)
    first = train(shards, tmp_path, limited)
    assert train(shards, tmp_path, limited).step == first.step
    assert train(shards, tmp_path, replace(limited, max_seconds=first.seconds + 2)).step > first.step
    assert train(shards, tmp_path, replace(limited, max_seconds=None, steps=first.step)).step > first.step


def test_a_refused_run_leaves_the_settings_as_they_were(shards, tmp_path):
    train(shards, tmp_path, replace(CONFIG, steps=3))
    before = (tmp_path / "config.yaml").read_text()
    with pytest.raises(ValueError, match="learning_rate"):
        train(shards, tmp_path, replace(CONFIG, learning_rate=0.1))
    assert (tmp_path / "config.yaml").read_text() == before


def test_gradients_that_are_no_numbers_stop_before_the_weights_are_spoiled(shards, tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.Accelerator.clip_grad_norm_", lambda *_: torch.tensor(float("inf")))
    with pytest.raises(FloatingPointError, match="step 1: gradient norm = inf"):
        train(shards, tmp_path, CONFIG)
    assert not (tmp_path / "state.pt").exists()


def test_a_broken_shard_is_told_in_one_line_by_workers_too(shards, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(shards, folder)
    for shard in folder.glob("*.tar"):
        shard.write_bytes(shard.read_bytes()[:3000])
    data = replace(CONFIG.data, num_workers=1, validation_share=0.0)
    with pytest.raises(ValueError, match=r"^\S+\.tar: .*") as caught:
        train(folder, tmp_path / "run", replace(CONFIG, data=data))
    assert "Traceback" not in str(caught.value)


def test_workers_read_from_an_object_store(shards, tmp_path, bucket):
    for file in Path(shards).iterdir():
        storage.write_bytes(f"{bucket}/shards/{file.name}", file.read_bytes())
    config = replace(CONFIG, steps=3, data=replace(CONFIG.data, num_workers=1))
    losses = [
        train(url, tmp_path / str(i), config).history[0]["loss"] for i, url in enumerate((shards, f"{bucket}/shards"))
    ]
    assert losses[0] == losses[1]


def test_workers_make_the_batches_of_a_training(shards, tmp_path):
    with_workers = replace(CONFIG, data=replace(CONFIG.data, num_workers=2))
    losses = [
        [r["loss"] for r in train(shards, tmp_path / n, c).history] for n, c in (("a", CONFIG), ("b", with_workers))
    ]
    assert losses[0] == losses[1]


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


@pytest.mark.parametrize("field", ["batch_size", "patch_px", "crops_per_pair", "samples_per_visit", "shuffle_buffer"])
def test_data_settings_that_would_never_end_are_refused(field):
    with pytest.raises(ValueError, match=rf"data\.{field} = 0: wanted at least 1"):
        DataConfig(**{field: 0})


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
    with pytest.raises(ValueError, match=r"was made with learning_rate = 0\.003, now it is 0\.1"):
        train(shards, tmp_path, replace(config, learning_rate=0.1))
    assert train(shards, tmp_path, config).step == 3  # nothing left to do
    (tmp_path / "state.pt").write_bytes(b"garbage")
    with pytest.raises(ValueError, match="remove it to start anew"):
        train(shards, tmp_path, config)


def test_a_loss_that_is_no_number_stops_and_names_the_step(shards, tmp_path, monkeypatch):
    losses = iter([0.1, 0.1, float("nan")])
    monkeypatch.setitem(LOSSES, "charbonnier", lambda a, *_: a.mean() * 0 + next(losses))
    with pytest.raises(FloatingPointError, match="step 3"):
        train(shards, tmp_path, CONFIG)


def test_time_limits_shorten_the_plan(shards, tmp_path):
    done = train(shards, tmp_path, replace(CONFIG, steps=10**6, max_seconds=3.0, validate_every=1000))
    assert 3 <= done.step < 2000
    assert done.seconds < 30
    assert done.history[-1]["validation"] is not None


def test_without_a_held_out_group_nothing_is_validated(tmp_path):
    write_shards([pair(i) for i in range(4)], tmp_path / "shards")
    done = train(tmp_path / "shards", tmp_path / "run", replace(CONFIG, steps=2, strength=0.3))
    assert done.best is None
    assert load_checkpoint(tmp_path / "run")[1].strength == 0.3


@pytest.mark.parametrize(("loss", "head"), [("l1", "residual"), ("psnr", "gated")])
def test_other_losses_heads_and_precision_run(shards, tmp_path, loss, head):
    config = replace(CONFIG, steps=2, loss=loss, network=replace(NETWORK, head=head), precision="bfloat16")
    assert train(shards, tmp_path, config).step == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_training_step_on_cuda(shards, tmp_path):
    config = replace(CONFIG, steps=4, segment_steps=2, device="cuda", precision="bfloat16")
    done = train(shards, tmp_path, config)
    assert done.step == 4
    assert np.isfinite(done.history[-1]["loss"])
    assert next(iter(load_checkpoint(tmp_path, "cuda")[0].parameters())).is_cuda


def test_the_config_survives_yaml():
    assert build_config(TrainConfig, to_tree(CONFIG), source="test") == CONFIG


def shard(scene: str, group: str | None = None) -> Shard:
    return Shard(f"{scene}.tar", scene, group or scene, 1, 1, scene)


def test_groups_are_held_out_whole():
    shards = [shard("banana"), shard("sample_banana", "banana"), shard("can"), shard("castle"), shard("entry")]
    groups = {"entry": "castle"}
    train_shards, held_out = split_by_group(shards, groups, ["castle"], 0.5)
    assert [s.scene for s in held_out] == ["castle", "entry"]
    assert [s.scene for s in train_shards] == ["banana", "sample_banana", "can"]
    train_shards, held_out = split_by_group(shards, groups, [], 0.3)
    assert {s.scene for s in held_out} == {"can"}
    assert split_by_group(shards, groups, [], 0.0)[1] == []
    with pytest.raises(ValueError, match="known: banana, can, castle"):
        split_by_group(shards, groups, ["nowhere"], 0.5)
    with pytest.raises(ValueError, match="no group remains"):
        split_by_group([shard("can")], {}, ["can"], 0.5)


def test_validation_pairs_are_few_and_spread(tmp_path):
    shards = write_shards([pair(i, scene) for scene in ("a", "b") for i in range(9)], tmp_path, samples_per_shard=4)
    chosen = validation_pairs(tmp_path, shards, 3)
    assert [(one.scene, one.view) for one in chosen] == [
        (scene, f"photos/{i:03d}.png") for scene in ("a", "b") for i in (0, 3, 6)
    ]
    assert len(validation_pairs(tmp_path, shards, 100)) == 18


def test_strength_is_chosen_by_the_mean_over_scenes_not_over_pairs():
    rows = [Row("many", "near", 1.0, 1.0, 0.0)] * 9 + [Row("few", "far", 1.0, -3.0, 0.0)]
    rows += [Row("many", "near", 0.5, 0.6, 0.0)] * 9 + [Row("few", "far", 0.5, 0.2, 0.0)]
    found = summarize_gains(rows)
    assert found["strength"] == 0.5
    assert found["psnr_gain"] == pytest.approx(0.4)
    assert found["num_pairs"] == 10
    assert found["by_strength"]["1.0"]["by_band"]["far"]["psnr_gain"] == -3.0


def test_crops_keep_every_plane_aligned():
    one = pair(1)
    y, x = np.mgrid[0:30, 0:40].astype(np.uint8)
    marked = one.map_images(lambda image: np.stack([y + x] * image.shape[2], -1) if image.ndim == 3 else y + x)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(20):
        crop = random_crop(marked, 16, rng)
        assert crop.alpha.shape == (16, 16)
        for plane in (crop.artifact[..., 0], crop.clean[..., 2], crop.nearness, *(warp[..., 3] for warp in crop.warps)):
            np.testing.assert_array_equal(plane, crop.alpha)
        seen.add((int(crop.alpha[0, 0]), int(crop.alpha[0, -1]), int(crop.alpha[-1, 0])))
    assert len(seen) > 10


@pytest.mark.parametrize("references", [0, 1, 2, 3])
@pytest.mark.parametrize("planes", [True, False])
def test_a_batch_holds_what_the_network_is_given_in_the_loop(references, planes):
    network = replace(NETWORK, num_references=references, alpha=planes, depth=planes)
    mask = random_mask()
    pairs = [pair(i, mask=mask if i else None) for i in range(3)]
    batch = make_batch([Crop(one, UNCHANGED) for one in pairs], NafnetInputs(network))
    expected = torch.stack([network_inputs(one.guidance(), network) for one in pairs])
    torch.testing.assert_close(batch.inputs, expected, atol=0, rtol=0)
    for i, one in enumerate(pairs):
        clean, weight = one.target()
        assert torch.equal(batch.clean[i].permute(1, 2, 0), clean) and torch.equal(batch.weight[i, 0], weight)


def test_small_images_are_filled_up_and_masked():
    crop = random_crop(pair(1), 64, np.random.default_rng(0))
    assert crop.alpha.shape == (64, 64)
    assert (crop.mask == 255).sum() == 30 * 40
    batch = make_batch([Crop(crop, UNCHANGED)], INPUTS)
    assert batch.weight.sum() == 30 * 40
    assert edge_loss(batch.clean, batch.clean, batch.weight) == 0


def test_jitter_changes_colours_alike_and_nothing_else():
    rng = np.random.default_rng(0)
    always = JitterConfig(probability=1.0)
    batch = make_batch([Crop(pair(i), random_color_change(always, rng)) for i in range(4)], INPUTS)
    clean = batch.inputs[:, :3].clone()  # then render and photo must stay equal
    made = jitter_colors(batch._replace(clean=clean), INPUTS)
    torch.testing.assert_close(made.inputs[:, :3], made.clean)
    assert (made.clean - clean).abs().mean() > 0.01
    before, after = warps_in(batch.inputs, 2), warps_in(made.inputs, 2)
    assert (after[:, :, :3] - before[:, :, :3]).abs().mean() > 0.01
    torch.testing.assert_close(after[:, :, 3], before[:, :, 3])
    assert (after[:, :, :3].amax(2)[before[:, :, 3] == 0] == 0).all()
    torch.testing.assert_close(made.inputs[:, 11:], batch.inputs[:, 11:])
    never = random_color_change(JitterConfig(probability=0.0), rng)
    np.testing.assert_array_equal(never, UNCHANGED)
    same = jitter_colors(batch._replace(colors=torch.from_numpy(never).expand(4, 8)), INPUTS)
    torch.testing.assert_close(same.inputs, batch.inputs, atol=1e-4, rtol=0)


def test_losses_ignore_what_the_mask_hides():
    a, b = torch.rand(2, 3, 30, 40), torch.rand(2, 3, 30, 40)
    weight = random_mask().expand(2, 1, 30, 40)
    hidden = torch.where(weight > 0, a, torch.rand_like(a))
    for loss in (*LOSSES.values(), edge_loss):
        torch.testing.assert_close(loss(a, b, weight), loss(hidden, b, weight))
        assert loss(b, b, weight) < loss(a, b, weight)


def test_training_goes_on_from_given_weights_and_remembers_what_they_saw(shards, tmp_path):
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


def test_what_is_measured_goes_to_mlflow(shards, tmp_path):
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path}/tracked.db"
    tracked = replace(CONFIG, steps=12, tracking=TrackingConfig(uri=uri, experiment="restorers", name="first"))
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "run", tracked, on_segment=stop_after(2))
    done = train(shards, tmp_path / "run", tracked)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("restorers")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "first")
    assert run.data.params["network.width"] == "8" and run.data.params["data.batch_size"] == "4"
    assert len(run.data.params["shards_digest"]) == 16
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert [(one.step, one.value) for one in losses] == [(r["step"], r["loss"]) for r in done.history]
    assert run.data.metrics["validation.psnr_gain"] == done.history[-1]["validation"]["psnr_gain"]
    assert [one.step for one in client.get_metric_history(run.info.run_id, "train.gradient_norm")] == [10]
    assert {one.path for one in client.list_artifacts(run.info.run_id)} >= {"previews", "restorer"}
    assert len(client.list_artifacts(run.info.run_id, "previews")) == 4
