"""Type and shape checks of the whole package while tests run, and fixtures that several test folders share."""

import functools
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
from beartype import BeartypeConf, beartype

from tests.fake_hub import FakeHub, fake_hub, use_hub
from tests.fake_ray_metrics import FakeRayMetrics

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # as in mypy, an int will do for a float
jaxtyping.install_import_hook("splatfix", "tests.conftest.checked")  # before anything of splatfix is imported

ROOT = Path(__file__).resolve().parents[1]
Start = Callable[[], tuple[str, Callable[[], None]]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that start Ray first, since those of one process take the longest."""
    items.sort(key=lambda item: item.get_closest_marker("starts_ray") is None)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file in one process, and all that start Ray in the same one: two Rays disturb each other."""
    from xdist.scheduler import LoadScopeScheduling

    @functools.cache
    def starts_ray(file: str) -> bool:
        return "pytest.mark.starts_ray" in (config.rootpath / file).read_text()

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return "Ray" if starts_ray(file) else file

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def scenes() -> Path:
    """The folder with the development scenes (``SPLATFIX_SCENES``, default ``../shared/scenes``); skips without it."""
    folder = Path(os.environ.get("SPLATFIX_SCENES", ROOT.parent / "shared" / "scenes"))
    if not folder.is_dir():
        pytest.skip(f"no scenes at {folder}; set SPLATFIX_SCENES")
    return folder


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """A signal that a test sends to this process stops no later test."""
    from splatfix import process

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    process._requested = None
    for number, handler in handlers.items():
        if handler is not None:  # None: set by C code, as pycolmap's
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """A test starts without what commands set up for their messages, also those that a shared fixture ran."""
    logger = logging.getLogger("splatfix")
    logger.propagate, logger.handlers = True, []
    logger.setLevel(logging.NOTSET)
    yield
    logger.propagate, logger.handlers = True, []
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def bucket(monkeypatch, tmp_path_factory) -> Iterator[str]:
    """A bucket of an S3 server on this machine, for this process and those that it starts: its URL."""
    import obstore  # noqa: F401  (before anything reads the environment)
    from moto.server import ThreadedMotoServer

    from splatfix import stores

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
    for name, value in (settings | {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SPLATFIX_CACHE", str(tmp_path_factory.mktemp("cache")))
    stores.open_store.cache_clear()
    for method, path in (("POST", "moto-api/reset"), ("PUT", "pairs")):  # it keeps the objects of earlier servers
        urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/{path}", method=method)).close()
    yield "s3://pairs"
    stores.open_store.cache_clear()
    server.stop()


@pytest.fixture
def ray_metrics(monkeypatch) -> FakeRayMetrics:
    """What the telemetry sends, as if this process were connected to Ray; gauges are repeated all the time."""
    from splatfix import telemetry

    fake = FakeRayMetrics()
    monkeypatch.setattr(telemetry, "_connected_metrics", lambda: fake)
    monkeypatch.setattr(telemetry, "REPEAT_SECONDS", 0.01)
    return fake


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As users run splatfix, without the checks of types: for what it says itself about arguments of a wrong kind."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """An SQLite file with MLflow's tables, which take seconds to make."""
    from tests.waiting import client

    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def mlflow_uri(empty_database: Path, tmp_path: Path) -> str:
    """Of an MLflow without runs, in a folder of this test."""
    path = tmp_path / "mlflow" / "mlflow.db"
    path.parent.mkdir()
    shutil.copy(empty_database, path)
    return f"sqlite:///{path}"


@pytest.fixture
def mlflow_server(mlflow_uri: str, tmp_path: Path) -> Iterator[Start]:
    """Starts an MLflow server as on a cluster, again and again on the same port and database: its URI, and a stop."""
    from tests.waiting import wait_for

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started: list[subprocess.Popen] = []

    def stop() -> None:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own
                process.wait()

    def start() -> tuple[str, Callable[[], None]]:
        settings = {"PORT": str(port), "WORKERS": "1", "STORE": mlflow_uri, "ARTIFACTS": str(tmp_path / "stored")}
        settings = {f"TRACKING_{name}": value for name, value in (settings | {"PYTHON": sys.executable}).items()}
        command, environment = [str(ROOT / "cluster" / "tracking_server.sh")], {**os.environ, **settings}
        with (tmp_path / "server.log").open("ab") as log:
            process = subprocess.Popen(
                command, env=environment, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
            )
        started.append(process)

        def answers() -> bool:
            assert process.poll() is None, (tmp_path / "server.log").read_text()[-2000:]
            try:
                return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200
            except OSError:
                return False

        wait_for(answers)
        return f"http://127.0.0.1:{port}", stop

    yield start
    stop()


@pytest.fixture
def hub_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hugging Face Hub that this process uses, with a token that may write and an empty cache."""
    with fake_hub() as server:
        use_hub(monkeypatch, server.url, tmp_path / "home")
        yield server
