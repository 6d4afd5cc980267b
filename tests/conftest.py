"""Type and shape checks of the whole package while tests run, and fixtures that several test folders share."""

import logging
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # as in mypy, an int will do for a float
jaxtyping.install_import_hook("splatfix", "tests.conftest.checked")  # before anything of splatfix is imported

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def scenes() -> Path:
    """The folder with the development scenes (``SPLATFIX_SCENES``, default ``../shared/scenes``); skips without it."""
    folder = Path(os.environ.get("SPLATFIX_SCENES", ROOT.parent / "shared" / "scenes"))
    if not folder.is_dir():
        pytest.skip(f"no scenes at {folder}; set SPLATFIX_SCENES")
    return folder


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """What a command sets up for its messages ends with the test."""
    logger = logging.getLogger("splatfix")
    before = logger.propagate, logger.handlers[:], logger.level
    yield
    logger.propagate, logger.handlers, level = before
    logger.setLevel(level)


@pytest.fixture
def bucket(monkeypatch) -> Iterator[str]:
    """A bucket of an S3 server on this machine, for this process and those that it starts: its URL."""
    import obstore  # noqa: F401  (before anything reads the environment)
    from moto.server import ThreadedMotoServer

    from splatfix.pairs import storage

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
    for name, value in (settings | {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}).items():
        monkeypatch.setenv(name, value)
    storage._store.cache_clear()
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/pairs", method="PUT")).close()
    yield "s3://pairs"
    storage._store.cache_clear()
    server.stop()


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As users run splatfix, without the checks of types: for what it says itself about arguments of a wrong kind."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
