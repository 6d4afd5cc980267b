"""The documentation is true: code of the Python API runs, and commands, files and names that pages mention exist."""

import ast
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import splatfix

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> set[str]:
    """The commands of splatfix that a page names, in shell blocks and in inline code."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = [line.split("#")[0] for block in blocks(page, "bash") for line in block.splitlines()]
    return set(re.findall(r"\bsplatfix ([a-z]+)\b", "\n".join([*lines, *re.findall(r"`([^`]+)`", prose)])))


def test_code_of_the_python_api_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = blocks(ROOT / "docs/python-api.md", "python")
    assert len(code) >= 5
    names: dict = {}
    for block in code:
        exec(compile(block, "docs/python-api.md", "exec"), names)
    assert "tankard 36 photos" in capsys.readouterr().out
    loop = (tmp_path / "run/after.ply").read_bytes()
    assert (tmp_path / "after.ply").read_bytes() == loop, "the functions and run_loop give the same splat"


def test_python_api_page_lists_every_name():
    text = (ROOT / "docs/python-api.md").read_text()
    assert not [name for name in splatfix.__all__ if f"`{name}" not in text]


def test_stub_declares_every_name():
    tree = ast.parse((ROOT / "splatfix/__init__.pyi").read_text())
    imported = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(splatfix.__all__)


def test_every_name_of_the_api_is_found():
    assert all(getattr(splatfix, name) is not None for name in splatfix.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        splatfix.nothing  # noqa: B018


def test_import_is_fast():
    code = "import sys, splatfix; print(sorted({'torch', 'numba', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_exist(page):
    from splatfix.cli import COMMANDS

    assert commands(page) <= {*COMMANDS, "sync"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    folders = "configs|jobs|cluster|dashboards|tests|docs|splatfix"
    named = set(re.findall(rf"\b((?:{folders})/[\w./-]+\.\w+)", page.read_text()))
    assert not [name for name in named if not (ROOT / name).exists()]


def test_names_of_how_it_works_exist():
    text = (ROOT / "docs/how-it-works.md").read_text()
    rooms = "|".join(path.stem for path in (ROOT / "splatfix").iterdir() if not path.stem.startswith("_"))
    names = re.findall(rf"`((?:{rooms})(?:\.\w+)*)`", text)
    assert len(names) > 40
    for name in names:
        pkgutil.resolve_name(f"splatfix.{name}")


def test_tree_of_readme_names_every_room():
    tree = (ROOT / "README.md").read_text().split("## The tree")[1]
    rooms = [path.name for path in (ROOT / "splatfix").iterdir() if path.suffix in ("", ".py") and path.name[0] != "_"]
    assert not [name for name in rooms if name not in tree and name != "shapes.py"]


def test_readme_fits_on_a_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
