"""Errors in arguments: one line each, in the form of all errors, without the words of Python's constructors."""

import pytest

from splatfix.cli import main
from splatfix.sample import sample_path

SAMPLE = str(sample_path())
LOOP = ("loop", SAMPLE, "--out", "OUT")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*LOOP, "--views.num-train", "six"), "--views.num-train = 'six': wanted a whole number or all"),
        ((*LOOP, "--views.num-train=six"), "--views.num-train = 'six': wanted a whole number or all"),
        ((*LOOP, "--fit.steps", "3.5"), "--fit.steps = '3.5': wanted a whole number"),
        ((*LOOP, "--fit.steps", "0"), "fit.steps = 0: wanted at least 1 step"),
        ((*LOOP, "--repair.weight", "much"), "--repair.weight = 'much': wanted a number"),
        ((*LOOP, "--fit.steps"), "--fit.steps: its value is missing; wanted --fit.steps INT"),
        ((*LOOP, "--fit.densify.strategy", "x"), "--fit.densify.strategy = 'x': wanted auto, none, default or mcmc"),
        ((*LOOP, "--views.size-pix", "4"), "unknown flag --views.size-pix; did you mean --views.size-px INT?"),
        ((*LOOP, "--num-train", "4"), "unknown flag --num-train; did you mean --views.num-train INT|all?"),
        (
            ("loop", "--views.sizepx", "100", SAMPLE, "--out", "OUT"),
            "unknown flag --views.sizepx; did you mean --views.size-px",
        ),
        (("loop", "--out", "OUT", "--sizepx", "100"), "unknown flag --sizepx; "),
        ((*LOOP, "--qqq", "4"), "unknown flag --qqq; see --help-all"),
        ((*LOOP, "--video", "no"), "--video takes no value: --video turns it on, --no-video turns it off"),
        ((*LOOP, "more"), "more: not an argument of splatfix loop, which takes only CAPTURE; see --help"),
        ((*LOOP, "--config"), "--config: expected one argument"),
        (("loop", SAMPLE, "--out"), "--out: expected one argument"),
        (("loop", SAMPLE), "--out RUN is missing; for example: splatfix loop scenes/banana --out runs/banana"),
        (("evaluate", SAMPLE, "--out", "OUT"), "SPLAT.ply and --split SPLIT.json are missing; for example: splatfix"),
        (("compare", SAMPLE, "--out", "OUT", "--seeds", "0", "a"), "--seeds = 'a': wanted a whole number"),
        (("view", "a.ply", "--port", "x"), "--port = 'x': wanted a whole number"),
        (("train", "scenes/mine"), "for a splat from photos: splatfix loop scenes/mine --out RUN, or without repair:"),
        (("train", "mine", "--shards", "p", "--out", "OUT"), "for a splat from photos: splatfix loop mine --out RUN"),
        (("help", "lop"), "no command 'lop'; did you mean loop?"),
    ],
)
def test_arguments_are_refused_in_one_line(arguments, message, tmp_path, capsys):
    out = tmp_path / "run"
    assert main([str(out) if word == "OUT" else word for word in arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert "\x1b" not in said.err and "╭" not in said.err
    assert said.out == ""
    assert not out.exists()


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("views: {num_train: six}", "views.num_train = 'six': wanted a whole number or all"),
        ("video: maybe", "video = 'maybe': wanted true or false"),
        ("fit: {means_lr: fast}", "fit.means_lr = 'fast': wanted a number"),
        ("views: 6", "views = 6: wanted a mapping of fields"),
        ("views: {train_ids: 3}", "views.train_ids = 3: wanted a list"),
    ],
)
def test_a_config_is_refused_in_the_same_words(value, wanted, tmp_path, capsys):
    config = tmp_path / "mine.yaml"
    config.write_text(value)
    assert main(["loop", SAMPLE, "--out", str(tmp_path / "run"), "--config", str(config)]) == 2
    assert capsys.readouterr().err == f"splatfix loop: {config}: {wanted}\n"


def test_a_folder_as_config_is_refused_with_the_file_in_it(tmp_path, capsys):
    assert main(["loop", SAMPLE, "--out", str(tmp_path / "run"), "--config", str(tmp_path)]) == 2
    assert f"{tmp_path}: is a folder; wanted a YAML file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("capture", "words"),
    [
        ("https://example.com/banana.zip", "an archive; download and unpack it, and pass the folder in it"),
        ("s3://bucket/banana.tar", "an archive; download and unpack it, and pass the folder in it"),
        ("https://example.com/banana.mp4?x=1", "a video; download it, and pass the file"),
        ("https://example.com/banana.JPG", "a single photo; download all of them into a folder, and pass the folder"),
    ],
)
def test_files_on_the_web_are_named_for_what_they_are(capture, words, tmp_path, capsys):
    assert main(["loop", capture, "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == f"splatfix loop: {capture}: {words}\n"


def test_the_folder_of_a_single_photo_is_named(tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(b"")
    assert main(["loop", str(tmp_path / "a.jpg"), "--out", str(tmp_path / "run")]) == 2
    assert f"a single photo; wanted the folder of all of them: pass {tmp_path}" in capsys.readouterr().err


def test_a_fit_from_one_photo_is_warned_of(tmp_path, capsys):
    small = ("--views.size-px", "32", "--views.max-test", "1", "--fit.steps", "2", "--no-video")
    for num in ("1", "2"):
        out = tmp_path / num
        assert main(["fit", SAMPLE, "--out", str(out), *small, "--views.num-train", num]) == 0
        said = capsys.readouterr().err
        assert ("one photo says nothing about depth" in said) == (num == "1")
