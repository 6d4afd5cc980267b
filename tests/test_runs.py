"""Run folders and processes: config and provenance, signals, progress, the choice of the device."""

import contextlib
import signal
from pathlib import Path
from threading import Thread

import pytest
import torch

from splatfix.config import load_config
from splatfix.files import read_json, write_json
from splatfix.loop import LoopConfig
from splatfix.process import choose_device, keeping_handler, progress, stop_on_signals, stop_requested
from splatfix.runs import Input, Run, check_run, open_run
from tests.test_config import Outer


def test_a_run_writes_its_config_and_its_provenance(tmp_path):
    run = open_run(tmp_path / "run", Outer(), command="fit")
    with run.stage("fit"):
        pass
    for _ in range(2):
        run.count_steps(50, 0.5)
    run.write_provenance(seed=3, device=torch.device("cpu"))
    held = read_json(run.path / "run.json")
    assert held["steps_per_second"] == 100
    assert held["seed"] == 3
    assert held["device"] == "cpu"
    assert held["seconds"]["fit"] >= 0
    assert "rate: 0.5" in (run.path / "config.yaml").read_text()


def test_a_file_is_not_a_run_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="is a file; wanted a folder"):
        open_run(tmp_path / "run", Outer(), command="fit")
    with pytest.raises(ValueError, match=r"run/a/b: .*/run is a file; wanted a folder"):
        open_run(tmp_path / "run" / "a" / "b", Outer(), command="fit")


def test_stages_add_up(tmp_path):
    run = Run(tmp_path)
    for _ in range(2):
        with run.stage("a"):
            pass
    assert list(run.seconds) == ["a"]


def test_device_names_are_checked():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="device = 'abacus'"):
        choose_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="sees no CUDA device"):
            choose_device("cuda")


def test_an_interruption_that_a_library_swallows_comes_back_at_the_next_progress(monkeypatch):
    monkeypatch.setattr("splatfix.process._requested", None)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        stop_on_signals()
        bar = progress(total=2, description="work", quiet=True)
        bar.update()
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert stop_requested() == "terminated"
        with pytest.raises(KeyboardInterrupt):
            bar.update()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_handlers_that_a_library_replaces_come_back():
    def replaced(number):
        with keeping_handler(number):
            signal.signal(number, signal.SIG_IGN)
            raise SystemExit

    for number in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(number)
        with pytest.raises(SystemExit):
            replaced(number)
        assert signal.getsignal(number) is before


def test_threads_that_cannot_set_handlers_do_not_try():
    ended = []

    def work():
        with keeping_handler(signal.SIGTERM):
            pass
        ended.append(True)

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert ended


def test_a_url_is_refused_where_a_folder_is_wanted():
    with pytest.raises(ValueError, match="is a URL; this command writes to a folder"):
        check_run(Path("s3://bucket/run"), {"command": "fit", "inputs": {}, "settings": {}, "files": []})


def test_credentials_of_urls_are_not_written_and_a_rerun_resumes(tmp_path):
    config = LoopConfig(restorer="https://user:hunter2@host/restorer?token=hunter2")
    given = {"capture": Input(path="s3://user:hunter2@bucket/capture", digest="1")}
    for _ in range(2):
        open_run(tmp_path, config, command="loop", inputs=given)
    for path in tmp_path.iterdir():
        assert "hunter2" not in path.read_text()
    assert load_config(LoopConfig, tmp_path / "config.yaml").restorer == "https://host/restorer?token=***"


@pytest.mark.parametrize("pattern", ["../precious.txt", "/precious.txt", ""])
def test_a_record_of_somebody_else_removes_nothing_outside_the_run(tmp_path, pattern):
    (tmp_path / "precious.txt").write_text("")
    open_run(tmp_path / "run", Outer(), command="fit")
    record = read_json(tmp_path / "run" / "run.json")
    write_json(tmp_path / "run" / "run.json", record | {"files": [pattern]})
    with pytest.raises(ValueError, match=r"run\.json: files: .* is not in the folder"):
        open_run(tmp_path / "run", Outer(), command="fit", fresh=True)
    assert (tmp_path / "precious.txt").exists()
