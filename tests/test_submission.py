"""Jobs are submitted, followed and stopped through a client that stands for the cluster's jobs API."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from splatfix import process
from splatfix.cli import main
from splatfix.submission import cluster as api
from splatfix.submission import follow, manage, paths
from splatfix.submission.follow import LogPrinter
from splatfix.submission.manage import job_exit_code
from tests.trickling import trickling_server

URL = "http://head:8265"
OUT = ("--out", "s3://bucket/pairs")


class FakeClient:
    """The jobs API of a cluster on which the paths in ``existing`` exist, and jobs end as ``ends`` says."""

    def __init__(self) -> None:
        self.details: dict[str, SimpleNamespace] = {}
        self.logs: dict[str, str] = {}
        self.existing: set[str] = {"/shared", "/shared/captures"}
        self.sent: list[dict[str, Any]] = []
        self.stopped: list[str] = []
        self.ends: tuple[str, int | None] = ("RUNNING", None)

    def submit_job(self, *, submission_id: str, entrypoint: str, runtime_env=None, metadata=None, **resources) -> str:
        if submission_id in self.details:
            raise RuntimeError(
                f"Request failed with status code 500: Job with submission_id {submission_id} already exists."
            )
        status, code = self.ends
        self.logs[submission_id] = "fits: 1 made\n"
        if submission_id.startswith(paths.PREFIX):
            tested = re.findall(r"test -e (\S+) && echo found (\d+)", entrypoint)
            found = [f"found {number}" for path, number in tested if path in self.existing]
            self.logs[submission_id], status = "\n".join([*found, "checked"]), "SUCCEEDED"
        else:
            work, sources = (runtime_env.get(name) for name in ("working_dir", "py_modules"))
            files = [file.relative_to(root).as_posix() for root in map(Path, sources or ()) for file in root.rglob("*")]
            config = (Path(work) / "config.yaml").read_text() if work else None
            sent = {"id": submission_id, "entrypoint": entrypoint, "files": files, "config": config}
            self.sent.append(sent | {"env": runtime_env["env_vars"], "metadata": metadata, **resources})
        self.details[submission_id] = SimpleNamespace(
            submission_id=submission_id,
            status=status,
            entrypoint=entrypoint,
            message="",
            start_time=1_000,
            end_time=61_000 if status in api.ENDED else None,
            metadata=metadata,
            runtime_env=runtime_env,
            driver_exit_code=code,
        )
        return submission_id

    def get_job_info(self, job_id: str) -> SimpleNamespace:
        if job_id not in self.details:
            raise RuntimeError(f"Request failed with status code 404: Job {job_id} does not exist.")
        return self.details[job_id]

    def list_jobs(self) -> list[SimpleNamespace]:
        return list(self.details.values())

    def get_job_logs(self, job_id: str) -> str:
        return self.logs[job_id]

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        yield self.logs[job_id]

    def stop_job(self, job_id: str) -> bool:
        self.stopped.append(job_id)
        self.details[job_id].status, self.details[job_id].end_time = "STOPPED", 61_000
        return True


@pytest.fixture(autouse=True)
def own_authentication(monkeypatch) -> None:
    """What a command sets for Ray stays in its test: later ones start Ray in this process."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # so that it is restored
    monkeypatch.delenv("RAY_AUTH_MODE")


@pytest.fixture
def cluster(monkeypatch) -> FakeClient:
    """The cluster at `URL`."""
    fake = FakeClient()
    monkeypatch.setattr(api, "open_client", lambda _: fake)
    monkeypatch.setattr(follow, "PAUSE_SECONDS", 0.0)
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_ADDRESS", URL)
    return fake


def submit(*words: Any) -> int:
    return main(["submit", *map(str, words)])


def test_a_submission_takes_along_the_sources_and_the_config(cluster, tmp_path, capsys):
    config = tmp_path / "small.yaml"
    config.write_text("fits_per_capture: 2\n")
    assert submit("generate", "s3://bucket/captures", *OUT, "--config", config, "--entrypoint-cpus", "2") == 0
    [sent] = cluster.sent
    assert re.fullmatch(r"splatfix-generate-[0-9a-f]{8}", sent["id"])
    assert sent["entrypoint"] == (
        "python -m splatfix generate s3://bucket/captures --out s3://bucket/pairs --config config.yaml"
    )
    assert sent["config"] == "fits_per_capture: 2\n" and sent["entrypoint_num_cpus"] == 2
    assert "pairs/generate.py" in sent["files"] and "report/templates/base.html.j2" in sent["files"]
    assert not [name for name in sent["files"] if name.endswith((".safetensors", ".jpg", ".pyc"))]
    assert sent["env"]["RAY_JOB_STOP_WAIT_TIME_S"] == "60"
    said = capsys.readouterr().out
    assert f"submit logs {sent['id']} --follow --address {URL}" in said and f"submit stop {sent['id']}" in said


def test_a_cluster_that_has_just_started_is_waited_for(cluster, capsys, monkeypatch):
    refusals, take = ["No available agent to submit job, please try again later."] * 2, cluster.submit_job

    def submit_job(**options: Any) -> str:
        if refusals:
            raise RuntimeError(f"Request failed with status code 500: {refusals.pop()}.")
        return take(**options)

    monkeypatch.setattr(api, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(cluster, "submit_job", submit_job)
    assert submit("generate", "s3://bucket/captures", *OUT) == 0 and len(cluster.sent) == 1
    assert capsys.readouterr().err.count("takes no jobs yet; waiting") == 1


def test_what_is_uploaded_depends_on_the_job(cluster):
    assert submit("compare", "--out", "/shared/c", "/shared/captures", "--restorers", "nafnet") == 0
    assert submit("generate", "s3://bucket/captures", *OUT, "--installed") == 0
    with_weights, installed = cluster.sent
    assert "restoration/nafnet/weights/restorer.safetensors" in with_weights["files"]
    assert installed["files"] == [] and installed["config"] is None


def test_the_same_job_is_not_submitted_twice_and_resumed_under_a_number(cluster, capsys):
    command = ("generate", "s3://bucket/captures", *OUT)
    assert submit(*command) == 0
    assert submit(*command, "--workers.num", "3") == 2
    first = cluster.sent[0]["id"]
    said = capsys.readouterr().err
    assert f"{first} is RUNNING already; nothing was submitted" in said and f"submit logs {first} --follow" in said
    for number in (2, 3):
        cluster.details[cluster.sent[-1]["id"]].status = "STOPPED"
        assert submit(*command) == 0
        assert cluster.sent[-1]["id"] == f"{first}-{number}"
    assert submit("generate", "s3://bucket/captures", "--out", "s3://bucket/others") == 0
    assert cluster.sent[-1]["id"][:26] != first[:26]


def test_follow_takes_up_a_job_that_runs(cluster, capsys):
    assert submit("generate", "s3://bucket/captures", *OUT) == 0
    job = cluster.details[cluster.sent[0]["id"]]

    async def tail(job_id: str) -> AsyncIterator[str]:
        yield cluster.logs[job_id]
        job.status, job.driver_exit_code = "FAILED", 3

    cluster.tail_job_logs = tail  # type: ignore[method-assign]
    assert submit("generate", "s3://bucket/captures", *OUT, "--follow") == 3
    assert len(cluster.sent) == 1
    said = capsys.readouterr().out
    assert "nothing was submitted" in said and said.count("fits: 1 made") == 1 and "FAILED" in said


def test_values_of_variables_are_not_printed(cluster, monkeypatch, capsys):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    command = ("generate", "s3://bucket/captures", *OUT, "--env", "AWS_SECRET_ACCESS_KEY", "--env", "LEVEL=hunter3")
    assert submit(*command, "--dry-run") == 0 and not cluster.sent
    assert submit(*command) == 0
    assert submit("status", cluster.sent[0]["id"]) == 0
    assert submit("list") == 0
    said = capsys.readouterr()
    assert "AWS_SECRET_ACCESS_KEY=***, LEVEL=***" in said.out and "hunter" not in said.out + said.err
    assert cluster.sent[0]["env"]["AWS_SECRET_ACCESS_KEY"] == "hunter2" and cluster.sent[0]["env"]["LEVEL"] == "hunter3"
    assert "hunter" not in cluster.sent[0]["entrypoint"] + str(cluster.sent[0]["metadata"])
    assert submit(*command[:4], "--env", "NOT_SET_HERE") == 2
    assert "--env NOT_SET_HERE: it is not set here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("generate", "s3://b/c", "--out", "pairs"), "--out pairs: in a job this is inside the job's own folder"),
        (("generate", "scenes/a", *OUT), "captures scenes/a: in a job"),
        (("train", "--shards", "pairs", "--out", "/shared/run"), "--shards pairs: in a job"),
        (("sweep", "--captures", "scenes/a", "--out", "/shared/s"), "captures scenes/a: in a job"),
        (("compare", "/shared/captures", "--out", "/shared/c", "--restorers", "./mine"), "restorers ./mine: in a job"),
        (("generate", "HERE", *OUT), "the cluster does not have it (it exists on this machine)"),
        (
            ("generate", "/shared/captures", "--out", "/nowhere/pairs"),
            "--out /nowhere/pairs: the cluster does not have",
        ),
        (("generate", "s3://b/c", *OUT, "--config", "nope.yaml"), "nope.yaml: no such config file"),
        (("generate", "s3://b/c", *OUT, "--config", "BAD"), "unknown field fits_per_captur; did you mean"),
        (("juggle",), "no job 'juggle'; wanted generate, train, sweep, compare"),
        (("status",), "submit status: wanted one id"),
        (("status", "splatfix-none"), "splatfix-none: no such job at http://head:8265; it has none of splatfix"),
    ],
)
def test_what_cannot_run_is_refused_before_the_submission(words, said, cluster, tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text("fits_per_captur: 1\n")
    inputs = {"HERE": str(tmp_path), "BAD": str(tmp_path / "bad.yaml")}
    assert submit(*(inputs.get(word, word) for word in words)) == 2
    message = capsys.readouterr().err.strip()
    assert said in message and message.startswith("splatfix submit: ") and "\n" not in message
    assert not cluster.sent


def test_a_typo_in_a_flag_costs_no_submission(cluster, capsys):
    assert submit("generate", "s3://bucket/captures", *OUT, "--", "--workers.nu", "4") == 2
    assert "--workers.nu" in capsys.readouterr().err and not cluster.sent


def test_paths_on_the_shared_disk_are_fine(cluster):
    assert submit("generate", "/shared/captures", "--out", "/shared/new/pairs") == 0
    assert submit("generate", "/shared/captures/*", "--out", "/shared/new/others") == 0
    assert len(cluster.sent) == 2


def test_exit_codes_of_jobs(cluster):
    submit("generate", "s3://bucket/captures", *OUT)
    info = api.Cluster(URL, cluster).job(cluster.sent[0]["id"])
    codes = {("SUCCEEDED", 0): 0, ("FAILED", 2): 2, ("FAILED", 3): 3, ("FAILED", 143): 143, ("FAILED", -9): 137}
    codes |= {("STOPPED", None): 143, ("FAILED", None): 1, ("RUNNING", None): 0, ("PENDING", None): 0}
    for (status, code), wanted in codes.items():
        details = cluster.details[info.id]
        details.status, details.driver_exit_code = status, code
        assert job_exit_code(api.Cluster(URL, cluster).job(info.id)) == wanted
        assert submit("status", info.id) == wanted


def test_stop_waits_until_the_job_has_ended(cluster, capsys, monkeypatch):
    submit("generate", "s3://bucket/captures", *OUT)
    [job_id] = cluster.details
    assert submit("stop", job_id) == 0 and cluster.stopped == [job_id]
    said = capsys.readouterr()
    assert "at most 60 s" in said.err and "STOPPED" in said.out and "submit the same command to resume it" in said.out
    assert submit("stop", job_id) == 0 and cluster.stopped == [job_id], "it has ended"
    cluster.details[job_id].status = "RUNNING"
    monkeypatch.setattr(cluster, "stop_job", lambda _: True)
    monkeypatch.setattr(manage, "STOP_MARGIN_SECONDS", -60.0)
    assert submit("stop", job_id) == 1
    assert "still RUNNING" in capsys.readouterr().err


def test_ctrl_c_leaves_the_job_running(cluster, capsys, monkeypatch):
    async def endless(_: str) -> AsyncIterator[str]:
        yield "fits: 0 made\n"
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        threading.Event().wait(5)

    monkeypatch.setattr(cluster, "tail_job_logs", endless)
    assert submit("generate", "s3://bucket/captures", *OUT, "--follow") == 130
    assert "detached; the job continues" in capsys.readouterr().err and not cluster.stopped
    process._requested = None


def test_a_lost_connection_is_opened_again_and_nothing_is_printed_twice(cluster, caplog):
    submit("generate", "s3://bucket/captures", *OUT)
    [job_id] = cluster.details
    pieces, log = ["one\ntwo\n", "three\n"], io.StringIO()

    async def tail(job_id: str) -> AsyncIterator[str]:
        yield pieces[0]
        if log.getvalue().count("two") == 0:
            raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
        yield pieces[1]
        cluster.details[job_id].status = "SUCCEEDED"

    cluster.tail_job_logs = tail  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING):
        assert follow.follow_job(api.Cluster(URL, cluster), job_id, log).status == "SUCCEEDED"
    assert log.getvalue() == "one\ntwo\nthree\n"


def test_a_job_that_does_not_start_is_reported_with_the_reason(cluster, capsys, monkeypatch):
    monkeypatch.setattr(follow, "PENDING_SECONDS", 0.0)
    monkeypatch.setattr(follow, "QUIET_SECONDS", 0.01)
    cluster.ends = ("PENDING", None)
    submit("generate", "s3://bucket/captures", *OUT)
    [job_id] = cluster.details
    cluster.details[job_id].message = "Job has not started yet.\nIt may be waiting for resources."

    said: list[str] = []

    async def tail(job_id: str) -> AsyncIterator[str]:
        for _ in range(1000):
            said.append(capsys.readouterr().err)
            if "PENDING" in said[-1]:
                break
            await asyncio.sleep(0.01)
        yield "fits: 1 made\n"
        cluster.details[job_id].status = "SUCCEEDED"

    cluster.tail_job_logs = tail  # type: ignore[method-assign]
    log = io.StringIO()
    assert follow.follow_job(api.Cluster(URL, cluster), job_id, log).status == "SUCCEEDED"
    assert f"{job_id}: still PENDING: Job has not started yet. It may be waiting for resources.\n" in said[-1]
    assert log.getvalue() == "fits: 1 made\n"


def test_the_end_of_a_log_is_printed_where_the_connection_was_lost_before_it(cluster):
    submit("generate", "s3://bucket/captures", *OUT)
    [job_id] = cluster.details
    cluster.logs[job_id] = "one\ntwo\n"

    async def tail(job_id: str) -> AsyncIterator[str]:
        yield "one\n"
        cluster.details[job_id].status = "FAILED"
        raise ConnectionError

    cluster.tail_job_logs = tail  # type: ignore[method-assign]
    log = io.StringIO()
    assert follow.follow_job(api.Cluster(URL, cluster), job_id, log).status == "FAILED"
    assert log.getvalue() == "one\ntwo\n"


def test_a_connection_whose_other_side_is_gone_ends(monkeypatch):
    """The server sends a line and then answers no ping, as behind a firewall that has dropped the connection."""
    from aiohttp import web

    monkeypatch.setattr(api, "PING_SECONDS", 0.2)
    is_over = threading.Event()

    async def log(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        await socket.send_str("one\n")
        while not is_over.is_set():
            await asyncio.sleep(0.05)
        return socket

    async def follow_log() -> None:
        application = web.Application()
        application.router.add_get("/api/version", lambda _: web.json_response({"version": "4", "ray_version": "2"}))
        application.router.add_get("/api/jobs/{id}/logs/tail", log)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        client = await asyncio.to_thread(api.open_client, f"http://127.0.0.1:{runner.addresses[0][1]}")
        try:
            async for piece in client.tail_job_logs("job"):
                pieces.append(piece)
        finally:
            is_over.set()
            await runner.cleanup()

    pieces: list[str] = []
    with pytest.raises(ConnectionError, match="the connection was lost"):
        asyncio.run(asyncio.wait_for(follow_log(), 30))
    assert pieces == ["one\n"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_bars_stay_one_line_in_a_terminal():
    bars = [f"fits:  {n}%|█  | {n}/100 [00:0{n}<01:00,  1.00it/s, 3 pairs, 1.0 per minute]" for n in (1, 2)]
    log = f"starting\n{bars[0]}\n\n{bars[1]}\na: retried\nend"
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        printer = LogPrinter(stream)
        for piece in (log[:30], log[30:]):
            printer.write(piece)
        printer.close()
    assert file.getvalue() == log.replace("\n\n", "\n") + "\n"
    shown = [line.split("\x1b[2K")[-1] for line in terminal.getvalue().split("\n")]
    assert shown == ["starting", "a: retried", "end", bars[1], ""]


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://head:8265/", "http://head:8265"),
        ("head:8265", "http://head:8265"),
        ("https://ray.example.org/cluster", "https://ray.example.org/cluster"),
    ],
)
def test_addresses(address, url, monkeypatch):
    assert api.resolve_address(address) == url
    monkeypatch.setenv("RAY_ADDRESS", "http://other:8265")
    assert api.resolve_address(address) == url, "the flag is preferred"
    assert api.resolve_address(None) == "http://other:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://api:8265")
    assert api.resolve_address(None) == "http://api:8265"


@pytest.mark.parametrize("address", ["auto", "ray://head:10001", "head:6379", None])
def test_addresses_of_something_else_are_refused(address, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with pytest.raises(ValueError, match=r"wanted the URL of the cluster's dashboard, such as http://HEAD:8265"):
        api.resolve_address(address)


def test_errors_of_the_cluster_are_one_line(monkeypatch, tmp_path):
    from ray.exceptions import AuthenticationError
    from requests.exceptions import ReadTimeout

    for name in api.TOKEN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(api, "TOKEN_FILE", tmp_path / "auth_token")
    required, failed = "Authentication required: Unauthorized", "Authentication failed: Forbidden"
    cases = [
        (AuthenticationError(required), ValueError, "wants a token, and none was sent; set RAY_AUTH_MODE=token"),
        (AuthenticationError(failed), ValueError, r"auth_token does not exist; set RAY_AUTH_MODE=token"),
        (ConnectionError("refused"), ConnectionError, r"no answer; is the cluster up.*ssh -N -L 8265"),
        (ReadTimeout("slow"), ConnectionError, r"no answer \(ReadTimeout\)"),
        (RuntimeError("Request failed with status code 500:\n\n trace\n bad"), ConnectionError, "500:; bad"),
    ]
    for error, kind, said in cases:
        with pytest.raises(kind, match=said) as caught, api.explain_errors(URL):
            raise error
        assert "\n" not in str(caught.value)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    with pytest.raises(ValueError, match="refuses the token of RAY_AUTH_TOKEN") as caught, api.explain_errors(URL):
        raise AuthenticationError(failed)
    assert "secret" not in str(caught.value)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nowhere/token")
    with pytest.raises(ValueError, match="RAY_AUTH_TOKEN_PATH = /nowhere/token: no such file"):
        api.connect(URL)


def test_an_answer_that_is_not_rays_is_one_line():
    for error in (TypeError("argument after ** must be a mapping, not str"), KeyError("status")):
        name = type(error).__name__
        message = rf"^{URL}: does not answer as Ray's jobs API \({name}\)"
        with pytest.raises(ConnectionError, match=message), api.explain_errors(URL):
            raise error


def test_an_answer_that_trickles_is_given_up(monkeypatch, caplog):
    monkeypatch.setattr(api, "WHOLE_SECONDS", 1.0)
    monkeypatch.setattr(api, "SLOW_SECONDS", 0.2)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    caplog.set_level(logging.INFO)
    with trickling_server() as url, pytest.raises(ConnectionError, match=rf"^{url}: no answer; is the cluster up"):
        api.connect(url)
    assert f"{url}: no whole answer for 0 s; waiting for up to 1 s" in caplog.text


def test_a_log_that_cannot_be_read_is_said(cluster, capsys, monkeypatch):
    monkeypatch.setattr(follow, "PAUSE_SECONDS", 0.01)
    submit("generate", "s3://bucket/captures", *OUT)
    [job_id] = cluster.details
    tries = []

    async def tail(job_id: str) -> AsyncIterator[str]:
        tries.append(1)
        if len(tries) == 3:
            cluster.details[job_id].status = "SUCCEEDED"
        raise ConnectionError("closed by the proxy")
        yield ""

    cluster.tail_job_logs = tail  # type: ignore[method-assign]
    follow.follow_job(api.Cluster(URL, cluster), job_id, io.StringIO())
    said = [line for line in capsys.readouterr().err.splitlines() if "cannot be read" in line]
    assert said == [f"{job_id}: is RUNNING, but its log cannot be read (closed by the proxy); trying again"]
