"""A dry run: what a loop or a fit would take, without writing anything."""

import re

import pytest

from splatfix.cli import main
from splatfix.loop import LoopConfig
from splatfix.loop.estimate import RunEstimate, estimate_run
from splatfix.sample import sample_path
from splatfix.splats.train import FitConfig
from splatfix.stages import STEP, Stage
from splatfix.views import ViewsConfig

SMALL = (
    "--views.size-px",
    "32",
    "--views.max-test",
    "2",
    "--fit.steps",
    "20",
    "--repair.steps",
    "5",
    "--repair.views",
    "2",
)


def test_a_dry_run_names_stages_time_memory_and_disk_and_writes_nothing(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["loop", str(sample_path()), "--out", str(out), "--restorer", "identity", *SMALL, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "tankard: 36 photos at 32 x 32 px, 6 to fit from, 2 to test on; on " in said
    assert "1. the sparse fit, 20 steps" in said and "9. the video" in said
    assert re.search(r"^time: about .* \(.* to .*\)$", said, re.MULTILINE)
    assert re.search(r"^memory: about [\d.]+ [MG]B; disk: about [\d.]+ [kMG]B$", said, re.MULTILINE)
    assert "an estimate" in said and not out.exists()


def test_more_steps_take_longer():
    views = ViewsConfig(size_px=32, max_test=2)
    short, long = (
        estimate_run(sample_path(), LoopConfig(restorer="identity", views=views, fit=FitConfig(steps=steps)))
        for steps in (100, 100_000)
    )
    assert long.seconds > 10 * short.seconds
    assert short.memory_bytes > 1e8 and short.disk_bytes > 1e4


def test_photos_without_cameras_are_posed_first(tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "b.jpg").write_bytes(b"")
    (tmp_path / "c.jpg").write_bytes(b"")
    assert main(["fit", str(tmp_path), "--out", str(tmp_path / "run"), "--dry-run"]) == 2
    assert (
        f"3 photos without cameras, which take time of their own; run splatfix pose {tmp_path}"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("grows", [False, True])
def test_what_slows_a_run_down_is_said(grows):
    estimate = RunEstimate("x", ((Stage("fit", "the fit", {STEP: 1}), 100.0),), 45.0, 2e9, 3e6, 4.0, grows)
    text = estimate.text()
    assert "time: about 2 min (" in text and "-  compiling kernels, once" in text
    assert ("Gaussians are added, which slows later steps" in text) == grows
    assert ("(85 s to 8 min" if grows else "(85 s to 4 min)") in text
