"""The end of a sweep waits for MLflow by one deadline."""

from __future__ import annotations

import threading
import time

from splatfix.sweep import mlflow_runs
from splatfix.sweep.mlflow_runs import SweepTracker
from splatfix.tracking import TrackingConfig, end_status, is_sent, open_tracker
from splatfix.tracking import tracker as tracker_module
from tests.sweep.small import small


def test_a_server_that_hangs_delays_the_end_of_a_sweep_once(tmp_path, monkeypatch, caplog) -> None:
    caplog.set_level("INFO", "splatfix")
    monkeypatch.setattr(tracker_module, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr(mlflow_runs, "WAIT_SECONDS", 0.5)
    monkeypatch.setattr(mlflow_runs, "CALL_SECONDS", 0.5)
    ended = threading.Event()
    monkeypatch.setattr(tracker_module.Sender, "send", lambda *_, **__: ended.wait(60))  # a call that does not return
    start = time.monotonic()
    with SweepTracker(small(tracking={"enabled": True}), tmp_path) as tracker:
        for number in range(5):
            child = open_tracker(tmp_path / "trials" / str(number), TrackingConfig(), parent="parent")
            tracker._running[number] = child
    assert time.monotonic() - start < 15  # for all of them together
    assert end_status(tmp_path) == "FINISHED" and end_status(tmp_path / "trials" / "4") == "KILLED"
    assert not is_sent(tmp_path)
    sending, parent, trials = caplog.messages
    assert sending == "tracking: sending the remaining records to MLflow, up to 0 s"
    assert parent.endswith(f"records were not sent; `splatfix sync {tmp_path}` sends them")
    assert trials.startswith("tracking: 5 trials are not sent (there was no answer in time); `splatfix sync ")
    ended.set()


def test_what_earlier_processes_left_is_not_sent_without_end(tmp_path, monkeypatch, caplog) -> None:
    sent = []

    def send(folder, _uri, stopped) -> int:
        sent.append(folder.name)
        assert not stopped()
        monkeypatch.setattr(mlflow_runs.time, "monotonic", lambda: float("inf"))
        assert stopped()
        return 1

    monkeypatch.setattr(mlflow_runs, "is_sent", lambda _folder: False)
    monkeypatch.setattr(mlflow_runs, "send_unsent", send)
    tracker = SweepTracker(small(tracking={"enabled": False}), tmp_path)
    for name in "abc":
        (tmp_path / "trials" / name).mkdir(parents=True)
    tracker._send_unsent(True, time.monotonic() + 60)
    assert sent == ["a"]
    assert caplog.messages[0].startswith("tracking: 3 trials are not sent (there was no answer in time); ")
