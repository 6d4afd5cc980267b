"""The restorer ``command`` with tiny programs: results, checks of what they write, time, signals, and the cache."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from splatfix.config import build_config
from splatfix.images import read_image
from splatfix.loop.config import LoopConfig
from splatfix.restoration import RestorerChoice, open_restorer
from splatfix.restoration.command.program import ProgramError
from tests.restoration.scenery import flawed_view
from tests.waiting import wait_for

START = """
import json, os, sys, time
from pathlib import Path
from PIL import Image, ImageOps

source, target, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
with (Path(__file__).parent / "calls.txt").open("a") as calls:
    calls.write("call\\n")
views = json.loads((source / "views.json").read_text())["views"]

def invert(view):
    return ImageOps.invert(Image.open(source / view["render"]))
"""
INVERT = "for view in views: invert(view).save(target / view['file'])\n"


@pytest.fixture
def program(tmp_path):
    """Writes a program; gives a function that repairs views with it."""

    def write(body: str, start: str = START, **options):
        script = tmp_path / "a program.py"
        script.write_text(start + body)
        argv = [sys.executable, str(script), "{input}", "{output}", "{seed}"]
        options = {"argv": argv, "cache": None, "timeout_seconds": 60, **options}
        return open_restorer(RestorerChoice(name="command", options=options), "cpu")

    def num_calls() -> int:
        path = tmp_path / "calls.txt"
        return len(path.read_text().splitlines()) if path.exists() else 0

    return SimpleNamespace(write=write, num_calls=num_calls)


def in_8_bits(image: torch.Tensor) -> torch.Tensor:
    return (image.clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def assert_inverted(repaired, views):
    assert len(repaired) == len(views)
    for result, view in zip(repaired, views, strict=True):
        assert torch.equal(in_8_bits(result.rgb), 255 - in_8_bits(view.rgb))


def test_repaired_images_come_back_in_order(program):
    views = [flawed_view(i) for i in range(3)] + [flawed_view(0, 37, 51), flawed_view(1, num_references=0)]
    repaired = program.write(INVERT).repair(views, seed=5)
    assert_inverted(repaired, views)
    assert all(result.confidence is None for result in repaired)
    assert program.num_calls() == 1


def test_confidence_maps_come_back(program):
    body = """
(target / "confidence").mkdir()
for view in views:
    invert(view).convert("RGBA").save(target / view["file"])
    Image.open(source / view["alpha"]).save(target / "confidence" / view["file"])
"""
    views = [flawed_view(0), flawed_view(1)]
    repaired = program.write(body).repair(views, seed=0)
    assert_inverted(repaired, views)
    for result, view in zip(repaired, views, strict=True):
        torch.testing.assert_close(result.confidence, view.alpha, atol=0.5 / 255 + 1e-6, rtol=0)


def test_the_folder_holds_what_is_known_of_the_views(program, tmp_path):
    views = [replace(flawed_view(0), spread=torch.rand(30, 40)), flawed_view(1)]
    program.write(INVERT, folder=str(tmp_path / "kept")).repair(views, seed=7)
    (call,) = (tmp_path / "kept").iterdir()
    tree = json.loads((call / "input/views.json").read_text())
    assert (tree["schema"], tree["seed"]) == (1, 7) and "OpenCV" in tree["conventions"]["axes"]
    for record, view in zip(tree["views"], views, strict=True):
        assert (record["name"], record["width_px"], record["height_px"]) == (view.camera.name, 40, 30)
        np.testing.assert_array_equal(record["camera_from_world"], view.camera.camera_from_world)
        np.testing.assert_array_equal(record["intrinsics"], view.camera.intrinsics)
        np.testing.assert_array_equal(np.load(call / "input" / record["depth"]), view.depth.numpy())
        assert torch.equal(in_8_bits(torch.tensor(read_image(call / "input" / record["render"]))), in_8_bits(view.rgb))
        for reference, known in zip(record["references"], view.references, strict=True):
            photo = torch.tensor(read_image(call / "input" / reference["photo"]))
            assert torch.equal(in_8_bits(photo), in_8_bits(known.rgb))
            assert read_image(call / "input" / reference["warped"]).shape == (30, 40, 4)
            np.testing.assert_array_equal(reference["camera_from_world"], known.camera.camera_from_world)
    assert [record["spread"] for record in tree["views"]] == ["spread/0000.npy", None]
    assert tree["views"][1]["references"][1]["photo"] == "photos_2/0001.png"
    assert sorted(path.name for path in call.iterdir()) == ["input", "log.txt", "output"]


@pytest.mark.parametrize("name", ["a/b/../c.png", "猫 '$(touch pwned)'; rm -rf x.jpg", "-rf", ".", "x" * 300])
def test_odd_names_of_views_do_no_harm(program, name, tmp_path):
    view = flawed_view(0)
    view = replace(view, camera=replace(view.camera, name=name))
    assert_inverted(program.write(INVERT).repair([view], seed=0), [view])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a program.py", "calls.txt"]


def test_no_shell_reads_the_arguments(program, tmp_path):
    argv = [sys.executable, str(tmp_path / "a program.py"), "{input}", "{output}", "{seed}", "; touch pwned", "$HOME"]
    body = INVERT + "assert sys.argv[4:] == ['; touch pwned', '$HOME'], sys.argv\n"
    assert_inverted(program.write(body, argv=argv).repair([flawed_view(0)], seed=0), [flawed_view(0)])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "invert(views[0]).save(target / '0000.png'); (target / 'log.csv').touch()",
            r"output/0001\.png: no such image; the program wrote 1 of 2 repaired views \(beside them: log\.csv\); "
            r"wanted one for each image in renders/",
        ),
        ("", r"output/0000\.png: no such image; the program wrote 0 of 2 repaired views; wanted"),
        (
            "for view in views: invert(view).resize((512, 512)).save(target / view['file'])",
            r"output/0000\.png: 512 x 512 pixels; wanted 40 x 30, as the render of view 'photos/000\.png' has: let",
        ),
        (
            INVERT + "invert(views[0]).save(target / '0000.jpg')",
            r"output/0000\.png: beside 0000\.jpg; wanted one image for each view",
        ),
        (
            INVERT + "(target / 'confidence').mkdir(); invert(views[0]).save(target / 'confidence' / '0000.png')",
            r"output/confidence/0001\.png: no such image; the program wrote 1 of 2 confidence maps; wanted one for",
        ),
        (
            INVERT + "(target / '0001.png').write_bytes(b'no image')",
            r"output/0001\.png: cannot be read as an image",
        ),
    ],
)
def test_what_the_program_writes_is_checked(program, body, message):
    with pytest.raises(ValueError, match=message) as caught:
        program.write(body).repair([flawed_view(0), flawed_view(1)], seed=0)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("restorer 'command': /") and text.endswith("; the option folder keeps the files of a call")


def test_a_failing_program_shows_its_last_lines(program, caplog, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    body = "for i in range(50): print('step', i)\nprint('CUDA out of memory', file=sys.stderr); sys.exit(3)"
    with (
        caplog.at_level(logging.INFO, logger="splatfix"),
        pytest.raises(ProgramError, match=r"python\S* failed with exit code 3: CUDA out of memory$"),
    ):
        program.write(body).repair([flawed_view(0)], seed=0)
    assert caplog.messages[-2:] == ["  step 49", "  CUDA out of memory"]
    assert "  step 10" not in caplog.messages


def test_a_killed_program_says_by_which_signal(program):
    with pytest.raises(ProgramError, match=r"failed with SIGKILL \(out of memory\?\) and no output$"):
        program.write("os.kill(os.getpid(), 9)").repair([flawed_view(0)], seed=0)


CHILD = """
import subprocess, sys, time
from pathlib import Path
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
aside = Path(__file__).with_name("child.partial")
aside.write_text(str(child.pid))
aside.rename(aside.with_name("child.txt"))
time.sleep(600)
"""


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_timeout_ends_the_program_and_its_children(program, tmp_path):
    start = time.monotonic()
    with pytest.raises(ProgramError, match=r"was stopped after 2 seconds and no output; raise timeout_seconds, or"):
        program.write(CHILD, start="", timeout_seconds=2).repair([flawed_view(0)], seed=0)
    assert time.monotonic() - start < 30
    child = int((tmp_path / "child.txt").read_text())
    wait_for(lambda: not is_running(child))


def test_a_program_that_cannot_be_killed_is_left_behind(program, monkeypatch, caplog):
    """As one that waits in the kernel, for a network disk: signals have no effect there."""
    pids, kill = [], os.killpg
    monkeypatch.setattr("splatfix.restoration.command.program.GRACE_SECONDS", 0.1)
    monkeypatch.setattr("splatfix.programs.KILLED_SECONDS", 0.1)
    monkeypatch.setattr(os, "killpg", lambda pid, _: pids.append(pid))
    with pytest.raises(ProgramError, match=r"was stopped after 1 seconds"):
        program.write("time.sleep(600)", timeout_seconds=1).repair([flawed_view(0)], seed=0)
    assert "has not ended 0.1 s after it was killed" in caplog.text
    kill(pids[0], signal.SIGKILL)


def test_an_interruption_ends_the_program_and_its_children(program, tmp_path):
    def interrupt():
        wait_for((tmp_path / "child.txt").exists)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        program.write(CHILD, start="").repair([flawed_view(0)], seed=0)
    thread.join()
    wait_for(lambda: not is_running(int((tmp_path / "child.txt").read_text())))


def test_a_cached_view_is_not_repaired_again(program, tmp_path):
    cache = {"cache": str(tmp_path / "cache")}
    views = [flawed_view(i) for i in range(4)]
    first = program.write(INVERT, **cache).repair(views[:3], seed=0)
    again = program.write(INVERT, **cache).repair(views[:3], seed=0)
    assert program.num_calls() == 1
    assert all(torch.equal(a.rgb, b.rgb) for a, b in zip(first, again, strict=True))
    assert_inverted(program.write(INVERT, **cache).repair(views, seed=0), views)
    assert program.num_calls() == 2, "for the fourth view alone"
    program.write(INVERT, **cache).repair(views, seed=1)
    assert program.num_calls() == 3, "another seed"
    program.write(INVERT, env={"MODEL": "large"}, **cache).repair(views, seed=0)
    assert program.num_calls() == 4, "another environment"
    program.write(INVERT + "# changed", **cache).repair(views, seed=0)
    assert program.num_calls() == 5, "another program"


def test_an_interrupted_repair_keeps_the_calls_before(program, tmp_path):
    fails = "if seed == 1 and (Path(__file__).with_name('calls.txt')).read_text().count('call') == 2: sys.exit(1)\n"
    options = {"cache": str(tmp_path / "cache"), "views_per_call": 2}
    views = [flawed_view(i) for i in range(5)]
    with pytest.raises(ProgramError):
        program.write(fails + INVERT, **options).repair(views, seed=1)
    assert_inverted(program.write(fails + INVERT, **options).repair(views, seed=1), views)
    assert program.num_calls() == 2 + 2, "two views, a failure, then two views and one"


def test_the_environment_reaches_the_program(program):
    body = INVERT + "assert os.environ['MODEL'] == 'large' and 'PATH' in os.environ"
    program.write(body, env={"MODEL": "large"}).repair([flawed_view(0)], seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"argv = \[\]: wanted the program and its arguments, as in argv: \[python, repair\.py"),
        ({"argv": []}, r"argv = \[\]: wanted the program"),
        ({"argv": "python x.py {input} {output}"}, r"argv = 'python x\.py .*: wanted a list"),
        ({"argv": ["python", "x.py", "{output}"]}, r"wanted an argument with \{input\}"),
        ({"argv": ["python", "x.py", "{input}"]}, r"wanted an argument with \{output\}"),
        ({"argv": ["x", "{input}", "{output}", "{sead}"]}, r"no placeholders but \{input\}, \{output\} and \{seed\}"),
        ({"argv": ["x", "{input}", "{output}", 4]}, r"argv\.3 = 4: wanted a text"),
        ({"argv": ["no-such-program-here", "{input}", "{output}"]}, r"argv\.0 = 'no-such-program-here': no such"),
        ({"argv": ["sh", "{input}", "{output}"], "timeout_seconds": 0}, r"timeout_seconds = 0\.0: wanted more than 0"),
        ({"argv": ["sh", "{input}", "{output}"], "views_per_call": 0}, r"views_per_call = 0: wanted at least 1"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        open_restorer(RestorerChoice(name="command", options=options), "cpu")
    assert "\n" not in str(caught.value) and "restorer 'command'" in str(caught.value)


def test_a_config_names_it():
    argv = ["sh", "-c", "true ${HOME}", "{input}", "{output}"]
    tree = {"restorer": {"name": "command", "options": {"argv": argv}}}
    config = build_config(LoopConfig, tree, source="loop.yaml")
    assert open_restorer(config.restorer, "cpu") is not None
