"""The jobs parse arguments and call the package, no more."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from splatfix.cli import main
from splatfix.pairs.verify import verify
from splatfix.sample import sample_path

pytestmark = pytest.mark.starts_ray

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_generate_takes_the_arguments_of_the_command(tmp_path: Path) -> None:
    small = ("--recipes.photos.size-px", "32", "--recipes.photos.steps", "5", "--fits-per-capture", "1")
    few = ("--recipes.photos.num-train", "3", "3", "--recipes.photos.max-views", "2", "--workers.num", "0")
    command = [sys.executable, str(ROOT / "jobs" / "generate.py"), str(sample_path()), "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, *small, *few], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "fits: 1 made" in done.stdout and (tmp_path / "out" / "dataset.html").is_file()
    wrong = subprocess.run([*command, "--recipes.photos.steps", "0"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and "steps" in wrong.stderr


@pytest.mark.slow
def test_a_submitted_job_makes_pairs_and_its_metrics_can_be_scraped(tmp_path: Path) -> None:
    import ray
    from ray.job_submission import JobStatus, JobSubmissionClient

    small = "--recipes.photos.size-px 32 --recipes.photos.steps 5 --fits-per-capture 1 --device cpu"
    few = "--recipes.photos.num-train 3 3 --recipes.photos.max-views 2 --workers.num 1"
    job = f"{sys.executable} jobs/generate.py {sample_path()} --out {tmp_path / 'out'} {small} {few}"
    found = ray.init(num_cpus=2, include_dashboard=True, dashboard_port=0, log_to_driver=False, logging_level="ERROR")
    try:
        client = JobSubmissionClient(f"http://{found.dashboard_url}")
        submitted = client.submit_job(entrypoint=job, runtime_env={"working_dir": str(ROOT)})
        status, deadline = JobStatus.PENDING, time.monotonic() + 240
        while not status.is_terminal() and time.monotonic() < deadline:
            time.sleep(0.5)
            status = client.get_job_status(submitted)
        log = client.get_job_logs(submitted)
        assert status == JobStatus.SUCCEEDED, log
        assert "fits: 1 made" in log and "fits: 100%" in log
        assert verify(str(tmp_path / "out")).problems == ()
        (node,) = ray.nodes()
        wanted = ["ray_splatfix_fits_total{", "ray_splatfix_pairs_total{", "ray_splatfix_stage_seconds_count{"]
        wanted += ["ray_splatfix_workers{", "ray_splatfix_workers_busy_ratio{", "ray_splatfix_fits_left{"]
        seen = ""
        while not all(name in seen for name in wanted) and time.monotonic() < deadline:
            address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            with urllib.request.urlopen(address) as answer:
                seen = answer.read().decode()
            time.sleep(0.5)
        assert [name for name in wanted if name not in seen] == []
        counts = [line for line in seen.splitlines() if line.startswith("ray_splatfix_fits_total{")]
        values = {line.split('outcome="')[1].split('"')[0]: float(line.rsplit(" ", 1)[1]) for line in counts}
        assert values.pop("done") == 1 and values and not any(values.values())  # others are sent from the start, as 0
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_jobs_are_submitted_followed_stopped_and_end_with_the_exit_code_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    (tmp_path / "empty").mkdir()
    (tmp_path / "small.yaml").write_text(
        "{fits_per_capture: 1, device: cpu, workers: {num: 0}, "
        "recipes: {photos: {size_px: 32, steps: 5, num_train: [3, 3], max_views: 2}}}"
    )
    found = ray.init(num_cpus=1, include_dashboard=True, dashboard_port=0, log_to_driver=False, logging_level="ERROR")
    options = ("--address", f"http://{found.dashboard_url}")
    settings = ("--config", str(tmp_path / "small.yaml"), "--python", sys.executable)

    def submit(*words: str) -> int:
        return main(["submit", *words, *options])

    try:
        command = ("generate", str(sample_path()), "--out", str(tmp_path / "out"), *settings)
        assert submit(*command, "--follow") == 0
        said = capsys.readouterr().out
        assert "fits: 1 made" in said and "SUCCEEDED" in said and "exit code 0" in said
        assert verify(str(tmp_path / "out")).problems == ()
        assert submit(*command, "--follow") == 0
        said = capsys.readouterr().out
        assert "-2: submitted to" in said and "fits: 0 made, 1 found" in said
        assert submit("generate", str(tmp_path / "empty"), "--out", str(tmp_path / "none"), *settings, "--follow") == 2
        assert "exit code 2" in capsys.readouterr().out

        long = ("generate", str(sample_path()), "--out", str(tmp_path / "long"), *settings)
        assert submit(*long, "--recipes.photos.steps", "1000000") == 0
        job_id = capsys.readouterr().out.split(":")[0]
        deadline = time.monotonic() + 120
        while "fits:   0%" not in capsys.readouterr().out and time.monotonic() < deadline:
            time.sleep(0.5)
            submit("status", job_id)
        assert submit(*long) == 2 and f"{job_id} is RUNNING already" in capsys.readouterr().err
        assert submit("stop", job_id) == 0
        assert submit("status", job_id) == 143
        assert "terminated; finished work is kept" in capsys.readouterr().out

        assert main(["doctor", "--cluster", *options, "--python", sys.executable, "--out", str(tmp_path)]) in (0, 1)
        said = capsys.readouterr().out
        assert "1 nodes, " in said and "output store" in said and not list(tmp_path.glob(".doctor-*"))
    finally:
        ray.shutdown()
