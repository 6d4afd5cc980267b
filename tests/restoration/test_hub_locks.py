"""A file of the Hub that another process downloads is waited for with a message, and not without end."""

from __future__ import annotations

import fcntl
import logging
from pathlib import Path
from typing import Any

import pytest

from splatfix.restoration import checkpoint, hub_locks
from splatfix.restoration.flux import loading
from splatfix.restoration.flux.failures import ModelError, explain
from tests.fake_hub import Repository

pytest.importorskip("huggingface_hub")


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A lock of the Hub's client that is held elsewhere; taking it."""
    from huggingface_hub import constants
    from huggingface_hub.utils import WeakFileLock

    monkeypatch.setattr(constants, "FILELOCK_LOG_EVERY_SECONDS", 0.05)
    monkeypatch.setattr(hub_locks, "WAIT_SECONDS", 0.3)
    logger = logging.getLogger(hub_locks.LOGGER)
    level, filters = logger.level, list(logger.filters)
    hub_locks.watch_hub_locks.cache_clear()
    file = (tmp_path / "etag.lock").open("w")
    fcntl.flock(file, fcntl.LOCK_EX)

    def take(*_: Any, local_files_only: bool = False, **__: Any) -> None:
        if local_files_only:
            raise OSError("not cached")
        with WeakFileLock(tmp_path / "etag.lock", timeout=60):  # the limit is only for a test that fails
            raise AssertionError("the lock is held")

    yield take
    file.close()
    hub_locks.watch_hub_locks.cache_clear()
    logger.setLevel(level)
    logger.filters[:] = filters


def test_a_wait_for_a_download_is_said_and_ends(held: Any, tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(logging.getLogger("splatfix"), "propagate", True)
    monkeypatch.setattr(loading, "announce_download", lambda *_, **__: None)
    with (
        caplog.at_level(logging.INFO, logger="splatfix"),
        pytest.raises(ModelError) as caught,
        explain("owner/name"),
    ):
        loading._from_pretrained(held, "owner/name", local_files_only=False)
    lock = tmp_path / "etag.lock"
    (message,) = [record.getMessage() for record in caplog.records]  # once, although the client says it each 0.05 s
    assert message == (
        "waiting for another process that downloads the same file of the Hugging Face Hub: 0 s of up to 0 s "
        f"(lock {lock})"
    )
    assert str(caught.value).startswith("model 'owner/name': another process has downloaded the same file for 0 s; ")
    assert str(lock) in str(caught.value)


def test_a_checkpoint_waits_no_longer_either(held: Any, monkeypatch, hub_server) -> None:
    repository = hub_server.repositories["owner/name"] = Repository()
    repository.commit({"config.json": b"{}"})
    monkeypatch.setattr("huggingface_hub.hf_hub_download", held)
    with pytest.raises(ValueError, match=r"owner/name@.*: another process has downloaded the same file"):
        checkpoint.find_checkpoint("owner/name", ["config.json"])


def test_other_messages_of_the_client_stay_as_they_are(held: Any, caplog) -> None:
    assert held is not None
    hub_locks.watch_hub_locks()
    for level in (logging.INFO, logging.WARNING):
        logging.getLogger(hub_locks.LOGGER).handle(
            logging.LogRecord(hub_locks.LOGGER, level, "", 0, "another message", (), None)
        )
    assert {record.levelno for record in caplog.records} <= {logging.WARNING}
