"""The documentation is true: code of the Python API runs, and commands, files and names that pages mention exist."""

import ast
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import splatfix.cli  # registers the commands
from splatfix.command_line import COMMANDS
from splatfix.flags import full_help, settings_flags

ROOT = Path(__file__).parent.parent
GLOBAL_FLAGS = {"--address", "--working-dir", "--nproc-per-node", "--backend-store-uri"}  # of ray, torchrun and mlflow
GLOBAL_FLAGS |= {
    "--build-arg",
    "--gpus-per-node",
    "--runtime-env-json",
    "--s3",
}  # docker, sbatch, ray, cluster/local.sh
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md")])


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def shell_lines(page: Path) -> list[str]:
    """The command lines of a page's shell blocks, without comments; continued lines are joined."""
    text = "\n".join(block for language in ("bash", "sh") for block in blocks(page, language))
    return [line.split("#")[0] for line in text.replace("\\\n", " ").splitlines()]


def inline_code(page: Path) -> list[str]:
    """The inline code of a page's prose."""
    prose = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`]+)`", prose)


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


@pytest.fixture(scope="module")
def flags() -> dict[str, set[str]]:
    """The flags of each command."""
    return {name: set(re.findall(r"--[\w.-]+", full_help(command))) for name, command in COMMANDS.items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_flags_of_a_page_exist(page, flags):
    unknown = []
    for line in [*shell_lines(page), *inline_code(page)]:
        named = re.search(r"(?:^|\s)(?:-m )?(?:splatfix |jobs/)([a-z]+)\b(.*)", line)
        known = {"--help", "--help-all"}
        if named is not None and named[1] not in flags:
            unknown.append(line)
        elif named is not None:
            known |= flags[named[1]]
            if named[1] == "submit":  # it passes on the flags of the command that it submits
                known |= flags.get(named[2].split()[0] if named[2].split() else "", set())
        elif line.startswith("--"):  # alone in a sentence: of any command
            known |= set().union(*flags.values())
        else:
            continue
        own = line if named is None else named[2]  # what is before it belongs to sbatch, ray or torchrun
        unknown += [flag for flag in re.findall(r"(?<!\S)--[\w.-]+", own) if flag not in known | GLOBAL_FLAGS]
    assert not unknown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_that_a_page_names_exist(page):
    settings = {flag.setting for command in COMMANDS.values() for flag in settings_flags(command)}
    groups = {name.split(".")[0] for name in settings if "." in name}
    named = {code for code in inline_code(page) if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", code)}
    if page.name == "how-it-works.md":  # it names modules, and some are called like a group
        return
    named -= {name for name in named if name.endswith((".json", ".jsonl", ".yaml", ".ply", ".db", ".html"))}
    unknown = {name for name in named if name.split(".")[0] in groups and name not in settings}
    assert not {name for name in unknown if not name.startswith("restorer.options.")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    folders = "configs|jobs|cluster|dashboards|tests|docs|splatfix"
    named = set(re.findall(rf"\b((?:{folders})/[\w./-]+\.\w+)", page.read_text().replace("/opt/splatfix/", "")))
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
