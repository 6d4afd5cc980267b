"""The config files and entry points of jobs can be listed and copied, from the repository and from a wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import splatfix
from splatfix import shipped_files
from splatfix.cli import main
from splatfix.shipped_files import copy_shipped

ROOT = Path(splatfix.__file__).parents[1]
NAMES = sorted(f"{path.parent.name}/{path.name}" for path in [*ROOT.glob("configs/*.yaml"), *ROOT.glob("jobs/*.py")])


def test_configs_lists_every_file_with_its_first_comment(capsys) -> None:
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert re.search(r"^configs/fit.yaml +splatfix fit CAPTURE .*: a sparse fit$", "\n".join(lines), re.MULTILINE)
    assert all(len(line.split()) > 3 for line in lines)


def test_configs_copies_the_files_that_are_named(tmp_path, capsys) -> None:
    assert main(["configs", "loop", "configs/fit.yaml", "jobs/train.py", "--out", str(tmp_path / "mine")]) == 0
    copies = capsys.readouterr().out.split()
    assert [Path(copy).name for copy in copies] == ["loop.yaml", "fit.yaml", "train.py"]
    assert Path(copies[0]).read_bytes() == (ROOT / "configs/loop.yaml").read_bytes()
    assert copy_shipped(["loop"], tmp_path / "mine")  # the same again
    Path(copies[0]).write_text("seed: 1\n")
    with pytest.raises(ValueError, match=r"exists and differs from configs/loop\.yaml"):
        copy_shipped(["sweep", "loop"], tmp_path / "mine")
    assert not (tmp_path / "mine" / "sweep.yaml").exists()


def test_configs_without_names_copies_all(tmp_path) -> None:
    assert main(["configs", "--out", str(tmp_path)]) == 0
    assert len(list(tmp_path.iterdir())) == len({Path(name).name for name in NAMES})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lop", "--out", "{out}"], "no file 'lop' comes with splatfix; did you mean loop?"),
        (["loop"], "wanted --out DIR"),
    ],
)
def test_a_wrong_name_is_one_line(words, said, tmp_path, capsys) -> None:
    assert main(["configs", *(word.format(out=tmp_path / "out") for word in words)]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_wheel_has_the_files_and_finds_them(tmp_path, monkeypatch) -> None:
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "sample", "weights", "shipped")
    shutil.copytree(ROOT / "splatfix", source / "splatfix", ignore=ignored)
    for name in ("configs", "jobs"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-c", "from setuptools import build_meta as b, sys; print(b.build_wheel(sys.argv[1]))"]
    done = subprocess.run([*build, str(tmp_path)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    package = tmp_path / "installed" / "splatfix"
    assert sorted(p.relative_to(package / "shipped").as_posix() for p in package.rglob("shipped/*/*")) == NAMES
    monkeypatch.setattr(shipped_files, "__file__", str(package / "shipped_files.py"))
    assert [file.name for file in shipped_files.shipped_files()] == NAMES
    assert all(file.path.is_relative_to(package) for file in shipped_files.shipped_files())


def test_a_reader_that_closes_the_output_ends_the_command_in_silence() -> None:
    """As ``splatfix configs | head -1``."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "splatfix", "configs"]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, cwd=ROOT, text=True, timeout=120)
    os.close(write_end)
    assert done.returncode == 141 and done.stderr == ""
