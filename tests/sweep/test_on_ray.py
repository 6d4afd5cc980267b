"""A sweep on Ray Tune in a separate process: killed, with dying workers, and with an unreachable MLflow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from splatfix.files import read_json
from splatfix.sample import sample_path
from splatfix.sweep.record import TrialRecord
from tests.conftest import ROOT, Start
from tests.sweep.small import records, small, without_times, write_config
from tests.waiting import all_runs, client, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.starts_ray]

ON_RAY = {  # with this seed the last two trials are stopped
    "search": {"seed": 2},
    "workers": {"num": 2},
    "tracking": {"enabled": True},
    "halving": {"grace": 1, "factor": 8.0},
}


class Driver:
    """`splatfix sweep` in a process, and its log."""

    def __init__(self, config: Path, out: Path, *more: str) -> None:
        self.out, self.log = out, out.with_suffix(".log")
        command = [sys.executable, "-m", "splatfix", "sweep", "--config", str(config), "--out", str(out), *more]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)

    def wait(self) -> int:
        return self.process.wait(timeout=400)

    def trial(self, number: int) -> TrialRecord | None:
        folder = self.out / "trials"
        found = records(self.out) if folder.is_dir() else []
        return next((record for record in found if record.number == number), None)

    def wait_until(self, number: int, rounds: int) -> None:
        """Wait until a trial has completed so many rounds."""

        def is_there() -> bool:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            record = self.trial(number)
            return record is not None and len(record.rounds) >= rounds

        wait_for(is_there, seconds=300)


@pytest.fixture
def drivers():
    started: list[Driver] = []

    def start(*arguments) -> Driver:
        started.append(Driver(*arguments))
        return started[-1]

    yield start
    for driver in started:
        if driver.process.poll() is None:
            driver.process.send_signal(signal.SIGTERM)
            driver.process.wait(timeout=60)


def check_mlflow(uri: str, sweep: Path) -> None:
    """Every trial has one run, nested in the sweep's, ended as it did, with each figure once."""
    runs = {run.info.run_name: run for run in all_runs(uri)}
    found = records(sweep)
    assert len(all_runs(uri)) == len(runs) == len(found) + 1
    parent = runs.pop(sweep.name)
    assert parent.info.status == "FINISHED" and "mlflow.parentRunId" not in parent.data.tags
    assert "sweep.html" in {entry.path for entry in client(uri).list_artifacts(parent.info.run_id)}
    for record in found:
        run = runs[f"trial-{record.name}"]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.status == {"complete": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}[record.status]
        assert run.data.params == {name: str(value) for name, value in record.values.items()}
        for name in ("gain", "far", "tankard-s0/near"):
            history = client(uri).get_metric_history(run.info.run_id, name)
            assert [point.step for point in history] == [round_.round for round_ in record.rounds], name
        paths = {entry.path for entry in client(uri).list_artifacts(run.info.run_id)}
        assert paths == {"report.html", "before-control-after", "splats"}
        splats = client(uri).list_artifacts(run.info.run_id, "splats/tankard-s0")
        assert [(entry.path, entry.file_size > 0) for entry in splats] == [("splats/tankard-s0/after.ply", True)]


def test_a_killed_sweep_resumes_with_the_results_of_an_uninterrupted_one(tmp_path, drivers):
    config = write_config(tmp_path / "s.yaml", **ON_RAY)
    assert drivers(config, tmp_path / "unbroken").wait() == 0
    for place, rounds in ((1, 1), (3, 1)):  # in the middle of a trial, twice
        driver = drivers(config, tmp_path / "broken")
        driver.wait_until(place, rounds)
        driver.process.send_signal(signal.SIGKILL)
        driver.wait()
        assert any(record.status == "running" for record in records(driver.out))
    before = {record.number: record for record in records(tmp_path / "broken") if record.status != "running"}
    assert drivers(config, tmp_path / "broken").wait() == 0
    after, unbroken = records(tmp_path / "broken"), records(tmp_path / "unbroken")
    assert [without_times(record) for record in after] == [without_times(record) for record in unbroken] and len(
        after
    ) == 6
    assert {record.status for record in after} == {"complete", "stopped"}
    assert all(after[number] == record for number, record in before.items())  # as they were, to the second
    assert (
        read_json(tmp_path / "broken" / "sweep.json")["best"] == read_json(tmp_path / "unbroken" / "sweep.json")["best"]
    )
    for name in ("unbroken", "broken"):
        check_mlflow(f"sqlite:///{tmp_path / name / 'mlflow.db'}", tmp_path / name)


def test_a_terminated_sweep_ends_its_runs_in_mlflow(tmp_path, drivers):
    config = write_config(tmp_path / "s.yaml", **{**ON_RAY, "search": {"trials": 3}})
    driver = drivers(config, tmp_path / "out")
    driver.wait_until(1, 1)
    driver.process.send_signal(signal.SIGTERM)
    assert driver.wait() == 143
    assert "terminated; finished work is kept" in driver.log.read_text()
    uri = f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}"
    assert {run.info.status for run in all_runs(uri)} <= {"FINISHED", "KILLED"}
    assert drivers(config, tmp_path / "out").wait() == 0
    check_mlflow(uri, tmp_path / "out")


def test_an_unreachable_server_gets_all_records_when_it_is_back(tmp_path, drivers, mlflow_server: Start):
    address, stop = mlflow_server()
    changes = {"tracking": {"enabled": True, "uri": address}, "search": {"trials": 4}}
    config = write_config(tmp_path / "s.yaml", **{**ON_RAY, **changes})
    driver = drivers(config, tmp_path / "out")
    driver.wait_until(0, 1)
    wait_for(lambda: any(run.info.run_name == "trial-0000" for run in all_runs(address)))
    stop()
    driver.wait_until(3, 1)  # the sweep does not wait for it
    mlflow_server()
    assert driver.wait() == 0, driver.log.read_text()[-3000:]
    assert f"{address} does not answer" in driver.log.read_text()
    check_mlflow(address, tmp_path / "out")
    assert f"MLflow: {address}/#/experiments/" in driver.log.read_text()
    stored = {path.name for path in (tmp_path / "stored").rglob("*") if path.is_file()}
    assert {"sweep.html", "best.yaml", "report.html", "tankard-s0.jpg", "after.ply"} <= stored  # through the server
    assert not (tmp_path / "out" / "mlflow.db").exists()


def test_a_server_that_stays_unreachable_gets_all_records_later(tmp_path, drivers, mlflow_server: Start):
    address, stop = mlflow_server()
    stop()
    changes = {"tracking": {"enabled": True, "uri": address}, "search": {"trials": 3}}
    config = write_config(tmp_path / "s.yaml", **{**ON_RAY, **changes})
    driver = drivers(config, tmp_path / "out")
    assert driver.wait() == 0
    (remedy,) = [line for line in driver.log.read_text().splitlines() if "3 trials are not sent" in line]
    assert f"splatfix sync {tmp_path / 'out'} {tmp_path / 'out' / 'trials' / '*'} --uri {address}`" in remedy
    mlflow_server()
    folders = [str(tmp_path / "out"), *map(str, sorted((tmp_path / "out" / "trials").iterdir()))]
    sync = [sys.executable, "-m", "splatfix", "sync", *folders, "--uri", address]
    assert subprocess.run(sync, cwd=ROOT, check=False).returncode == 0
    check_mlflow(address, tmp_path / "out")


def test_trials_of_dead_workers_are_retried_and_then_marked_as_failed(tmp_path):
    """The worker of the second trial is killed in each attempt; that of the third hangs in its first one."""
    program = f"""
import os, signal
from pathlib import Path
from splatfix.sweep import ray_tune
from splatfix.sweep.driver import run_sweep
from tests.sweep.small import small

class Dying(ray_tune.TuneTrial):
    def step(self):
        if self.number == 1:
            with open({str(tmp_path / "attempts")!r}, "a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        if self.number == 2 and not Path({str(tmp_path / "hung")!r}).exists():
            Path({str(tmp_path / "hung")!r}).touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().step()

    def setup(self, config):
        self.number = config["number"]
        super().setup(config)

ray_tune.TuneTrial = Dying
workers = {{"num": 2, "attempts": 2, "task_minutes": 0.5}}
run_sweep(small(search={{"trials": 4}}, workers=workers), Path({str(tmp_path / "out")!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = records(tmp_path / "out")
    assert [record.status for record in found] == ["complete", "failed", "complete", "complete"]
    assert "its worker died: ActorDiedError" in str(found[1].error) and (tmp_path / "attempts").read_text() == "xx"
    assert (tmp_path / "hung").exists() and "trial 2: attempt 1 of 2 failed" in done.stderr
    assert "its worker died: no answer for 0.5 minutes (workers.task_minutes)" in done.stderr


def test_a_sweep_on_ray_equals_one_in_this_process(tmp_path, drivers):
    from splatfix.sweep.driver import run_sweep

    captures = [str(sample_path().relative_to(ROOT))]  # as people write them: workers may be anywhere
    config = write_config(tmp_path / "s.yaml", captures=captures, workers={"num": 2}, search={"trials": 3})
    assert drivers(config, tmp_path / "ray").wait() == 0
    run_sweep(small(search={"trials": 3}), tmp_path / "here")
    assert [without_times(r) for r in records(tmp_path / "ray")] == [
        without_times(r) for r in records(tmp_path / "here")
    ]


def test_a_share_of_a_gpu_needs_a_gpu(tmp_path, capsys):
    import torch

    from splatfix.cli import main

    if torch.cuda.is_available():
        pytest.skip("there is one")
    config = write_config(tmp_path / "s.yaml", workers={"num": 2, "gpus": 0.25})
    assert main(["sweep", "--config", str(config), "--out", str(tmp_path / "out")]) == 2
    assert "workers.gpus = 0.25: this machine has 0" in capsys.readouterr().err


def test_the_job_takes_the_arguments_of_the_command(tmp_path):
    config = write_config(tmp_path / "s.yaml", search={"trials": 1})
    command = [sys.executable, str(ROOT / "jobs" / "sweep.py"), "--config", str(config), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert "1 trials complete" in done.stdout and (tmp_path / "out" / "best.yaml").is_file()
