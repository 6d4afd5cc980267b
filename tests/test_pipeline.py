"""Every command on a small version of the shipped sample, as a user would call it."""

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from plyfile import PlyData

from splatfix.captures import open_capture
from splatfix.captures.photos import WHITE
from splatfix.cli import main
from splatfix.command_line import explain_error, find_command
from splatfix.errors import DiskFull
from splatfix.extras import install_line
from splatfix.files import read_json
from splatfix.gaussians import Gaussians, Splat, read_ply
from splatfix.lease import hold_lease
from splatfix.rendering import render
from splatfix.restoration.baselines import Warp
from splatfix.runs import remove_run
from splatfix.sample import sample_path
from splatfix.shared_folder import RAY_JOB
from splatfix.similarity import Similarity
from tests.captures.writers import move_transforms
from tests.fake_programs import write_program

SMALL = [
    *("--views.size-px", "64", "--views.num-train", "4", "--views.max-test", "5"),
    *(
        "--initial.num-random",
        "200",
        "--fit.steps",
        "40",
        "--choose.every",
        "20",
        "--choose.folds",
        "1",
        "--choose.enabled",
    ),
]
SMALL_LOOP = [*SMALL, "--repair.views", "4", "--repair.steps", "15", "--restorer", "warp", "--no-video"]


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def loop_run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "loop"
    assert run("loop", sample_path(), "--out", out, *SMALL_LOOP) == 0
    return out


def test_a_loop_leaves_a_whole_run_folder(loop_run):
    names = {path.name for path in loop_run.iterdir()}
    wanted = {"config.yaml", "run.json", "split.json", "before.ply", "control.ply", "after.ply", "results.json"}
    assert wanted | {"report.html", "history.json", "views.json", "splat.json", "images", "rounds"} <= names
    assert not [path for path in loop_run.rglob("*") if "partial" in path.name]


def test_results_follow_the_contract(loop_run):
    results = read_json(loop_run / "results.json")
    assert results["schema"] == 1
    assert results["capture"] == "tankard"
    assert results["restorer"] == "warp"
    assert results["size_px"] == 64
    assert len(results["views"]) == 5
    for view in results["views"]:
        assert view["band"] in ("near", "mid", "far")
        for arm in ("before", "control", "after", "post"):
            assert 5 < view[arm]["psnr"] < 60
            assert 0 < view[arm]["ssim"] <= 1
    summary = results["summary"]
    assert summary.keys() == {"all", "near", "mid", "far"}
    gain = summary["all"]["after"]["psnr"] - max(summary["all"][arm]["psnr"] for arm in ("before", "control"))
    assert summary["all"]["gain"]["psnr"] == pytest.approx(gain)
    assert summary["all"]["after"]["lpips"] is not None or "lpips" in results["reasons"]
    assert results["elongation"].keys() == {"before", "control", "after"}
    assert all(count > 0 for count in results["num_gaussians"].values())
    split = read_json(loop_run / "split.json")
    assert not set(split["train_ids"]) & set(split["test_ids"])
    assert split["size_px"] == 64


def test_control_and_after_differ_only_by_the_repaired_views(loop_run):
    arms = {arm: (loop_run / f"{arm}.ply").read_bytes() for arm in ("before", "control", "after")}
    assert len(set(arms.values())) == 3
    history = read_json(loop_run / "history.json")
    steps = {arm: max(row["step"] for row in history if row["arm"] == arm) for arm in ("control", "after")}
    assert steps["control"] == steps["after"]


def test_evaluate_reproduces_the_figures(loop_run, tmp_path):
    splat, split = loop_run / "after.ply", loop_run / "split.json"
    assert run("evaluate", sample_path(), splat, "--split", split, "--out", tmp_path / "e", "--no-video") == 0
    again = read_json(tmp_path / "e" / "results.json")
    first = read_json(loop_run / "results.json")
    for one, other in zip(first["views"], again["views"], strict=True):
        assert other["after"]["psnr"] == pytest.approx(one["after"]["psnr"], abs=1e-3)
        assert other["after"]["ssim"] == pytest.approx(one["after"]["ssim"], abs=1e-4)
        assert other["before"] is None
        assert other["band"] == one["band"]
    assert again["summary"]["all"]["gain"] is None


def test_the_demo_is_a_loop_and_a_second_one_does_no_work(loop_run):
    before = {path: path.stat().st_mtime_ns for path in loop_run.rglob("*.ply")}
    assert run("demo", "--out", loop_run) == 0  # the settings come from the folder
    assert {path: path.stat().st_mtime_ns for path in loop_run.rglob("*.ply")} == before
    assert run("demo", "--out", loop_run, "--seed", "7") == 2


def test_a_splat_of_a_run_folder_opens_as_a_capture(loop_run):
    capture = open_capture(loop_run / "after.ply", longest_side_px=32)
    assert "no cameras.json" in capture.notes[0]


@pytest.mark.slow
def test_a_loop_in_map_coordinates(loop_run, tmp_path):
    move = Similarity(1.0, (432_100.0, 5_412_345.0, 187.0))
    capture, out = tmp_path / "capture", tmp_path / "run"
    shutil.copytree(sample_path(), capture)
    move_transforms(capture, move)
    assert run("loop", capture, "--out", out, *SMALL_LOOP) == 0
    psnr = read_json(out / "results.json")["summary"]["all"]["after"]["psnr"]
    assert psnr == pytest.approx(read_json(loop_run / "results.json")["summary"]["all"]["after"]["psnr"], abs=0.3)
    for arm in ("before", "control", "after"):
        vertex = PlyData.read(str(out / f"{arm}.ply"))["vertex"].data
        middle = [np.median(vertex[axis]) for axis in "xyz"]
        assert np.abs(move.apply_inverse(np.array(middle))).max() < 5
    centers = [view["centre"] for view in read_json(out / "views.json")["train"]]
    assert np.abs(move.apply_inverse(np.array(centers))).max() < 10
    assert any("is subtracted" in note for note in read_json(out / "run.json")["notes"])
    evaluate = ("evaluate", capture, out / "after.ply", "--split", out / "split.json", "--no-video")
    assert run(*evaluate, "--out", tmp_path / "e") == 0
    again = read_json(tmp_path / "e" / "results.json")["summary"]["all"]["after"]["psnr"]
    assert again == pytest.approx(psnr, abs=1e-3)
    splat = open_capture(out, longest_side_px=48)
    assert splat.file_from_world.offset == open_capture(capture).file_from_world.offset
    seen = splat.views[0].load().rgb
    wanted = open_capture(capture, longest_side_px=48).view(splat.names[0]).load().rgb
    assert np.abs(seen - wanted).mean() < 0.1
    assert run("loop", capture, "--start", out / "after.ply", "--out", tmp_path / "more", *SMALL_LOOP) == 0


class Watched(Warp):
    """A restorer that keeps the views it was given, call by call."""

    def __init__(self):
        self.calls = []

    def repair(self, views, *, seed):
        self.calls.append(views)
        return super().repair(views, seed=seed)


@pytest.fixture(scope="module")
def antialiased(tmp_path_factory) -> tuple[Path, Watched]:
    out, restorer = tmp_path_factory.mktemp("runs") / "antialiased", Watched()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("splatfix.loop.run.open_restorer", lambda *_, **__: restorer)
        assert run("loop", sample_path(), "--out", out, *SMALL_LOOP, "--fit.mode", "antialiased") == 0
    return out, restorer


def test_an_antialiased_loop_repairs_antialiased_views(antialiased):
    """The views of the first round are means over the sparse fit and its siblings, those of `post` are of `after`."""
    out, restorer = antialiased
    names = ("before", "sibling_1", "sibling_2")
    states = [torch.load(out / "checkpoints" / f"{name}.pt")["state"]["params"] for name in names]
    splats = [Splat(Gaussians(*state.values()), "antialiased", WHITE) for state in states]
    first, last = restorer.calls[0][0], restorer.calls[-1][0]
    with torch.no_grad():
        of_fits = torch.stack([render(splat, [first.camera]).rgb[0] for splat in splats]).mean(0)
        of_after = render(Splat(read_ply(out / "after.ply"), "antialiased", WHITE), [last.camera]).rgb[0]
    assert torch.equal(first.rgb, of_fits)
    assert torch.equal(last.rgb, of_after)


def test_a_restorer_is_called_once_for_each_round_and_once_for_the_test_views(antialiased):
    out, restorer = antialiased
    test_ids = json.loads((out / "split.json").read_text())["test_ids"]
    assert len(test_ids) > 1
    *rounds, last = restorer.calls
    assert [view.camera.name for view in last] == test_ids
    assert len(rounds) == yaml.safe_load((out / "config.yaml").read_text())["repair"]["rounds"]


def test_evaluate_draws_a_splat_as_its_run_recorded_it(antialiased, tmp_path):
    first_run = antialiased[0]
    arguments = (sample_path(), first_run / "after.ply", "--split", first_run / "split.json", "--no-video")
    shipped = Path(__file__).parent.parent / "configs" / "evaluate.yaml"
    assert run("evaluate", *arguments, "--out", tmp_path / "recorded", "--config", shipped) == 0
    assert run("evaluate", *arguments, "--out", tmp_path / "classic", "--mode", "classic") == 0
    first, recorded, classic = (
        read_json(folder / "results.json") for folder in (first_run, tmp_path / "recorded", tmp_path / "classic")
    )
    assert [view["after"] for view in recorded["views"]] == [view["after"] for view in first["views"]]
    assert classic["summary"]["all"]["after"]["psnr"] != first["summary"]["all"]["after"]["psnr"]
    for folder, mode in (("recorded", "antialiased"), ("classic", "classic")):
        assert f"mode: {mode}" in (tmp_path / folder / "config.yaml").read_text()


def test_the_same_seed_gives_the_same_splats(loop_run, tmp_path):
    assert run("loop", sample_path(), "--out", tmp_path / "again", *SMALL_LOOP) == 0
    for arm in ("before", "control", "after"):
        assert (tmp_path / "again" / f"{arm}.ply").read_bytes() == (loop_run / f"{arm}.ply").read_bytes(), arm


def test_an_interrupted_loop_goes_on_where_it_was(loop_run, tmp_path, monkeypatch, capsys):
    """Stopped at the repair of the second round; what was finished is not done again."""

    class Interrupted(Warp):
        def repair(self, views, *, seed):
            if seed == 1:
                raise KeyboardInterrupt
            return super().repair(views, seed=seed)

    out = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr("splatfix.loop.run.open_restorer", lambda *_, **__: Interrupted())
        assert run("loop", sample_path(), "--out", out, *SMALL_LOOP) == 130
    done = {path.name for path in (out / "checkpoints").iterdir()}
    assert done == {f"{name}.pt" for name in ("before", "control", "sibling_1", "sibling_2", "views_1", "round_1")}
    stamps = {name: (out / "checkpoints" / name).stat().st_mtime_ns for name in done}
    capsys.readouterr()
    assert run("loop", sample_path(), "--out", out, *SMALL_LOOP) == 0
    said = capsys.readouterr().err
    assert "control: done earlier" in said
    assert "stage 2 of 9: the sparse fit, " in said and "stage 3 of 9: the control, " in said
    assert (
        "stage 9 of 9: measuring on 5 test photos" in said and "control: 1" not in said
    )  # short stages have no bar in a log
    assert {name: (out / "checkpoints" / name).stat().st_mtime_ns for name in done} == stamps
    for arm in ("before", "control", "after"):
        assert (out / f"{arm}.ply").read_bytes() == (loop_run / f"{arm}.ply").read_bytes(), arm
    assert read_json(out / "history.json") == read_json(loop_run / "history.json")


def everything_in(folder: Path) -> dict[str, tuple[int, bytes]]:
    """All files below a folder: when they were written, and what they hold."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.fixture
def copied_run(loop_run, tmp_path) -> Path:
    return Path(shutil.copytree(loop_run, tmp_path / "copy"))


def test_a_finished_run_is_not_done_again(copied_run, capsys):
    before = everything_in(copied_run)
    for settings in (SMALL_LOOP, [], ["--device", "cpu", "--checkpoint-seconds", "5"]):
        assert run("loop", sample_path(), "--out", copied_run, *settings) == 0
        said = capsys.readouterr()
        assert "this run is finished" in said.err and f"report: {copied_run / 'report.html'}" in said.out
        assert everything_in(copied_run) == before


def test_a_run_whose_video_fails_keeps_its_results_and_tries_again(copied_run, tmp_path, monkeypatch, capsys):
    program = write_program(tmp_path / "ffmpeg", "echo 'Unknown encoder libx264' >&2\nexit 8")
    before = (copied_run / "results.json").read_text()
    with monkeypatch.context() as patched:
        patched.setattr("imageio_ffmpeg.get_ffmpeg_exe", lambda: str(program))
        assert run("loop", sample_path(), "--out", copied_run, "--video") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "path.mp4: ffmpeg failed (Unknown encoder libx264); the same command tries it again, --no-video" in said
    assert json.loads((copied_run / "results.json").read_text())["summary"] == json.loads(before)["summary"]
    assert not (copied_run / "path.mp4").exists()
    assert run("loop", sample_path(), "--out", copied_run, "--video") == 0
    assert (copied_run / "path.mp4").stat().st_size > 0


def test_a_finished_run_is_resumed_for_a_video_that_it_lacks(copied_run):
    splats = {arm: (copied_run / f"{arm}.ply").read_bytes() for arm in ("before", "control", "after")}
    assert run("loop", sample_path(), "--out", copied_run, "--video") == 0
    assert (copied_run / "path.mp4").is_file() and "finished" in read_json(copied_run / "run.json")
    assert {arm: (copied_run / f"{arm}.ply").read_bytes() for arm in splats} == splats


REFUSED = {
    "loop SAMPLE --repair.weight 0.5": "repair.weight was 1.0, now it is 0.5; use the same settings, another --out, or",
    "loop SAMPLE --views.size-px 96": "views.size_px was 64, now it is 96;",
    "loop SAMPLE --config CONFIG": "fit.steps was 40, now it is 41;",
    "loop OTHER": "capture was SAMPLE, now it is OTHER;",
    "fit SAMPLE": "holds a run of splatfix loop, not of fit; choose another --out, or --fresh to replace it",
    "evaluate SAMPLE SPLAT --split SPLIT": "holds a run of splatfix loop, not of evaluate;",
    "train --shards OTHER": "holds a run of splatfix loop, not of train;",
    "sweep --captures SAMPLE": "holds a run of splatfix loop, not of sweep;",
    "generate SAMPLE": "holds a run, not pairs",
}


@pytest.mark.parametrize("command", REFUSED)
def test_another_run_is_refused_and_nothing_changes(command, copied_run, negative_sample, tmp_path, capsys):
    (tmp_path / "fit.yaml").write_text("fit: {steps: 41}")
    places = {"SAMPLE": sample_path(), "OTHER": negative_sample, "CONFIG": tmp_path / "fit.yaml"}
    places |= {"SPLAT": copied_run / "after.ply", "SPLIT": copied_run / "split.json"}
    before = everything_in(copied_run)
    assert run(*(places.get(word, word) for word in command.split()), "--out", copied_run) == 2
    words = REFUSED[command].replace("SAMPLE", str(sample_path())).replace("OTHER", str(negative_sample))
    messages = capsys.readouterr().err
    assert words in messages and "photos to fit from" not in messages
    assert everything_in(copied_run) == before
    assert run("loop", sample_path(), "--out", copied_run) == 0


def test_a_capture_that_has_changed_is_refused(tmp_path, negative_sample, capsys):
    capture = Path(shutil.copytree(sample_path(), tmp_path / "capture"))
    assert run("fit", capture, "--out", tmp_path / "run", *SMALL, "--no-video") == 0
    shutil.copytree(negative_sample, capture, dirs_exist_ok=True)
    assert run("fit", capture, "--out", tmp_path / "run") == 2
    assert f"capture {capture} has changed since the run began; use the same" in capsys.readouterr().err


@pytest.fixture
def negative_sample(tmp_path) -> Path:
    """The sample with inverted photos."""
    folder = Path(shutil.copytree(sample_path(), tmp_path / "negative"))
    for frame in json.loads((folder / "transforms.json").read_text())["frames"]:
        photo = folder / frame["file_path"]
        Image.fromarray(255 - np.asarray(Image.open(photo))).save(photo)
    return folder


@pytest.mark.parametrize("command", ["fit", "loop"])
def test_a_second_process_in_a_run_folder_is_refused(command, tmp_path, capsys):
    arguments = (command, sample_path(), "--out", tmp_path / "run", *(SMALL if command == "fit" else SMALL_LOOP))
    with hold_lease(str(tmp_path / "run"), f"splatfix {command}"):
        before = everything_in(tmp_path)
        assert run(*arguments) == 2
        assert everything_in(tmp_path) == before
    assert f"run: splatfix {command} (process " in (line := capsys.readouterr().err.strip().splitlines()[-1])
    assert "is at work here" in line


def test_a_finished_run_is_shown_where_nothing_can_be_written(loop_run, monkeypatch, capsys):
    before = everything_in(loop_run)
    monkeypatch.setattr("os.access", lambda *_: False)  # as on a disk that is mounted for reading
    monkeypatch.setattr("splatfix.fit.hold_lease", None)
    assert run("loop", sample_path(), "--out", loop_run, *SMALL_LOOP) == 0
    assert everything_in(loop_run) == before and "PSNR" in capsys.readouterr().out


def test_fresh_starts_over_and_removes_only_what_the_run_wrote(copied_run, loop_run):
    mine = [copied_run / name for name in ("notes.txt", "images/sketch.jpg", "rounds/1/sketch.jpg")]
    for path in mine:
        path.write_text("mine")
    assert run("fit", sample_path(), "--out", copied_run, *SMALL, "--no-video", "--fresh") == 0
    names = {str(path.relative_to(copied_run)) for path in copied_run.rglob("*") if path.is_file()}
    assert {str(path.relative_to(copied_run)) for path in mine} <= names
    assert not {"after.ply", "control.ply"} & names
    assert [name for name in names if name.startswith("rounds/")] == ["rounds/1/sketch.jpg"]
    assert not [name for name in names if "after.jpg" in name or "post" in name]
    assert (copied_run / "before.ply").read_bytes() == (loop_run / "before.ply").read_bytes()
    assert "What was repaired" not in (copied_run / "report.html").read_text()


def test_a_folder_with_files_of_others_is_refused(tmp_path, capsys):
    (tmp_path / "after.ply").write_text("mine")
    for more in ([], ["--fresh"]):
        assert run("loop", sample_path(), "--out", tmp_path, *SMALL_LOOP, *more) == 2
        assert "holds after.ply, which no run of this version recorded" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["after.ply"]


def test_a_run_records_all_files_that_it_writes(copied_run):
    remove_run(copied_run)
    assert list(copied_run.iterdir()) == []


def test_a_finished_evaluation_is_not_done_again(loop_run, tmp_path, capsys):
    command = ["evaluate", sample_path(), loop_run / "after.ply", "--split", loop_run / "split.json", "--no-video"]
    assert run(*command, "--out", tmp_path / "e") == 0
    before = everything_in(tmp_path / "e")
    assert run(*command, "--out", tmp_path / "e") == 0
    assert "this run is finished" in capsys.readouterr().err and everything_in(tmp_path / "e") == before
    command[2] = loop_run / "before.ply"
    assert run(*command, "--out", tmp_path / "e") == 2
    assert f"splat was {loop_run / 'after.ply'}, now it is {loop_run / 'before.ply'}" in capsys.readouterr().err
    assert run(*command, "--out", tmp_path / "e", "--fresh") == 0
    remove_run(tmp_path / "e")
    assert list((tmp_path / "e").iterdir()) == []


def test_resume_is_the_default_now(capsys):
    assert run("loop", sample_path(), "--out", "x", "--resume") == 2
    assert "--resume: resuming is the default now: leave it out" in capsys.readouterr().err


def test_test_photos_never_reach_a_fit(loop_run, tmp_path):
    """A capture whose other photos are black gives the same splats."""
    poisoned = tmp_path / "poisoned"
    shutil.copytree(sample_path(), poisoned)
    train = set(read_json(loop_run / "split.json")["train_ids"])
    frames = json.loads((poisoned / "transforms.json").read_text())["frames"]
    spoiled = 0
    for frame in frames:
        path = poisoned / frame["file_path"]
        if not any(path.name in name or name in path.name for name in train):
            Image.fromarray(np.zeros((320, 320, 3), np.uint8)).save(path)
            spoiled += 1
    assert spoiled == len(frames) - len(train)
    assert run("loop", poisoned, "--out", tmp_path / "run", *SMALL_LOOP) == 0
    for arm in ("before", "control", "after"):
        assert (tmp_path / "run" / f"{arm}.ply").read_bytes() == (loop_run / f"{arm}.ply").read_bytes(), arm


def test_a_report_of_several_runs(loop_run, tmp_path):
    assert run("report", loop_run, loop_run, "--out", tmp_path / "both.html") == 0
    assert (tmp_path / "both.html").stat().st_size > 1000


def test_settings_come_from_a_file_and_flags_override_it(tmp_path):
    config = tmp_path / "fit.yaml"
    config.write_text("views: {size_px: 32, num_train: 3, max_test: 2}\nfit: {steps: 5}\nchoose: {enabled: false}\n")
    arguments = ("--config", config, "--no-video", "--seed", "7", "--initial.num-random", "50", "--fit.steps", "6")
    assert run("fit", sample_path(), "--out", tmp_path / "run", *arguments) == 0
    resolved = (tmp_path / "run" / "config.yaml").read_text()
    assert "steps: 6" in resolved and "size_px: 32" in resolved and "seed: 7" in resolved
    held = read_json(tmp_path / "run" / "run.json")
    assert held["seed"] == 7
    assert held["steps_per_second"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("loop", "nowhere", "--out", "x"), "nowhere"),
        (("loop", "SAMPLE", "--out", "x", "--restorer", "magic"), "nafnet"),
        (("fit", "SAMPLE", "--out", "x", "--views.num-train", "99"), "num_train = 99"),
        (("fit", "SAMPLE", "--out", "x", "--config", "nope.yaml"), "nope.yaml: no such config file"),
        (("fit", "SAMPLE", "--out", "x", "--device", "abacus"), "abacus"),
        (("evaluate", "SAMPLE", "nope.ply", "--split", "nope.json", "--out", "x"), "nope.ply: no such file"),
        (("fit", "SAMPLE", "--out", "x", "--config", "BAD"), "bad.yaml: views.size_px = -3: wanted at least 16"),
        (("report", "nowhere"), "nowhere"),
        (("loop", "SAMPLE", "--out", "x", "--views.split", "s.json"), "--views.split: it is called --split now"),
        (("train", "--shards", "x", "--out", "x", "--launch.num", "2"), "it is called --workers.num now"),
        (("train", "--shards", "x", "--out", "x", "--launch.max_failures=3"), "--workers.attempts now"),
        (("train", "--shards", "x", "--out", "x", "--config", "OLD"), "old.yaml: unknown field launch; it is called"),
        (("juggle",), "no command 'juggle'; known: doctor"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("views: {size_px: -3}")
    Path("old.yaml").write_text("launch: {num: 2}")
    inputs = {"SAMPLE": sample_path(), "BAD": "bad.yaml", "OLD": "old.yaml"}
    assert run(*(inputs.get(argument, argument) for argument in arguments)) == 2
    message = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in message if line.startswith("splatfix")]) == 1
    assert words in message[-1]
    assert not any("Traceback" in line for line in message)


def test_impossible_flags_are_refused(tmp_path, capsys):
    assert run("fit", sample_path(), "--out", tmp_path / "x", "--fit.steps", "0") == 2
    assert "fit.steps = 0: wanted at least 1 step" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "command", ["demo", "fit", "generate", "train", "loop", "evaluate", "report", "view", "doctor"]
)
def test_every_command_explains_itself(command, capsys):
    for words in ((command, "--help"), ("help", command), (command, "--help-all")):
        assert run(*words) == 0
        said = capsys.readouterr().out
        assert f"usage: splatfix {command}" in said and f"examples:\n  splatfix {command}" in said
        assert max(map(len, said.split("examples:")[0].splitlines())) <= 100
        assert "noqa" not in said


def test_doctor_reports(capsys):
    assert run("doctor") == 0
    said = capsys.readouterr().out
    assert "fits on the CPU" in said and "CUDA" in said


def test_doctor_says_how_to_install_what_diffusion_models_need(capsys, monkeypatch):
    monkeypatch.setattr("splatfix.extras.find_spec", lambda name: None if name in ("diffusers", "cv2") else name)
    assert run("doctor") == 0
    said = capsys.readouterr().out
    assert "not installed: diffusers, opencv-python-headless" in said
    assert (
        f"-> {install_line('diffusion')} (restorers flux-controlnet, flux-fill, img2img, --initial.depth-model)" in said
    )


@pytest.mark.parametrize("in_job", [False, True])
def test_what_resumes_a_full_disk_is_the_line_or_the_submission(in_job, monkeypatch):
    """In a job, --config names a copy that is gone with it."""
    monkeypatch.delenv(RAY_JOB, raising=False)
    if in_job:
        monkeypatch.setenv(RAY_JOB, "{}")
    _, message = explain_error(DiskFull("/disk"), find_command("fit"), ["fit", "scene", "--out", "run"])
    hint = "; the same submission resumes it" if in_job else "; this resumes it:\n  splatfix fit scene --out run"
    assert message.endswith(hint)


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_says_so_in_one_line(stop, code, tmp_path):
    arguments = ["fit", str(sample_path()), "--out", str(tmp_path), *SMALL, "--fit.steps", "100000"]
    with subprocess.Popen(
        [sys.executable, "-m", "splatfix.cli", *arguments], stderr=subprocess.PIPE, text=True
    ) as running:
        end = time.monotonic() + 120
        while not (tmp_path / "split.json").exists() and time.monotonic() < end:
            time.sleep(0.02)
        running.send_signal(stop)
        _, said = running.communicate(timeout=120)
    assert running.returncode == code
    *_, message, line = said.splitlines()
    assert message.startswith("splatfix fit: ") and "finished work is kept; this resumes it:" in message
    assert line.strip() == shlex.join(["splatfix", *arguments])
    assert "Traceback" not in said and "stack trace" not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "checkpoint", "settings", "splat"),
    [
        ("fit", "before", ["--fit.steps", "400"], "before.ply"),
        ("loop", "round_1", ["--repair.steps", "400", "--repair.views", "4", "--restorer", "warp"], "after.ply"),
    ],
)
def test_a_run_killed_half_way_and_resumed_gives_the_same_splat(
    command, checkpoint, settings, splat, tmp_path, monkeypatch
):
    arguments = [*SMALL, *settings, "--choose.no-enabled", "--no-video", "--checkpoint-seconds", "0.2"]
    start = [sys.executable, "-m", "splatfix.cli", command, str(sample_path())]
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    subprocess.run([*start, "--out", str(tmp_path / "whole"), *arguments], check=True, capture_output=True)
    killed = subprocess.Popen([*start, "--out", str(tmp_path / "cut"), *arguments], stderr=subprocess.DEVNULL)
    saved = tmp_path / "cut" / "checkpoints" / f"{checkpoint}.pt"
    end = time.monotonic() + 120
    while not saved.exists() and time.monotonic() < end:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert saved.exists() and not (tmp_path / "cut" / splat).exists()
    subprocess.run([*start, "--out", str(tmp_path / "cut"), *arguments], check=True, capture_output=True)
    assert (tmp_path / "cut" / splat).read_bytes() == (tmp_path / "whole" / splat).read_bytes()
