"""The jobs API of a Ray cluster, with bounded waits and errors of one line. The only home of ray in this package."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pydantic

from splatfix.deadlines import call_within
from splatfix.extras import require_modules
from splatfix.process import acting_after

log = logging.getLogger(__name__)

ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # in the order in which Ray reads them
TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
TOKEN_FILE = Path.home() / ".ray" / "auth_token"  # that Ray reads without these variables
TOKEN_REMEDY = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file with the cluster's token"
UNREACHABLE = (
    "is the cluster up, and its dashboard reachable from here? Forward its port (ssh -N -L 8265:localhost:8265 HEAD, "
    "or kubectl port-forward service/NAME-head-svc 8265) and use --address http://localhost:8265"
)
CHATTY_LOGGERS = (
    *("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"),
    *("ray._private.runtime_env.packaging", "ray._private.runtime_env.py_modules"),
)
TIMEOUT_SECONDS = (10.0, 120.0)  # to connect, and between two bytes of an answer
UPLOAD_SECONDS = (600.0, 120.0)  # the first is for the body of the request, too
WHOLE_SECONDS = 300.0  # for a whole answer, however slowly its bytes come
WHOLE_UPLOAD_SECONDS = 1800.0  # the same of an upload
SLOW_SECONDS = 10.0  # of one request, before a message
START_SECONDS = 120.0  # that a cluster may take no jobs after its start
PAUSE_SECONDS = 2.0  # between two attempts to submit
PING_SECONDS = 30.0  # between pings to a cluster whose log is followed; without an answer to one, it is gone
NOT_READY = "No available agent"  # in Ray's answer then
ENDED = ("STOPPED", "SUCCEEDED", "FAILED")


@dataclass(frozen=True, kw_only=True)
class JobInfo:
    """What the cluster knows of a job. Times are in seconds since 1970; None where it has not started or ended.

    Attributes:
        status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
        exit_code: of its process; None while it runs, and where Ray does not tell (after a stop).
        stop_seconds: how long a stop waits for the process to end before it is killed.
    """

    id: str
    status: str
    entrypoint: str = ""
    message: str = ""
    started: float | None = None
    ended: float | None = None
    metadata: dict[str, str]
    exit_code: int | None = None
    stop_seconds: int = 3

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


class Cluster:
    """A cluster that jobs are submitted to.

    All methods raise ConnectionError where it does not answer, and ValueError where it refuses a token or knows no
    such job.
    """

    def __init__(self, address: str, client: Any) -> None:
        self.address = address
        self._client = client

    def submit(self, job_id: str, entrypoint: str, **options: Any) -> str:
        """Start a job, as soon as the cluster takes some; returns its id. ValueError if that id has been used."""
        end, has_waited = time.monotonic() + START_SECONDS, False
        while True:
            try:
                with explain_errors(self.address):
                    return self._client.submit_job(submission_id=job_id, entrypoint=entrypoint, **options)
            except ConnectionError as error:
                if NOT_READY not in str(error) or time.monotonic() > end:
                    raise
            if not has_waited:
                log.info("%s: the cluster has just started and takes no jobs yet; waiting", self.address)
            has_waited = True
            time.sleep(PAUSE_SECONDS)

    def job(self, job_id: str) -> JobInfo:
        """What is known of a job. ValueError where there is none; the message lists those of splatfix."""
        try:
            with explain_errors(self.address):
                return _info(self._client.get_job_info(job_id))
        except UnknownJobError:
            known = [info.id for info in self.jobs() if "splatfix_job" in info.metadata]
            listed = f"known: {', '.join(known[:8])}" if known else "it has none of splatfix"
            raise ValueError(f"{job_id}: no such job at {self.address}; {listed}") from None

    def jobs(self) -> list[JobInfo]:
        """All submitted jobs, the newest first."""
        with explain_errors(self.address):
            found = [_info(details) for details in self._client.list_jobs() if details.submission_id]
        return sorted(found, key=lambda info: info.started or 0.0, reverse=True)

    def log(self, job_id: str) -> str:
        """The whole log of a job."""
        with explain_errors(self.address):
            return self._client.get_job_logs(job_id)

    def tail_log(self, job_id: str) -> AsyncIterator[str]:
        """The log of a job from its start, piece by piece, until the job has ended or the connection is lost."""
        return self._client.tail_job_logs(job_id)

    def stop(self, job_id: str) -> None:
        """Ask a job to end; returns at once."""
        with explain_errors(self.address):
            self._client.stop_job(job_id)


class UnknownJobError(ValueError):
    """Raised when the cluster has no such job."""


def resolve_address(address: str | None) -> str:
    """The URL of a cluster's dashboard: ``address``, else that of RAY_API_SERVER_ADDRESS or RAY_ADDRESS.

    Raises:
        ValueError: neither is given, or it is no address of a dashboard.
    """
    source, found = "--address", address
    for name in ADDRESS_VARIABLES:
        if found is None and os.environ.get(name):
            source, found = name, os.environ[name]
    wanted = "the URL of the cluster's dashboard, such as http://HEAD:8265"
    if found is None:
        raise ValueError(f"--address: not given, and RAY_ADDRESS is not set; wanted {wanted}")
    url = found.rstrip("/") if "://" in found else f"http://{found}"
    if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", url) or found == "auto" or url.endswith(":6379"):
        raise ValueError(f"{source} = {found!r}: wanted {wanted}")
    return url


def connect(address: str | None) -> Cluster:
    """Connect to the jobs API of a cluster. Raises as `resolve_address` and `Cluster`."""
    url = resolve_address(address)
    if "RAY_AUTH_MODE" not in os.environ and any(os.environ.get(name) for name in TOKEN_VARIABLES):
        os.environ["RAY_AUTH_MODE"] = "token"  # read when ray is imported
    token_path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if token_path and not os.environ.get("RAY_AUTH_TOKEN") and not Path(token_path).is_file():
        raise ValueError(f"RAY_AUTH_TOKEN_PATH = {token_path}: no such file")
    require_modules("ray", "aiohttp", user="splatfix submit")
    with explain_errors(url):
        return Cluster(url, open_client(url))


def open_client(url: str) -> Any:
    """Ray's client for the jobs API at a URL, which checks the connection."""
    import aiohttp
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):
        """Ray's client waits for ever; this one does not."""

        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            is_upload = method == "PUT"
            options.setdefault("timeout", UPLOAD_SECONDS if is_upload else TIMEOUT_SECONDS)
            request = partial(super()._do_request, method, endpoint, **options)
            with acting_after(SLOW_SECONDS, partial(_say_slow, url, is_upload)):
                return call_within(WHOLE_UPLOAD_SECONDS if is_upload else WHOLE_SECONDS, request)

        async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
            url = f"{self._address}/api/jobs/{job_id}/logs/tail"
            async with (
                aiohttp.ClientSession(cookies=self._cookies, headers=self._headers) as session,
                session.ws_connect(url, ssl=self._ssl_context, heartbeat=PING_SECONDS) as socket,
            ):
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        yield message.data
                if socket.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE:
                    raise ConnectionError(f"{url}: the connection was lost")

    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    variables = {name: os.environ.pop(name) for name in ADDRESS_VARIABLES if name in os.environ}
    try:  # Ray prefers the variables to the address that it is given
        return Client(url)
    finally:
        os.environ.update(variables)


def _say_slow(url: str, is_upload: bool) -> None:
    seconds = WHOLE_UPLOAD_SECONDS if is_upload else WHOLE_SECONDS
    log.info("%s: no whole answer for %.0f s; waiting for up to %.0f s", url, SLOW_SECONDS, seconds)


@contextmanager
def explain_errors(url: str) -> Iterator[None]:
    """Turn the errors of Ray's client into one line each: what failed, and what to do."""
    from ray.exceptions import AuthenticationError
    from requests.exceptions import RequestException

    try:
        yield
    except AuthenticationError as error:
        raise ValueError(f"{url}: {_explain_refusal(str(error))}") from None
    except (ConnectionError, TimeoutError, RequestException) as error:
        reason = f" ({type(error).__name__})" if isinstance(error, RequestException) else ""
        raise ConnectionError(f"{url}: no answer{reason}; {UNREACHABLE}") from None
    except (pydantic.ValidationError, TypeError, KeyError, AttributeError) as error:
        raise ConnectionError(
            f"{url}: does not answer as Ray's jobs API ({type(error).__name__}); is it the address of a Ray dashboard, "
            "of a version that this Ray knows?"
        ) from None
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
        if "does not exist" in lines[0] and "404" in lines[0]:
            raise UnknownJobError(lines[0]) from None
        if "already exists" in str(error):
            raise ValueError(next(line for line in lines if "already exists" in line)) from None
        raise ConnectionError(f"{url}: {lines[0]}{f'; {lines[-1]}' if len(lines) > 1 else ''}") from None


def _explain_refusal(error: str) -> str:
    """Why a cluster refuses a request (Ray's text for 401 and 403), and the remedy."""
    if error.startswith("Authentication required"):
        return f"the cluster wants a token, and none was sent; {TOKEN_REMEDY}"
    if given := [name for name in TOKEN_VARIABLES if os.environ.get(name)]:
        return f"the cluster refuses the token of {given[0]}; {TOKEN_REMEDY}"
    if not TOKEN_FILE.exists():
        return f"the cluster wants a token, and {TOKEN_FILE} does not exist; {TOKEN_REMEDY}"
    return f"the cluster refuses the token of {TOKEN_FILE}; {TOKEN_REMEDY}"


def _info(details: Any) -> JobInfo:
    variables = (details.runtime_env or {}).get("env_vars") or {}
    seconds = str(variables.get("RAY_JOB_STOP_WAIT_TIME_S", ""))
    return JobInfo(
        id=details.submission_id,
        status=str(getattr(details.status, "value", details.status)),
        entrypoint=details.entrypoint,
        message=details.message or "",
        started=None if details.start_time is None else details.start_time / 1000,
        ended=None if not details.end_time else details.end_time / 1000,
        metadata=dict(details.metadata or {}),
        exit_code=details.driver_exit_code,
        stop_seconds=int(seconds) if seconds.isdigit() else 3,
    )
