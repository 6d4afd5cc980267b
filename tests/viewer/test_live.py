"""Watching a run while it trains."""

import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from splatfix.files import write_json
from splatfix.loop.repaired_views import RepairedView
from splatfix.runs import RECORD
from splatfix.splats.checkpoints import write_checkpoint
from splatfix.splats.densify import DensifyConfig
from splatfix.splats.train import Fit, FitConfig
from splatfix.viewer import RunWatcher, Viewer, ViewerScene, wait_for_run
from splatfix.viewer import live as lives
from tests.viewer.scenes import a_camera, some_gaussians


def save(folder, name, *, step, seed=0):
    config = FitConfig(densify=DensifyConfig(strategy="none"))
    fit = Fit(some_gaussians(seed=seed), config, scene_scale=1.0, num_photos=1)
    fit.step, fit.seconds = step, step / 10
    fit.save(folder / "checkpoints" / f"{name}.pt", "a fit")


def begin(folder, **more):
    settings = {"fit": {"mode": "antialiased"}}
    write_json(folder / RECORD, {"command": "loop", "inputs": {}, "files": [], "settings": settings, **more})
    write_json(folder / "split.json", {"train_ids": ["0.jpg"], "test_ids": ["1.jpg"], "size_px": 64})


def test_saved_states_are_read_as_they_come(tmp_path):
    begin(tmp_path)
    watcher = RunWatcher(tmp_path, background=(1.0, 1.0, 1.0))
    assert watcher.poll() == [] and watcher.newest is None
    assert "no state saved yet; a run saves one every checkpoint_seconds" in watcher.describe(time.time())
    save(tmp_path, "before", step=250)
    assert watcher.poll() == ["before"] and watcher.poll() == []
    said = watcher.describe(watcher.saved_at["before"] + 12)
    assert said == "before: step 250 after 25 s of training; saved 12 s ago"
    assert watcher.saved["before"].splat.mode == "antialiased"
    assert watcher.saved["before"].splat.background == (1.0, 1.0, 1.0)
    save(tmp_path, "before", step=500, seed=1)
    assert watcher.poll() == ["before"] and watcher.saved["before"].step == 500
    torch.testing.assert_close(watcher.saved["before"].splat.gaussians.means, some_gaussians(seed=1).means)
    for name in ("round_1", "control", "sibling_1"):
        save(tmp_path, name, step=600)
    assert watcher.poll() == ["control", "round 1", "sibling 1"]
    assert list(watcher.saved) == ["before", "control", "sibling 1", "round 1"]
    assert watcher.newest == "sibling 1"
    begin(tmp_path, finished="2026-01-01T00:00:00+00:00")
    watcher.poll()
    assert watcher.describe(time.time()).endswith("the run is finished")


def test_a_checkpoint_that_cannot_be_read_is_left_for_later(tmp_path, caplog):
    begin(tmp_path)
    watcher = RunWatcher(tmp_path)
    save(tmp_path, "before", step=250)
    whole = (tmp_path / "checkpoints" / "before.pt").read_bytes()
    (tmp_path / "checkpoints" / "before.pt").write_bytes(whole[:1000])
    (tmp_path / "checkpoints" / ".before.pt.0a-1-2.partial").write_bytes(whole[:1000])  # being written
    assert watcher.poll() == [] and "damaged checkpoint" in caplog.text
    (tmp_path / "checkpoints" / "before.pt").write_bytes(whole)
    assert watcher.poll() == ["before"]


def test_reading_meets_no_half_of_a_checkpoint(tmp_path, caplog):
    begin(tmp_path)
    watcher, is_done = RunWatcher(tmp_path), threading.Event()

    def train() -> None:
        try:
            for step in range(60):
                save(tmp_path, "before", step=step)
        finally:
            is_done.set()

    trainer = threading.Thread(target=train)
    trainer.start()
    num = 0
    while not is_done.is_set():
        num += len(watcher.poll())
    trainer.join()
    watcher.poll()
    assert num >= 2 and watcher.saved["before"].step == 59
    assert not caplog.records


def test_repaired_views_of_a_running_loop_are_shown(tmp_path):
    begin(tmp_path)
    rgb = torch.full((48, 64, 3), 51, dtype=torch.uint8)
    views = [RepairedView(a_camera(f"novel_{k}", k), rgb, None) for k in range(3)]
    state = {"views": [view.to_state() for view in views], "seconds": 1.0}
    write_checkpoint(tmp_path / "checkpoints" / "views_2.pt", "a fit", state)
    watcher = RunWatcher(tmp_path)
    assert watcher.poll() == []
    assert [view.group for view in watcher.views] == ["repaired, round 2"] * 3
    assert watcher.views[0].load().mean() == pytest.approx(0.2)
    np.testing.assert_allclose(watcher.views[1].camera.center, a_camera("novel_1", 1).center)


def test_waiting_for_a_run_is_announced_once(tmp_path, monkeypatch):
    said: list[str] = []
    sleeps = iter([lambda: None, lambda: begin(tmp_path / "run")])
    monkeypatch.setattr(lives.time, "sleep", lambda _: next(sleeps)())
    wait_for_run(tmp_path / "run", said.append)
    assert len(said) == 1 and "nothing there yet" in said[0]


def test_the_page_follows_the_newest_state(tmp_path, monkeypatch):
    pytest.importorskip("viser")
    from splatfix.viewer import server as servers
    from tests.viewer.browser import Browser

    monkeypatch.setattr(servers, "POLL_SECONDS", 0.05)
    begin(tmp_path)
    watcher = RunWatcher(tmp_path)
    shown = Viewer(ViewerScene("a run", {}), port=8845, watcher=watcher)
    try:
        with Browser(shown.server.get_port()) as browser:
            browser.wait_for(lambda: browser.says("no state saved yet"))
            assert "/splat" not in browser.nodes
            save(tmp_path, "before", step=250)
            browser.wait_for(lambda: browser.says("before: step 250 after 25 s of training"))
            before = browser.colors()
            assert browser.control("splat")["options"] == ["(newest)", "before"]
            save(tmp_path, "round_1", step=300, seed=5)
            browser.wait_for(lambda: not np.array_equal(browser.colors(), before))
            browser.wait_for(lambda: browser.says("round 1: step 300"))
            with Browser(shown.server.get_port()) as late:
                late.wait_for(lambda: np.array_equal(late.colors(), browser.colors()))
                assert late.control("splat")["value"] == "(newest)"
                assert late.says("trained on with the repaired views of this round")
            browser.press("1")
            browser.wait_for(lambda: np.array_equal(browser.colors(), before))
            browser.press("M")
            browser.wait_for(lambda: browser.says("|before - round 1|"))
    finally:
        shown.stop()


@pytest.mark.slow
def test_the_command_waits_follows_and_ends_cleanly(tmp_path):
    pytest.importorskip("viser")
    run = tmp_path / "run"
    command = [sys.executable, "-m", "splatfix", "view", str(run), "--live", "--port", "8865"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        assert "nothing there yet; waiting" in process.stdout.readline()
        begin(run)
        save(run, "before", step=250)
        lines = []
        while not any("before: step 250" in line for line in lines):
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        assert any("its saved states at http://localhost:" in line for line in lines)
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=30)[0]
    assert process.returncode == 0 and "stopped" in rest and "Traceback" not in rest
