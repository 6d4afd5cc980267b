"""Scripts and images of cluster/ pass shellcheck and hadolint, and every command line in it and on its page parses."""

from __future__ import annotations

import dataclasses
import functools
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import splatfix.cli  # noqa: F401 - registers the commands
from splatfix.command_line import COMMANDS, run_command
from tests.cluster_files.checks import CLUSTER, ROOT, documents, yaml_files

BIN = Path(sys.executable).parent
SCRIPTS = sorted([*CLUSTER.rglob("*.sh"), *CLUSTER.rglob("*.sbatch")])
PAGES = [ROOT / "docs" / "cluster.md", CLUSTER / "README.md"]


def tool(name: str) -> str:
    """A checker of the extra ``dev``; skips where it is missing."""
    found = shutil.which(name, path=str(BIN)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def shell_of_yaml() -> Iterator[tuple[Path, str]]:
    """Shell code inside YAML files."""
    for path in yaml_files():
        for document in documents(path):
            if path.parent.name == "skypilot":
                yield path, document["run"]
            for service in (document.get("services") or {}).values() if path.name == "compose.yaml" else ():
                if "sh" in service.get("entrypoint", service.get("command", [])):
                    yield path, service["command"][-1].replace("$$", "$")


LONG = CLUSTER / "local.sh"  # takes seconds


@pytest.mark.parametrize("only_long", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_scripts_pass_shellcheck(only_long: bool) -> None:
    chosen = [str(path) for path in SCRIPTS if (path == LONG) == only_long]
    done = subprocess.run([tool("shellcheck"), *chosen], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert all(path.stat().st_mode & 0o111 for path in SCRIPTS if path.suffix == ".sh")


def test_shell_in_yaml_passes_shellcheck() -> None:
    found = list(shell_of_yaml())
    assert len(found) >= 5
    command = [tool("shellcheck"), "--shell=bash", "--exclude=SC2030,SC2031", "-"]  # each is a separate program
    code = "\n".join(f"( # {path.name}\n{code})" for path, code in found)
    done = subprocess.run(command, input=code, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_mistake_in_a_script_is_found(tmp_path: Path) -> None:
    path = tmp_path / "wrong.sh"
    path.write_text((CLUSTER / "ray_node.sh").read_text().replace('"$verb" in', '"$verb" on', 1))
    assert subprocess.run([tool("shellcheck"), str(path)], capture_output=True).returncode != 0


IMAGES = [ROOT / "Dockerfile", *sorted(CLUSTER.rglob("Dockerfile"))]


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.parent.name if path.parent != ROOT else "laptop")
def test_images_pass_hadolint(path: Path, tmp_path: Path) -> None:
    command = [tool("hadolint"), "--ignore=DL3013", "--no-color"]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    text = path.read_text()
    assert re.search(r"^USER 1000$", text, re.MULTILINE), "jobs do not run as root"
    wrong = tmp_path / "Dockerfile"
    wrong.write_text(text.replace("WORKDIR /", "WORKDIR "))
    assert subprocess.run([*command, str(wrong)], capture_output=True).returncode != 0


def test_the_image_gets_every_file_that_it_copies() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for path in IMAGES:
        for line in re.findall(r"^COPY (.*) \S+$", path.read_text(), re.MULTILINE):
            for name in line.split():
                is_sent = name in kept or any(name.startswith(f"{each}/") for each in kept)
                assert is_sent and (ROOT / name).exists(), name


def logical_lines(text: str) -> list[str]:
    """The lines of shell code; continued lines are joined, and comments are cut off."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [re.sub(r"(^|\s)#.*", "", line).strip() for line in lines]


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Lines that run splatfix, in pages, scripts and YAML files of cluster/: where, and the arguments."""
    found: list[tuple[str, str]] = []
    for page in PAGES:
        blocks = re.findall(r"^ *```(?:bash|sh)\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL)
        found += [(page.name, line) for block in blocks for line in logical_lines(block)]
    for path in yaml_files():
        for document in documents(path):
            entry = (document.get("spec") or {}).get("entrypoint") if isinstance(document, dict) else None
            code = [entry] if entry else [document["run"]] if path.parent.name == "skypilot" else []
            found += [(str(path.relative_to(ROOT)), line) for each in code for line in logical_lines(each)]
    for where, line in found:
        match = re.search(r"(?:\bpython\d? \S*jobs/(\w+)\.py|(?<![\w./-])splatfix (\w+))(.*)", line)
        if match is None or (match[2] == "submit" and "--" not in match[3]):
            continue
        rest = re.sub(r"\$\(\(.*?\)\)", "4", match[3])
        yield where, [match[1] or match[2], *shlex.split(rest.split(" | ")[0].split(" && ")[0])]


def nothing_stored(out: str, command: str) -> None:
    """Settings of an earlier run: none, without looking."""


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Commands that only record what they are called with."""
    seen: list[tuple[str, dict[str, Any]]] = []
    for name, command in list(COMMANDS.items()):

        def record(*_: Any, _name: str = name, **given: Any) -> None:
            seen.append((_name, given))

        replaced = functools.wraps(command.function)(record)
        stored = f"{__name__}:nothing_stored"
        monkeypatch.setitem(COMMANDS, name, dataclasses.replace(command, function=replaced, stored=stored))
    return seen


def test_every_command_line_parses(parsed: list[tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    lines = list(command_lines())
    assert {argv[0] for _, argv in lines} >= {"generate", "train", "sweep", "compare"}
    for where, argv in lines:
        at_home = [re.sub(r"^/opt/splatfix/", "", word) for word in argv]
        at_home = [re.sub(r"^\$SKYPILOT_NUM_NODES$", "4", word) for word in at_home]
        try:
            run_command(COMMANDS[at_home[0]], at_home[1:])
        except (ValueError, SystemExit, KeyError) as error:
            pytest.fail(f"{where}: {shlex.join(argv)}: {error}")
    assert len(parsed) == len(lines)


def test_a_misspelt_flag_does_not_parse(parsed: list[tuple[str, dict[str, Any]]]) -> None:
    with pytest.raises((SystemExit, ValueError)):
        run_command(COMMANDS["generate"], ["s3://b/captures", "--out", "s3://b/pairs", "--worker.num", "2"])
    assert parsed == []


def test_files_that_are_named_exist() -> None:
    for path in [*SCRIPTS, *yaml_files(), *CLUSTER.rglob("Dockerfile")]:
        text = path.read_text().replace("/opt/splatfix/", "")
        names = re.findall(r"(?<![\w/.-])((?:configs|jobs|cluster|dashboards|docs)/[\w./-]+\.\w+)", text)
        assert [name for name in names if not (ROOT / name).exists()] == [], path


def test_configs_of_a_cluster_fit_their_files() -> None:
    """The GPUs that a config asks for are those that the node groups have at most."""
    spec = yaml.safe_load((CLUSTER / "kuberay" / "generate.yaml").read_text())["spec"]["rayClusterSpec"]
    (group,) = spec["workerGroupSpecs"]
    node = group["template"]["spec"]["containers"][0]["resources"]["requests"]
    for kind in ("generate", "sweep", "compare", "train"):
        workers = yaml.safe_load((ROOT / "configs" / f"{kind}_cluster.yaml").read_text())["workers"]
        each = int(node["nvidia.com/gpu"] / workers["gpus"])
        assert workers["num"] == each * group["maxReplicas"], kind
        assert each * workers["cpus"] <= int(node["cpu"]), f"{kind}: cores of a node"
