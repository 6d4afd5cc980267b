"""What ``python -m tests.gpu.run --out DIR`` says and writes on a machine without CUDA, and its sections on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from tests.gpu import run, sections
from tests.gpu.fits import measure_fit, resume_fit, run_fits_side_by_side
from tests.gpu.report import format_report
from tests.gpu.sections import SECTIONS, Report

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="make gpu-run runs it in full")


@without_cuda
@pytest.mark.slow
def test_without_cuda_each_section_says_what_it_would_do_and_what_it_lacks(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.gpu.run", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    found = {section["name"]: section for section in results["sections"]}
    assert list(found) == list(SECTIONS)
    for name, section in SECTIONS.items():
        assert found[name]["does"] == section.does
        if section.needs_cuda:
            assert found[name]["state"] == "skipped" and "lacks a CUDA device" in found[name]["reason"]
            assert f"{name}: {section.does}\n  skipped lacks a CUDA device" in done.stdout
        else:
            assert found[name]["state"] == "done" and found[name]["rows"]
    assert found["metrics"]["checks"] == {"the same metrics on both devices": "passed"}
    assert "obstacle" in [row["what"] for row in found["environment"]["rows"]]
    report = subprocess.run(
        [sys.executable, "-m", "tests.gpu.report", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert report.returncode == 0 and "### fits" in report.stdout and "| what | value |" in report.stdout


@pytest.mark.slow
def test_what_a_stopped_section_has_found_is_kept(tmp_path: Path, monkeypatch) -> None:
    """A section that takes too long, one that breaks, and no time for the last one."""
    (tmp_path / "slow.py").write_text(
        "import sys, time\nfrom pathlib import Path\nfrom tests.gpu.sections import Report\n"
        "Report(Path(sys.argv[1])).row(steps=3)\n"
        "sys.exit(3) if 'broken' in sys.argv[1] else time.sleep(60)\n"
    )

    class Popen(subprocess.Popen):
        def __init__(self, command, **more):
            if "--section" not in command:
                super().__init__(command, **more)
                return
            place = command[command.index("--out") + 1] + "/" + command[command.index("--section") + 1] + ".json"
            super().__init__([sys.executable, str(tmp_path / "slow.py"), place], cwd=ROOT, **more)

    monkeypatch.setattr(run.subprocess, "Popen", Popen)
    monkeypatch.setattr(run, "LEAST_SECONDS", 0.0)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    section = sections.Section(does="nothing", run=lambda *_: None, needs_cuda=False, seconds=20)
    monkeypatch.setattr(sections, "SECTIONS", {"broken": section, "slow": section, "late": section})
    assert run.run_sections(tmp_path / "out", 14, "cpu", []) == 1
    found = {each["name"]: each for each in json.loads((tmp_path / "out/results.json").read_text())["sections"]}
    assert found["broken"]["state"] == "failed" and found["broken"]["rows"] == [{"steps": 3}]
    assert found["slow"]["state"] == "timed out" and found["slow"]["rows"] == [{"steps": 3}]
    assert found["late"]["state"] == "timed out" or found["late"]["state"] == "not started"


def test_a_failed_check_is_recorded_and_the_next_one_runs(tmp_path: Path) -> None:
    report = Report(tmp_path / "found.json")

    def fail() -> None:
        raise AssertionError("gradient of means: relative error 0.2")

    report.check("gradients", fail)
    report.check("images", lambda: None)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["checks"] == {
        "gradients": "failed: AssertionError: gradient of means: relative error 0.2",
        "images": "passed",
    }
    section = {"name": "parity", "does": "compares", "state": "done", **found}
    text = format_report({"device": "cuda", "device_name": "H100", "torch": "2.11", "sections": [section]})
    assert "1 of 2 checks passed." in text and "- gradients: failed: AssertionError" in text


@pytest.mark.parametrize("strategy", ["none", "default"])
def test_a_fit_is_timed_and_compared_with_itself(strategy: str) -> None:
    pytest.importorskip("gsplat")
    found = measure_fit("cpu", size_px=48, strategy=strategy, num_gaussians=300)
    assert found["steps_per_second"] > 0 and 0 < found["host_ms"] <= found["step_ms"]
    assert found["spread_db"] == 0  # on the CPU, each run is the same
    assert found["psnr_db"] > found["start_db"] + 1
    assert "%" in found["kernels"] and found["plain_gsplat_ms"] is None


@pytest.mark.slow
def test_a_resumed_fit_equals_a_whole_one_on_the_cpu() -> None:
    found = resume_fit("cpu", strategy="none", size_px=48, num_gaussians=300)
    assert found["resumed_db"] == found["whole_db"] and found["spread_db"] == 0


@pytest.mark.slow
def test_stereo_is_timed_and_compared_with_the_cpu_kernels(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sections, "STEREO_PX", ((96, 72),))
    report = Report(tmp_path / "found.json")
    sections.measure_stereo(report, "cpu")
    matches, depths = report.rows
    assert matches["matched"] > 0.5 and matches["pairs_differ"] < 2e-3
    assert depths["matched"] > 0.5 and depths["seconds"] > 0 and depths["cpu_seconds"] > 0
    assert report.checks == {"the same depths on both devices, 96 x 72": "passed"}


@pytest.mark.slow
def test_fits_run_side_by_side(monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert run_fits_side_by_side(2, "cpu", seconds=0.5) > 0


def test_carried_wheels_are_unpacked_where_they_are_missing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("gpu_wheels").mkdir()
    for name in ("carried_package", "numpy"):
        with zipfile.ZipFile(f"gpu_wheels/{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/__init__.py", "VALUE = 3")
    run.unpack_wheels(tmp_path / "out" / "packages")
    import carried_package  # type: ignore[import-not-found]

    assert carried_package.VALUE == 3
    assert not (tmp_path / "out" / "packages" / "numpy").exists()


def test_fits_are_timed_beside_both_losses(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sections, "SIZES_PX", (24,))
    monkeypatch.setattr(sections, "STRATEGIES", ("none",))
    monkeypatch.setattr(sections, "measure_fit", lambda device, **case: {"device": device, **case})
    report = Report(tmp_path / "fits.json")
    sections.measure_fits(report, "cpu")
    loss, fit = json.loads((tmp_path / "fits.json").read_text())["rows"]
    assert loss["size_px"] == 24 and loss["loss_ms"] > 0 and loss["torch_loss_ms"] > 0 and not loss["with_torch"]
    assert fit == {"device": "cpu", "size_px": 24, "strategy": "none"}
