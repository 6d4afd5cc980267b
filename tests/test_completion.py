"""Shells complete commands, flags, choices and file names."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("shtab", reason="install the dependencies of pyproject.toml: make setup")

from splatfix.cli import main
from splatfix.command_line import COMMANDS
from splatfix.completion import SHELLS

COMPLETE = """
source "$1"
function_=$(complete -p splatfix | sed 's/.*-F \\([^ ]*\\).*/\\1/')
shift
COMP_WORDS=(splatfix "$@")
COMP_CWORD=$#
"$function_" splatfix "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "splatfix.bash"
    path.write_text(written("bash"))
    return path


def written(shell: str) -> str:
    from contextlib import redirect_stdout
    from io import StringIO

    out = StringIO()
    with redirect_stdout(out):
        assert main(["completion", shell]) == 0
    return out.getvalue()


def complete(script: Path, line: str, folder: Path) -> list[str]:
    """What bash offers for the last word of a line; an empty word after a space."""
    words = [*shlex.split(line)[1:], *([""] if line.endswith(" ") else [])]
    command = ["bash", "--norc", "-c", COMPLETE, "bash", str(script), *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert not done.stderr, done.stderr
    return sorted(set(done.stdout.split()))


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("splatfix ex", ["export"]),
        ("splatfix loop --fit.st", ["--fit.steps"]),
        ("splatfix loop --no-vid", ["--no-video"]),
        ("splatfix fit --fre", ["--fresh"]),
        ("splatfix fit --config conf", ["config.yaml"]),
        ("splatfix fit --config=conf", []),
        ("splatfix loop cap", ["captures"]),
        ("splatfix export x --format s", ["sog", "splat", "spz"]),
        ("splatfix completion ", ["bash", "fish", "zsh"]),
        ("splatfix fit --fit.steps ", []),
    ],
)
def test_bash_completes(script, line, offered, tmp_path) -> None:
    (tmp_path / "config.yaml").touch()
    (tmp_path / "captures").mkdir()
    assert complete(script, line, tmp_path) == offered


def test_bash_offers_all_commands(script, tmp_path) -> None:
    assert complete(script, "splatfix ", tmp_path) == sorted(COMMANDS)


@pytest.mark.parametrize("shell", SHELLS)
def test_each_script_knows_the_commands_and_its_shell_reads_it(shell, tmp_path) -> None:
    text = written(shell)
    assert all(name in text for name in COMMANDS) and "fit.steps" in text
    path = tmp_path / "script"
    path.write_text(text)
    if shutil.which(shell):
        assert subprocess.run([shell, "-n", str(path)], capture_output=True).returncode == 0
