"""Tracking: every record arrives in MLflow once, even if the process, the disk or the server fails."""

from __future__ import annotations

import json
import logging
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from splatfix.cli import main
from splatfix.config import build_config
from splatfix.tracking import (
    JOURNAL,
    STATE,
    Tracker,
    TrackingConfig,
    end_status,
    finish_all,
    open_tracker,
    send_unsent,
)
from splatfix.tracking import tracker as tracker_module
from tests.conftest import Start
from tests.trickling import trickling_server
from tests.waiting import LONG_ENOUGH, all_runs, client, wait_for

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("tracker.FIRST_PAUSE_SECONDS", "tracker.GATHER_SECONDS", "journal.GATHER_SECONDS"):
        monkeypatch.setattr(f"splatfix.tracking.{name}", 0.1)


@pytest.fixture
def uri(mlflow_uri: str) -> str:
    return mlflow_uri


@pytest.fixture
def no_answer() -> Iterator[str]:
    """A URI where nobody listens, nor will while the test runs."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def only_run(uri: str) -> Any:
    (run,) = all_runs(uri)
    return run


def history(uri: str, key: str) -> list[tuple[int, float]]:
    """Steps and values of the only run's metric, with any that came twice."""
    run = only_run(uri).info.run_id
    return sorted((metric.step, metric.value) for metric in client(uri).get_metric_history(run, key))


def files(uri: str, folder: str | None = None) -> list[str]:
    return [entry.path for entry in client(uri).list_artifacts(only_run(uri).info.run_id, folder)]


def offset(folder: Path) -> int:
    return json.loads((folder / STATE).read_text())["offset"]


def done(tracker: Tracker, status: str = "FINISHED") -> bool:
    return tracker.finish(status, wait_seconds=LONG_ENOUGH)


def warnings(caplog) -> list[str]:
    return [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING]


def test_mlflow_has_the_run_with_all_its_records(tmp_path, caplog, capfd):
    folder = tmp_path / "a run"
    before = round(time.time() * 1000)
    with open_tracker(folder, TrackingConfig()) as tracker:
        tracker.params({"optimizer": {"name": "adam", "rate": 0.1, "betas": [0.9, 0.99]}, "seed": None})
        tracker.metrics({"loss": 1, "psnr": 20.5}, step=1)
        tracker.metrics({"loss": 0.5, "psnr": float("nan"), "ssim": float("-inf")}, step=2)
        tracker.metrics({"ssim": float("inf")}, step=3)
        tracker.tags({"host": "here"})
        (folder / "weights").mkdir()
        (folder / "weights" / "a.bin").write_bytes(b"a")
        tracker.artifact(folder / "weights")
        tracker.artifact(folder / "weights" / "a.bin", "best")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    run = only_run(uri)
    assert run.data.params == {
        "optimizer.name": "adam",
        "optimizer.rate": "0.1",
        "optimizer.betas": "[0.9, 0.99]",
        "seed": "None",
    }
    assert history(uri, "loss") == [(1, 1.0), (2, 0.5)] and history(uri, "psnr") == [(1, 20.5)]
    assert "ssim" not in run.data.metrics
    assert run.data.tags["host"] == "here" and run.data.tags["splatfix.key"] == tracker.key
    assert files(uri, "weights") == ["weights/a.bin"] and files(uri, "best") == ["best/a.bin"]
    assert (run.info.run_name, run.info.status) == ("a run", "FINISHED")
    assert before <= run.info.start_time <= run.info.end_time <= time.time() * 1000
    assert {entry.name for entry in folder.iterdir()} == {"weights", "mlflow.db", "mlartifacts", JOURNAL, STATE}
    assert warnings(caplog) == [] and "".join(capfd.readouterr()) == ""


def test_names_and_lengths_are_made_to_fit(tmp_path, uri, caplog):
    with open_tracker(tmp_path / "run", TrackingConfig(uri=uri)) as tracker:
        tracker.params({f"p{num}": num for num in range(150)} | {"text": "x" * 7000, "k" * 300: 1})
        tracker.metrics({f"view {num}/psnr@{num}": num for num in range(1500)}, step=0)
        tracker.metrics({"/a//b/../c": 1.0}, step=0)
        tracker.tags({"a#b": "x" * 9000})
    run = only_run(uri)
    assert len(run.data.params) == 152 and run.data.params["p149"] == "149"
    assert len(run.data.params["text"]) == 6000 and run.data.params["k" * 250] == "1"
    assert run.data.metrics == {f"view {num}/psnr_{num}": num for num in range(1500)} | {"a/b/c": 1.0}
    assert len(run.data.tags["a_b"]) == 5000
    assert warnings(caplog) == []


def test_importing_does_not_import_mlflow():
    code = "import sys, splatfix.tracking; sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=LONG_ENOUGH)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("wrong"), "FAILED"),
        (KeyboardInterrupt("terminated"), "KILLED"),
        (SystemExit(1), "KILLED"),
    ],
)
def test_the_end_of_a_run_sets_its_status(tmp_path, uri, error, status):
    with pytest.raises(type(error)), open_tracker(tmp_path / "run", TrackingConfig(uri=uri)):
        raise error
    assert only_run(uri).info.status == status


def test_a_stop_that_a_library_turned_into_an_error_is_a_stop(tmp_path, uri, monkeypatch):
    monkeypatch.setattr("splatfix.tracking.tracker.stop_requested", lambda: "terminated")
    with pytest.raises(RuntimeError), open_tracker(tmp_path / "run", TrackingConfig(uri=uri)):
        raise RuntimeError("callback failed")
    assert only_run(uri).info.status == "KILLED"


def test_a_resumed_process_continues_the_run(tmp_path, uri, caplog):
    config = TrackingConfig(uri=uri, name="one")
    first = open_tracker(tmp_path / "run", config)
    first.params({"rate": 0.1, "steps": 100})
    first.metrics({"loss": 2.0}, step=1)
    assert done(first, "KILLED") and only_run(uri).info.status == "KILLED"
    second = open_tracker(tmp_path / "run", config)
    second.params({"rate": 0.1, "steps": 200})
    wait_for(lambda: only_run(uri).info.status == "RUNNING")
    second.metrics({"loss": 1.0}, step=2)
    assert done(second)
    third = open_tracker(tmp_path / "run", config)
    third.params({"rate": 0.1, "steps": 200})  # as changed before: nothing new
    assert done(third)
    run = only_run(uri)
    assert (run.info.run_name, run.info.status, second.key) == ("one", "FINISHED", first.key)
    assert run.data.params == {"rate": "0.1", "steps": "100", "steps changed 1": "200"}
    assert history(uri, "loss") == [(1, 2.0), (2, 1.0)]
    assert warnings(caplog) == ["tracking: steps was '100' and is '200': kept as 'steps changed 1'"]


KILLED = """
import json, os, signal, sys, time
from pathlib import Path
from splatfix.cli import main
from splatfix.tracking import TrackingConfig, open_tracker
folder, uri, first = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
tracker = open_tracker(folder, TrackingConfig(uri=uri))
tracker.params({"rate": 0.1})
for step in range(300):
    tracker.metrics({"loss": step / 10}, step)
while first == "sent" and json.loads((folder / "tracking.json").read_text())["offset"] < 1000:
    time.sleep(0.01)
for step in range(300, 400):
    tracker.metrics({"loss": step / 10}, step)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("first", ["sent", "unsent"])
def test_a_process_that_was_killed_loses_nothing(tmp_path, uri, first):
    folder = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, str(folder), uri, first]
    assert subprocess.run(command, cwd=ROOT, timeout=LONG_ENOUGH).returncode == -signal.SIGKILL
    assert (offset(folder) > 0) == (first == "sent")
    tracker = open_tracker(folder, TrackingConfig(uri=uri))
    tracker.metrics({"loss": 40.0}, 400)
    assert done(tracker)
    assert history(uri, "loss") == [(step, step / 10) for step in range(401)]
    run = only_run(uri)
    assert run.info.status == "FINISHED" and run.data.params == {"rate": "0.1"}


def test_a_line_that_a_crash_left_torn_is_cut_off(tmp_path, uri):
    folder = tmp_path / "run"
    assert done(open_tracker(folder, TrackingConfig(uri=uri)), "KILLED")
    whole = (folder / JOURNAL).read_bytes()
    torn = b'{"kind": "metrics", "time": 1, "values": {"loss": ' + b"1" * 100_000
    (folder / JOURNAL).write_bytes(whole + torn)
    assert send_unsent(folder) == 0  # which leaves the file to the process that writes it
    assert (folder / JOURNAL).read_bytes() == whole + torn
    tracker = open_tracker(folder, TrackingConfig(uri=uri))
    tracker.metrics({"loss": 3.0}, step=3)
    assert done(tracker)
    assert (folder / JOURNAL).read_bytes().startswith(whole + b'{"kind": "start"')
    assert history(uri, "loss") == [(3, 3.0)]


def test_sending_all_records_again_has_no_effect(tmp_path, uri):
    folder = tmp_path / "run"
    with open_tracker(folder, TrackingConfig(uri=uri)) as tracker:
        tracker.params({"rate": 0.1})
        for step in range(5):
            tracker.metrics({"loss": step}, step)
    run = only_run(uri)
    state = json.loads((folder / STATE).read_text())
    (folder / STATE).write_text(json.dumps(state | {"offset": 0}))
    assert send_unsent(folder) == 8
    assert history(uri, "loss") == [(step, step) for step in range(5)]
    assert only_run(uri).data.to_dictionary() == run.data.to_dictionary()
    assert only_run(uri).info.status == "FINISHED"


def test_a_database_that_was_lost_is_filled_again(tmp_path, uri, empty_database):
    config = TrackingConfig(uri=uri)
    with open_tracker(tmp_path / "run", config) as tracker:
        tracker.metrics({"loss": 1.0}, step=1)
    moved = f"sqlite:///{shutil.copy(empty_database, tmp_path / 'other.db')}"
    with open_tracker(tmp_path / "run", TrackingConfig(uri=moved)) as tracker:
        tracker.metrics({"loss": 2.0}, step=2)
    assert history(moved, "loss") == [(1, 1.0), (2, 2.0)] and history(uri, "loss") == [(1, 1.0)]


def test_a_run_that_was_removed_while_it_is_tracked_is_created_again(tmp_path, uri):
    tracker = open_tracker(tmp_path / "run", TrackingConfig(uri=uri))
    tracker.metrics({"loss": 1.0}, step=1)
    wait_for(lambda: offset(tmp_path / "run") == (tmp_path / "run" / JOURNAL).stat().st_size)
    (run,) = all_runs(uri)
    store = client(uri)._tracking_client.store
    store.delete_run(run.info.run_id)
    store._hard_delete_run(run.info.run_id)  # as mlflow gc does
    tracker.metrics({"loss": 2.0}, step=2)
    assert done(tracker)
    assert only_run(uri).info.run_id != run.info.run_id
    assert history(uri, "loss") == [(1, 1.0), (2, 2.0)]


def test_runs_are_nested_in_their_parent(tmp_path, uri):
    config = TrackingConfig(uri=uri, experiment="sweep")
    with open_tracker(tmp_path / "all", config, key="sweep 1") as parent:
        for num in range(3):
            child = open_tracker(tmp_path / f"trial {num}", TrackingConfig(), key=f"sweep 1, {num}", parent=parent)
            child.metrics({"loss": num}, step=1)
            assert done(child)
        assert done(open_tracker(tmp_path / "trial 2", TrackingConfig(), parent=parent))  # resumed
        assert done(open_tracker(tmp_path / "by key", config, parent="sweep 1"))
    runs = {run.info.run_name: run for run in all_runs(uri, "sweep")}
    assert sorted(runs) == ["all", "by key", "trial 0", "trial 1", "trial 2"] and len(all_runs(uri, "sweep")) == 5
    above = runs.pop("all")
    assert "mlflow.parentRunId" not in above.data.tags
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {above.info.run_id}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert [runs[f"trial {num}"].data.metrics["loss"] for num in range(3)] == [0, 1, 2]


def test_a_parent_may_come_after_its_children(tmp_path, uri, caplog):
    config = TrackingConfig(uri=uri)
    child = open_tracker(tmp_path / "child", config, parent="sweep")
    child.metrics({"loss": 1.0}, step=1)
    wait_for(lambda: offset(tmp_path / "child") > 0)
    assert not child.finish("FINISHED", wait_seconds=0.5)
    assert "1 records were not sent" in warnings(caplog)[0]
    assert done(open_tracker(tmp_path / "parent", config, key="sweep"))
    assert send_unsent(tmp_path / "child") == 0
    runs = {run.info.run_name: run for run in all_runs(uri)}
    assert runs["child"].data.tags["mlflow.parentRunId"] == runs["parent"].info.run_id
    assert runs["child"].data.metrics == {"loss": 1.0} and runs["child"].info.status == "FINISHED"


def test_without_an_answer_all_is_kept_and_sent_later(tmp_path, uri, no_answer, caplog):
    folder = tmp_path / "run"
    tracker = open_tracker(folder, TrackingConfig(uri=no_answer.replace("://", "://me:secret@")))
    tracker.params({"rate": 0.1})
    for step in range(200):
        tracker.metrics({"loss": step}, step)
    (folder / "a.txt").write_text("early")
    tracker.artifact(folder / "a.txt")
    wait_for(lambda: len(warnings(caplog)) == 1)
    assert not tracker.finish("FINISHED", wait_seconds=1)
    logged = warnings(caplog)
    assert len(logged) == 2
    assert logged[0].startswith(f"tracking: {no_answer} does not answer ([Errno 111] Connection refused")
    assert f"kept in {folder / JOURNAL} and sent when it is back" in logged[0]
    assert logged[1] == (f"tracking: 204 records were not sent; `splatfix sync {folder} --uri {no_answer}` sends them")
    assert "secret" not in "".join(logged) + (folder / STATE).read_text()
    with pytest.raises(ConnectionError, match=f"{no_answer} does not answer: .*Connection refused"):
        send_unsent(folder)
    assert send_unsent(folder, uri) == 204
    assert send_unsent(folder, uri) == 0
    run = only_run(uri)
    assert history(uri, "loss") == [(step, step) for step in range(200)]
    assert run.info.status == "FINISHED" and run.data.params == {"rate": "0.1"} and files(uri) == ["a.txt"]


def test_what_comes_after_the_end_is_left_out(tmp_path, uri, caplog):
    tracker = open_tracker(tmp_path / "run", TrackingConfig(uri=uri))
    assert done(tracker)
    tracker.metrics({"loss": 1.0}, step=1)
    assert done(tracker, "FAILED")  # has ended before
    assert only_run(uri).info.status == "FINISHED" and only_run(uri).data.metrics == {}
    assert warnings(caplog) == ["tracking: metrics came after the end of the run and are left out"]


def test_a_full_disk_does_not_stop_the_work(tmp_path, uri, no_answer, caplog):
    folder = tmp_path / "run"
    tracker = open_tracker(folder, TrackingConfig(uri=no_answer))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    wait_for(lambda: len(warnings(caplog)) == 1)
    caplog.clear()
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        for step in range(500):
            tracker.metrics({"loss": step}, step)
        held = (folder / JOURNAL).stat().st_size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert held == 20_000  # the last line is torn
    assert len(warnings(caplog)) == 1 and f"{folder / JOURNAL}: No space left on device" in warnings(caplog)[0]
    tracker.metrics({"loss": 500}, 500)
    tracker.finish("FINISHED", wait_seconds=0.1)
    assert send_unsent(folder, uri) == 503
    assert history(uri, "loss") == [(step, step) for step in range(501)]


def test_a_record_that_is_refused_holds_up_no_other(tmp_path, uri, caplog):
    folder = tmp_path / "run"
    tracker = open_tracker(folder, TrackingConfig(uri=uri))
    wait_for(lambda: offset(folder) > 0)
    for step in range(3):
        tracker._append("metrics", values={"loss": float(step), "b@d": 1.0}, step=step)
    (folder / JOURNAL).open("ab").write(b"not a record\n")
    tracker.tags({"a": "b"})
    assert done(tracker)
    assert history(uri, "loss") == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert only_run(uri).data.tags["a"] == "b" and only_run(uri).info.status == "FINISHED"
    assert len(warnings(caplog)) == 1 and "'b@d' of the metrics was refused" in warnings(caplog)[0]


def test_files_that_cannot_be_stored_hold_up_nothing_and_are_tried_again(tmp_path, uri, caplog):
    folder = tmp_path / "run"
    blocking = tmp_path / "mlflow" / "mlartifacts"
    blocking.write_text("a file where a folder should be")
    tracker = open_tracker(folder, TrackingConfig(uri=uri))
    for name in ("a", "b"):
        (folder / name).write_text(name)
        tracker.artifact(folder / name)
    tracker.artifact(folder / "gone")
    tracker.metrics({"loss": 1.0}, step=1)
    wait_for(lambda: offset(folder) == (folder / JOURNAL).stat().st_size)
    assert not done(tracker)
    assert only_run(uri).info.status == "FINISHED" and only_run(uri).data.metrics == {"loss": 1.0}
    logged = warnings(caplog)
    assert f"{folder / 'a'} could not be stored" in logged[0] and "gone was gone before it was sent" in logged[1]
    assert "2 records were not sent" in logged[2] and len(logged) == 3
    blocking.unlink()
    assert send_unsent(folder) == 2
    assert sorted(files(uri)) == ["a", "b"]


def test_files_are_inside_the_folder_of_the_run(tmp_path, uri):
    (tmp_path / "a.txt").write_text("")
    with open_tracker(tmp_path / "run", TrackingConfig(uri=uri)) as tracker:
        for path in (tmp_path / "a.txt", tmp_path / "run", tmp_path / "run" / ".." / "a.txt"):
            with pytest.raises(ValueError, match="wanted a file or folder inside"):
                tracker.artifact(path)


@pytest.mark.parametrize("kind", ["absolute", "above", "link", "link in a folder", "link above"])
def test_a_journal_of_somebody_else_uploads_no_file_outside_the_run(tmp_path, uri, caplog, kind):
    folder, secret = tmp_path / "run", tmp_path / "private" / "secret.txt"
    secret.parent.mkdir()
    secret.write_text("secret")
    assert done(open_tracker(folder, TrackingConfig(uri=uri)))
    (folder / "pages").mkdir()
    (folder / "pages" / "page.txt").write_text("sound")
    named = {"absolute": str(secret), "above": "../private/secret.txt", "link above": "up/secret.txt"}
    if kind == "link in a folder":
        (folder / "pages" / "link.txt").symlink_to(secret)
    elif kind == "link":
        (folder / "link.txt").symlink_to(secret)
    elif kind == "link above":
        (folder / "up").symlink_to(secret.parent)
    name = named.get(kind, "link.txt" if kind == "link" else "pages")
    with (folder / JOURNAL).open("a") as journal:
        journal.write(json.dumps({"kind": "artifact", "time": 1, "path": name, "folder": ""}) + "\n")
    assert send_unsent(folder, uri) == 1
    assert "is not a plain file or folder inside the run: not sent" in caplog.text
    assert list((tmp_path / "mlflow").rglob("secret.txt")) == list((tmp_path / "mlflow").rglob("link.txt")) == []


@pytest.mark.parametrize("name", [JOURNAL, STATE])
def test_a_folder_in_the_place_of_the_journal_is_refused_before_the_work(tmp_path, uri, name):
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=rf"{name}: is no file; wanted a file of the tracking"):
        open_tracker(tmp_path, TrackingConfig(uri=uri))


def test_disabled_it_does_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///anywhere")
    with open_tracker(tmp_path / "run", TrackingConfig(enabled=False)) as tracker:
        tracker.params({"a": 1})
        tracker.metrics({"loss": 1.0}, step=1)
        tracker.tags({"a": "b"})
        tracker.artifact(tmp_path / "nothing")
        assert tracker.key is None and tracker.finish("FINISHED")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["file:///tmp/runs", "runs/mlflow", "/tmp/runs", "ftp://there"])
def test_addresses_that_mlflow_refuses_are_refused_at_once(tmp_path, monkeypatch, uri):
    with pytest.raises(ValueError, match=r"a\.yaml: tracking\.uri = .*: wanted sqlite:///FILE or http://HOST:PORT"):
        build_config(TrackingConfig, {"uri": uri}, source="a.yaml")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ValueError, match=r"^MLFLOW_TRACKING_URI = .*: wanted sqlite:///FILE"):
        open_tracker(tmp_path / "run", TrackingConfig())


def test_errors_name_the_folder(tmp_path, uri):
    with pytest.raises(ValueError, match=f"{tmp_path}: no {JOURNAL} in it"):
        send_unsent(tmp_path)
    assert done(open_tracker(tmp_path / "run", TrackingConfig(uri=uri), key="one"))
    with pytest.raises(ValueError, match=r"run/tracking\.json: is of the run 'one', not 'two'"):
        open_tracker(tmp_path / "run", TrackingConfig(uri=uri), key="two")
    with pytest.raises(ValueError, match="wanted a name without quotes"):
        open_tracker(tmp_path / "other", TrackingConfig(uri=uri), key="it's")


def test_the_environment_says_where_to(tmp_path, uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert done(open_tracker(tmp_path / "run", TrackingConfig()))
    assert only_run(uri).info.run_name == "run" and not (tmp_path / "run" / "mlflow.db").exists()


@pytest.fixture
def server(mlflow_server: Start) -> Start:
    return mlflow_server


@pytest.mark.slow
def test_a_server_that_goes_and_comes_back_has_all_of_it_once(tmp_path, uri, server, caplog, capfd):
    caplog.set_level(logging.INFO, "splatfix")
    folder = tmp_path / "run"
    address, stop = server()
    tracker = open_tracker(folder, TrackingConfig(uri=address))
    tracker.params({"rate": 0.1})
    for step in range(100):
        tracker.metrics({"loss": step / 10}, step)
    wait_for(lambda: offset(folder) == (folder / JOURNAL).stat().st_size)
    assert history(address, "loss") == [(step, step / 10) for step in range(100)]
    stop()
    (folder / "weights.bin").write_bytes(b"w" * 1_000_000)
    tracker.artifact(folder / "weights.bin", "best")
    for step in range(100, 2500):
        tracker.metrics({"loss": step / 10}, step)
    tracker.tags({"while": "gone"})
    wait_for(lambda: len(warnings(caplog)) == 1)
    server()
    wait_for(lambda: "answers again" in caplog.text)
    for step in range(2500, 2600):
        tracker.metrics({"loss": step / 10}, step)
    assert done(tracker)
    run = only_run(address)
    assert history(uri, "loss") == [(step, step / 10) for step in range(2600)]
    assert run.info.status == "FINISHED" and run.data.params == {"rate": "0.1"} and run.data.tags["while"] == "gone"
    assert files(address, "best") == ["best/weights.bin"]
    assert [path.stat().st_size for path in (tmp_path / "stored").rglob("weights.bin")] == [1_000_000]
    assert len(warnings(caplog)) == 1 and f"{address} does not answer" in warnings(caplog)[0]
    printed = "".join(capfd.readouterr()).splitlines()  # by mlflow; our own lines, where an earlier command set that up
    assert [line for line in printed if not line.startswith("tracking: ")] == []


@pytest.mark.slow
def test_a_server_that_went_for_good_gets_the_rest_later(tmp_path, uri, server):
    folder = tmp_path / "run"
    address, stop = server()
    tracker = open_tracker(folder, TrackingConfig(uri=address))
    tracker.metrics({"loss": 0.0}, 0)
    wait_for(lambda: offset(folder) == (folder / JOURNAL).stat().st_size)
    stop()
    tracker.metrics({"loss": 1.0}, 1)
    assert not tracker.finish("FAILED", wait_seconds=1)
    assert only_run(uri).info.status == "RUNNING"
    server()
    assert send_unsent(folder) == 2
    assert history(uri, "loss") == [(0, 0.0), (1, 1.0)] and only_run(uri).info.status == "FAILED"


def test_the_command_sends_remaining_records(tmp_path: Path, capsys) -> None:
    assert main(["sync", str(tmp_path)]) == 2
    assert "no tracking.jsonl in it" in capsys.readouterr().err
    dead = TrackingConfig(uri="http://127.0.0.1:9")
    tracker = open_tracker(tmp_path, dead)
    tracker.metrics({"loss": 1.0}, step=3)
    assert not tracker.finish("FINISHED", wait_seconds=0.5)
    assert main(["sync", str(tmp_path)]) == 2
    assert "names http://127.0.0.1:9, which MLFLOW_TRACKING_URI does not" in capsys.readouterr().err
    assert main(["sync", str(tmp_path), "--uri", "http://127.0.0.1:9"]) == 1
    assert "does not answer" in capsys.readouterr().err
    uri = f"sqlite:///{tmp_path}/late.db"
    assert main(["sync", str(tmp_path), "--uri", uri]) == 0
    assert "records sent" in capsys.readouterr().out
    assert main(["sync", str(tmp_path), "--uri", uri]) == 0
    assert f"{tmp_path}: 0 records sent" in capsys.readouterr().out


def test_the_end_says_that_it_waits_and_ends_all_runs_by_one_deadline(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "splatfix.tracking.tracker")
    monkeypatch.setattr(tracker_module, "QUIET_SECONDS", 0.05)
    ended = threading.Event()
    monkeypatch.setattr(tracker_module.Sender, "send", lambda *_, **__: ended.wait(60))  # a call that does not return
    trackers = [open_tracker(tmp_path / str(number), TrackingConfig()) for number in range(4)]
    deadline = time.monotonic() + 0.5
    late = finish_all([(tracker, "FINISHED") for tracker in trackers], deadline)
    assert late == trackers and time.monotonic() >= deadline
    assert caplog.messages == ["tracking: sending the remaining records to MLflow, up to 0 s"]  # once, and no warning
    assert {end_status(tmp_path / str(number)) for number in range(4)} == {"FINISHED"}  # all of them at the start
    caplog.clear()
    alone = open_tracker(tmp_path / "alone", TrackingConfig())
    assert not alone.finish("FAILED", wait_seconds=0.5)
    assert caplog.messages == [
        "tracking: sending the remaining records to MLflow, up to 0 s",
        f"tracking: 2 records were not sent; `splatfix sync {tmp_path / 'alone'}` sends them",
    ]
    trackers[0].warn_unsent()
    assert "2 records were not sent" in caplog.messages[-1]
    ended.set()


def test_a_quick_end_says_nothing(tmp_path, uri, caplog):
    caplog.set_level(logging.INFO, "splatfix.tracking.tracker")
    tracker = open_tracker(tmp_path / "run", TrackingConfig(uri=uri))
    wait_for(lambda: offset(tmp_path / "run") > 0)
    assert done(tracker) and caplog.messages == []


def test_what_earlier_processes_left_is_sent_until_the_deadline(tmp_path, uri, no_answer):
    folder = tmp_path / "run"
    tracker = open_tracker(folder, TrackingConfig(uri=no_answer))
    tracker.params({"a": 1})
    tracker.metrics({"b": 1}, step=1)
    assert not tracker.finish("FINISHED", wait_seconds=0.5)
    assert send_unsent(folder, uri, stopped=lambda: True) == 1  # the first batch
    assert send_unsent(folder, uri) == 3


def test_a_server_that_trickles_is_given_up(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("splatfix.tracking.tracker.SEND_SECONDS", 1.0)
    monkeypatch.setattr("splatfix.tracking.tracker.SLOW_SECONDS", 0.2)
    with open_tracker(tmp_path, TrackingConfig(uri=f"sqlite:///{tmp_path / 'mlflow.db'}")) as tracker:
        tracker.params({"rate": 0.1})
    caplog.set_level("INFO")
    with trickling_server() as url:
        with pytest.raises(ConnectionError, match=rf"^{url} does not answer: no end after 1 s$"):
            send_unsent(tmp_path, url)
        assert f"tracking: {url} has not taken all records after 0.2 s" in caplog.text
