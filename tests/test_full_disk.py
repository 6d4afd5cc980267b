"""A full disk ends a command with one line, leaves no partial file, and the same command completes the run later.

The disk is a limit on the size of files, which the command fails at in the first file that is larger; or a small real
disk, where this machine lets a test mount one.
"""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from accelerate.state import AcceleratorState, PartialState

from splatfix.cli import main
from splatfix.config import to_tree
from splatfix.pairs import write_shards
from splatfix.sample import sample_path
from tests.compare.small import write_config as write_compare
from tests.restoration.scenery import pair
from tests.sweep.small import write_config as write_sweep
from tests.test_pipeline import SMALL
from tests.training.small import CONFIG

GENERATE = (
    *("--fits-per-capture", 3, "--device", "cpu", "--workers.num", 0, "--recipes.photos.size-px", 32),
    *("--recipes.photos.steps", 60, "--recipes.photos.max-views", 2),
)


@contextmanager
def files_up_to(num_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def run(*arguments: object) -> int:
    AcceleratorState._reset_state()
    PartialState._reset_state()
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Callable[[str, Path], int]:
    """Run a command, by its name, into a folder."""
    folder = tmp_path_factory.mktemp("given")
    write_shards([pair(i, scene) for scene in ("a", "b", "c") for i in range(4)], folder / "shards")
    (folder / "train.yaml").write_text(yaml.safe_dump(to_tree(CONFIG)))
    arguments: dict[str, list[object]] = {
        "train": ["train", "--shards", folder / "shards", "--config", folder / "train.yaml"],
        "fit": ["fit", sample_path(), *SMALL, "--no-video"],
        "loop": ["loop", sample_path(), *SMALL, "--restorer", "warp", "--repair.steps", 20, "--no-video"],
        "generate": ["generate", sample_path(), *GENERATE],
        "sweep": ["sweep", "--config", write_sweep(folder / "sweep.yaml", search={"trials": 2}, reruns=1)],
        "compare": ["compare", "--config", write_compare(folder / "compare.yaml")],
    }
    return lambda name, out: run(*arguments[name], "--out", out)


@pytest.fixture(scope="module")
def sizes(start, tmp_path_factory) -> Callable[[str], list[int]]:
    """The sizes of the files that a command writes, from the smallest."""
    known: dict[str, list[int]] = {}

    def find(name: str) -> list[int]:
        if name not in known:
            out = tmp_path_factory.mktemp("whole") / name
            assert start(name, out) == 0
            known[name] = sorted({path.stat().st_size for path in out.rglob("*") if path.is_file()})
        return known[name]

    return find


def check(start, name: str, out: Path, num_bytes: int, capsys) -> None:
    capsys.readouterr()
    with files_up_to(num_bytes - num_bytes // 50):  # sizes differ a little from run to run, by digits of seconds
        code = start(name, out)
    lines = capsys.readouterr().err
    assert "Traceback" not in lines
    assert code == 1, f"{num_bytes} bytes"
    assert f"splatfix {name}: the disk is full or files may not grow ({out}" in lines
    assert [path for path in out.rglob("*") if "partial" in path.name or path.name.endswith(".old")] == []


@pytest.mark.parametrize(("name", "share"), [("train", 0.0), ("train", 0.6), ("train", 1.0), ("fit", 1.0)])
def test_a_full_disk_is_one_line_and_a_rerun_completes(name, share, start, sizes, tmp_path, capsys):
    found = sizes(name)
    check(start, name, tmp_path / "run", found[round(share * (len(found) - 1))] - 1, capsys)
    assert start(name, tmp_path / "run") == 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "step"), [("train", 1), ("fit", 1), ("generate", 1), ("compare", 4), ("sweep", 8)])
def test_every_size_of_a_full_disk(name, step, start, sizes, tmp_path, capsys):
    """Each rerun resumes with a little more space, so that the run stops at each file in turn, or at every ``step``."""
    for num_bytes in sizes(name)[::step]:
        check(start, name, tmp_path / "run", num_bytes - 1, capsys)
    assert start(name, tmp_path / "run") == 0


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[[int], Path]]:
    """A disk of so many kB; again with another size, the same disk."""
    place = tmp_path / "disk"
    place.mkdir()

    def resize(kilobytes: int) -> Path:
        options = f"size={kilobytes}k" + (",remount" if place.is_mount() else "")
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        return place

    yield resize
    if place.is_mount():
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "loop", "generate", "sweep", "compare"])
def test_a_disk_that_fills_at_six_places(name, start, tmp_path, small_disk, capsys):
    assert start(name, tmp_path / "whole") == 0
    files = [path for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    whole = sum(-(-path.stat().st_size // 4096) * 4 for path in files)
    for share in (0.02, 0.2, 0.4, 0.6, 0.8, 0.95):
        capsys.readouterr()
        out = small_disk(round(share * whole)) / "run"
        code, lines = start(name, out), capsys.readouterr().err
        assert "Traceback" not in lines
        assert code == 1, f"{share:.0%} of {whole} kB: {lines}"
        assert f"splatfix {name}: the disk is full (" in lines, lines
        assert [path for path in out.rglob("*") if "partial" in path.name or path.name.endswith(".old")] == []
    assert start(name, small_disk(4 * whole) / "run") == 0
