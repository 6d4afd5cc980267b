"""The core works without the packages of the extras; what needs one says in one line which extra to install."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import splatfix
from splatfix import extras
from splatfix.extras import EXTRAS, MissingPackageError, explain_missing, install_line, require_modules
from splatfix.sample import sample_path
from tests.without_packages import FinderWithout

ROOT = Path(splatfix.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = {module for extra in EXTRAS.values() for module in extra.packages}
SMALL = ["--views.size-px", "32", "--fit.steps", "5", "--device", "cpu"]
SHORT = ["--repair.rounds", "1", "--repair.views", "2", "--repair.steps", "3"]
NEEDING = {  # by extra
    "viewer": ["view {run}/after.ply", "export {run}/after.ply --format html"],
    "train": ["generate {sample} --out {out} --workers.num 0", "train --shards {out} --out {out}"],
    "sweep": ["sweep --captures {sample} --out {out} --workers.num 0"],
    "cluster": [
        "submit list --address http://localhost:1",
        "doctor --cluster",
        "verify s3://bucket/pairs",
        "fit {sample} --out s3://bucket/run",
        "loop s3://bucket/capture --out {out}",
        "compare {sample} --restorers identity --out {out} --workers.num 2",
    ],
    "diffusion": ["evaluate {sample} {run}/after.ply --split {run}/split.json --out {out} --restorer img2img"],
}


def run_core(*arguments: str, without: str = ",".join(sorted(MODULES))) -> subprocess.CompletedProcess[str]:
    """Run splatfix without the packages of all extras."""
    command = [sys.executable, "-m", "tests.without_packages", without, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def core_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a loop that ran without the packages of all extras, with the default restorer."""
    out = tmp_path_factory.mktemp("core") / "run"
    done = run_core("loop", str(sample_path()), "--out", str(out), *SMALL, *SHORT, "--no-video")
    assert done.returncode == 0, done.stderr
    return out


def test_the_extras_are_those_of_pyproject() -> None:
    declared = {
        name: sorted(re.split(r"[\[<>=]", requirement)[0] for requirement in requirements)
        for name, requirements in PROJECT["optional-dependencies"].items()
        if name not in ("all", "docs", "dev")
    }
    assert declared == {name: sorted(extra.packages.values()) for name, extra in EXTRAS.items()}
    [everything] = PROJECT["optional-dependencies"]["all"]
    assert everything == f"splatfix[{','.join(sorted(EXTRAS))}]"


def test_no_package_of_an_extra_is_a_dependency_of_the_core() -> None:
    core = {re.split(r"[\[<>=]", requirement)[0] for requirement in PROJECT["dependencies"]}
    assert not core & {package for extra in EXTRAS.values() for package in extra.packages.values()}


def test_the_finder_hides_packages_and_nothing_else() -> None:
    finder = FinderWithout(["json"])
    assert finder.find_spec("json") is None and finder.find_spec("json.decoder") is None
    assert finder.find_spec("csv") is not None


@pytest.mark.parametrize(("is_clone", "line"), [(True, "pip install -e '.[heic]'"), (False, "'splatfix[heic]'")])
def test_the_line_fits_a_clone_and_a_wheel(is_clone, line, tmp_path, monkeypatch) -> None:
    (tmp_path / "splatfix").mkdir()
    if is_clone:
        (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "splatfix" / "extras.py"))
    assert install_line("heic").endswith(line)


def test_other_failed_imports_are_not_explained(monkeypatch) -> None:
    assert explain_missing(ModuleNotFoundError("No module named 'x'", name="x"), "splatfix") is None
    assert explain_missing(ValueError("x"), "splatfix") is None
    monkeypatch.setattr(extras, "find_spec", lambda _: object())
    assert explain_missing(ModuleNotFoundError("No module named 'ray.x'", name="ray.x"), "splatfix") is None
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    error = ModuleNotFoundError("No module named 'ray.x'", name="ray.x")
    assert "splatfix fit needs it: " + install_line("cluster") in str(explain_missing(error, "splatfix fit"))
    with pytest.raises(MissingPackageError, match=r"scikit-learn is not installed, and this needs it: .*\(or not\)"):
        require_modules("sklearn", otherwise="or not")


def test_packages_of_extras_are_imported_where_they_are_used() -> None:
    """No module that a command of the core imports may import one at its top: help and settings do without."""
    homes = {"sweep/analysis.py", "sweep/proposals.py", "sweep/ray_tune.py"}
    homes |= {"training/layout.py", "training/learner.py", "training/train.py", "training/trackers.py"}
    found = set()
    for path in (ROOT / "splatfix").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if {name.partition(".")[0] for name in names} & MODULES:
                found.add(path.relative_to(ROOT / "splatfix").as_posix())
    assert {name for name in found if not name.startswith("restoration/flux/")} == homes


@pytest.mark.slow
def test_doctor_lists_each_extra_with_the_line_that_installs_it() -> None:
    said = run_core("doctor")
    assert said.returncode == 0, said.stderr
    for name, extra in EXTRAS.items():
        assert re.search(rf"-- +extra {name} +not installed: {', '.join(extra.packages.values())}\n", said.stdout)
        assert f"-> {install_line(name)} ({extra.serves})" in said.stdout
    without_ray = run_core("doctor", without="ray").stdout
    assert re.search(r"-- +extra cluster +not installed: ray\n", without_ray)
    assert re.search(r"ok +extra train +accelerate \d", without_ray)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["loop", "fit", "generate", "train", "sweep", "compare", "submit", "view", "sync"])
def test_every_command_explains_itself_in_the_core(name: str) -> None:
    done = run_core(name, "--help-all")
    assert done.returncode == 0 and f"usage: splatfix {name}" in done.stdout, done.stderr


@pytest.mark.slow
def test_the_core_fits_repairs_measures_and_masks(core_run: Path, tmp_path: Path) -> None:
    splat, split = str(core_run / "after.ply"), str(core_run / "split.json")
    measure = ["evaluate", str(sample_path()), splat, "--split", split, "--out", str(tmp_path / "measured")]
    for arguments in (
        ["fit", str(sample_path()), "--out", str(tmp_path / "fit"), *SMALL],
        ["report", str(core_run)],
        measure,
        ["export", splat, "--format", "compressed-ply", "--out", str(tmp_path / "small.compressed.ply")],
        ["mask", str(sample_path() / "images" / "frame_00001.jpg"), "--out", str(tmp_path / "masks")],
    ):
        done = run_core(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize(("extra", "line"), [(extra, line) for extra, lines in NEEDING.items() for line in lines])
def test_what_needs_an_extra_names_it_in_one_line(extra: str, line: str, core_run: Path, tmp_path: Path) -> None:
    done = run_core(*line.format(sample=sample_path(), run=core_run, out=tmp_path / "out").split())
    *_, last = done.stderr.replace("\r", "\n").strip().splitlines()
    assert done.returncode == 2, done.stderr
    assert "is not installed, and " in last and install_line(extra) in last
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_sync_without_mlflow_names_the_extra(tmp_path: Path) -> None:
    """A comparison in the core keeps its records, and says how to send them."""
    out = tmp_path / "out"
    small = ["--loop.views.size-px", "32", "--loop.fit.steps", "5", "--loop.repair.views", "2"]
    small += ["--loop.repair.rounds", "1", "--loop.repair.steps", "3", "--loop.device", "cpu", "--path-frames", "2"]
    compared = run_core(
        "compare", str(sample_path()), "--restorers", "identity", "--out", str(out), *small, "--workers.num", "0"
    )
    assert compared.returncode == 0, compared.stderr
    assert f"records are kept; for MLflow, {install_line('tracking')}, then `splatfix sync {out}`" in compared.stderr
    done = run_core("sync", str(out))
    assert done.returncode == 2 and install_line("tracking") in done.stderr
