"""Resolve paths and URLs to folders and object stores (obstore), and raise the same errors for all of them.

Only the protocols of `PROTOCOLS` are allowed: no shell (``pipe:``), no chained URLs. Credentials and endpoints are read
from the environment variables of the stores' own tools (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``,
``AWS_ALLOW_HTTP``, ...).
"""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from splatfix.deadlines import DeadlineError, call_within
from splatfix.extras import require_modules
from splatfix.process import acting_after, stop_requested

log = logging.getLogger(__name__)

PROTOCOLS = ("file", "memory", "http", "https", "s3", "s3a", "gs", "az", "abfs", "abfss")
RETRIES: dict[str, Any] = {"max_retries": 6, "retry_timeout": timedelta(minutes=2)}  # of obstore: about a second
CONNECT_SECONDS = 10.0
SILENT_SECONDS = 60.0  # without a byte of an answer, after which a request fails
GRACE_SECONDS = 60.0  # by which obstore's own limit of a read is longer: its error does not say what is slow
READ_SECONDS = 3600.0  # for a whole file or list: what ends a request that makes no progress is `SILENT_SECONDS`
PART_SECONDS = 600.0  # to send one part of a file; a store answers only when it has the part
SMALL_BYTES = 2**20  # of a file that is sent within `SILENT_SECONDS` over any link
PARTS: dict[str, Any] = {"chunk_size": 5 * 2**20, "max_concurrency": 4}  # all of which share the link
SLOW_SECONDS = 30.0  # of one request, before a message
# Settings of obstore's HTTP client that are read from variables like AWS_ALLOW_HTTP, GOOGLE_... and AZURE_...
CLIENT_SETTINGS = (
    *("allow_http", "allow_invalid_certificates", "connect_timeout", "default_content_type", "http1_only"),
    *("http2_only", "http2_keep_alive_interval", "http2_keep_alive_timeout", "http2_keep_alive_while_idle"),
    *("pool_idle_timeout", "pool_max_idle_per_host", "proxy_ca_certificate", "proxy_excludes", "proxy_url"),
    *("randomize_addresses", "read_timeout", "root_certificate", "timeout", "user_agent"),
)
OUTAGE_SECONDS = 300.0  # to repeat a request to a store that has answered this process before
STOPPING_SECONDS = 15.0  # the same in a command that was told to stop
MAX_PAUSE_SECONDS = 10.0  # between two requests
NOTICE_SECONDS = 30.0  # between messages about a store that does not answer
SLOW_NOTICE_SECONDS = 300.0  # between messages about a store whose requests take long
# In errors of obstore after which a request may succeed: no connection, or a busy server.
NO_ANSWER = re.compile(r"HTTP error: |status code: (408|429|5\d\d)|after \d+ retries")
REFUSALS = ("PermissionDeniedError", "UnauthenticatedError")  # of obstore
CREDENTIALS = {  # what to set where a store refuses or does not know who asks
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (for a public bucket AWS_SKIP_SIGNATURE=true)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (for a public bucket GOOGLE_SKIP_SIGNATURE=true)",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
# parts of the errors that stores raise without credentials
NO_CREDENTIALS = ("/latest/api/token", "/latest/meta-data", "/computeMetadata/", "Account must be specified")

_MEMORY_LOCK = threading.Lock()
_answered = set[str]()  # stores that have answered this process
_noticed: dict[str, float] = {}  # when it was last said that a store does not answer
_called_slow: dict[str, float] = {}  # when it was last said that a request to a store takes long

Answer = TypeVar("Answer")


class MissingFileError(ValueError):
    """Raised when a file does not exist."""


class StorageError(OSError):
    """Raised when a store cannot be reached, so that it is unknown whether a file exists."""


class SlowStoreError(StorageError):
    """Raised when a request has taken longer than it may, though bytes came; it is not repeated."""


def resolve(url: str, num_bytes: int = 0) -> Path | tuple[Any, str]:
    """Return a local path, or a store and the path in it; ``num_bytes`` are about to be written there."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", url)  # at least two letters, since C: is a drive
    protocol = match.group(1) if match else "file"
    if "::" in url or protocol not in PROTOCOLS:
        raise ValueError(f"{url}: wanted a local path or a URL of {', '.join(PROTOCOLS)}")
    if protocol == "file":
        return Path(url[len("file://") :] if url.startswith("file://") else url)
    bucket, _, path = url[len(protocol) + 1 :].lstrip("/").partition("/")  # an object key may contain # and ?
    path = path.strip("/")
    if protocol == "memory":
        return _memory(), f"{bucket}/{path}".strip("/")
    require_modules("obstore", user=f"{protocol}://{bucket}")
    with translate_errors(url):
        return open_store(f"{protocol}://{bucket}", num_bytes > SMALL_BYTES), path


@lru_cache(maxsize=64)
def open_store(root: str, sends_much: bool = False) -> Any:
    """Open a store whose requests last as long as they make progress, and end where they make none.

    While a file is sent no answer comes, so a store for files of more than `SMALL_BYTES` (``sends_much``) has no limit
    of silence, and `PART_SECONDS` for each part.
    """
    from obstore.store import from_url

    limits = {
        "connect_timeout": CONNECT_SECONDS,
        "timeout": PART_SECONDS if sends_much else READ_SECONDS + GRACE_SECONDS,
    }
    if not sends_much:
        limits["read_timeout"] = SILENT_SECONDS
    options = {name: f"{round(1000 * seconds)}ms" for name, seconds in limits.items()}
    if root.startswith("http://"):
        options["allow_http"] = "true"
    settings: Any = {"retry_config": RETRIES, "client_options": options | _client_settings(root)}
    return from_url(root, **settings)


def _client_settings(root: str) -> dict[str, str]:
    """Read the settings of the HTTP client from the environment: obstore ignores them where it is given options."""
    prefix = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE", "ab": "AZURE"}.get(root[:2])
    names = {name: f"{prefix}_{name.upper()}" for name in CLIENT_SETTINGS}
    return {name: os.environ[variable] for name, variable in names.items() if variable in os.environ}


def _memory() -> Any:
    """Return the store of ``memory://`` URLs, one for this process (for tests)."""
    with _MEMORY_LOCK:  # threads that come first at the same time get the same one
        return _make_memory()


@lru_cache(maxsize=1)
def _make_memory() -> Any:
    from obstore.store import MemoryStore

    return MemoryStore()


def ask(url: str, request: Callable[[], Answer], limit_seconds: float | None = None) -> Answer:
    """Send a request to a store, and repeat it while a store that has answered before does not answer.

    A store that has never answered this process is likely named or configured wrongly: its first error is raised. Any
    other has `OUTAGE_SECONDS` to come back, which is logged, or `STOPPING_SECONDS` after a stop signal, which also ends
    the wait for an answer.

    Args:
        url: of the file or folder, for errors.
        request: calls obstore; it may be called several times.
        limit_seconds: of one call, however slowly bytes come; None for none.

    Raises:
        MissingFileError: the file does not exist.
        SlowStoreError: ``limit_seconds`` are over.
        OSError: the store cannot be reached, or refuses access.
    """
    store, started, pause = "/".join(url.split("/", 3)[:3]), time.monotonic(), 0.5
    while True:
        try:
            with acting_after(SLOW_SECONDS, lambda: _say_slow(store)), translate_errors(url):
                answer = _call(url, request, limit_seconds)
        except MissingFileError:
            _answered.add(store)
            raise
        except SlowStoreError:
            raise
        except StorageError as error:
            if NO_ANSWER.search(str(error)) is None or store not in _answered:
                raise
            limit = OUTAGE_SECONDS if stop_requested() is None else STOPPING_SECONDS
            if time.monotonic() - started > limit:
                _answered.discard(store)  # what a command does at its end is not repeated as well
                raise
            _notice(store, error)
            time.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)
        else:
            _answered.add(store)
            return answer


def _call(url: str, request: Callable[[], Answer], limit_seconds: float | None) -> Answer:
    try:
        return call_within(limit_seconds, request)
    except DeadlineError as error:
        raise SlowStoreError(f"{url}: {error}: the link or the store is too slow") from None


def _say_slow(store: str) -> None:
    """Log that a request to a store takes long, at most once in `SLOW_NOTICE_SECONDS`."""
    now = time.monotonic()
    if now - _called_slow.get(store, -SLOW_NOTICE_SECONDS) >= SLOW_NOTICE_SECONDS:
        _called_slow[store] = now
        log.info(
            "%s: a request has taken %.0f s so far: the link is slow or the store does not answer; waiting until no "
            "byte has come for %.0f s, a file has taken %.0f s to read, or a part of one %.0f s to send",
            *(store, SLOW_SECONDS, SILENT_SECONDS, READ_SECONDS, PART_SECONDS),
        )


def _notice(store: str, error: Exception) -> None:
    """Log that a store does not answer, at most once in `NOTICE_SECONDS`."""
    now = time.monotonic()
    if now - _noticed.get(store, -NOTICE_SECONDS) >= NOTICE_SECONDS:
        _noticed[store] = now
        log.warning("%s does not answer; trying again for up to %.0f s (%s)", store, OUTAGE_SECONDS, error)


@contextmanager
def translate_errors(url: str) -> Iterator[None]:
    """Raise the same errors for every store: MissingFileError for a missing file, OSError for any other error."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        _refuse_missing_bucket(url, error)
        raise MissingFileError(f"{url}: cannot be opened ({_first_line(error)})") from None
    except (OSError, ValueError):
        raise
    except Exception as error:  # obstore's own errors
        _refuse_missing_bucket(url, error)
        if type(error).__name__ in REFUSALS:
            reason = f"the store refuses access; check {_credentials(url)}: {_first_line(error)}"
            raise PermissionError(errno.EACCES, reason, url) from None
        if any(sign in str(error) for sign in NO_CREDENTIALS):
            raise PermissionError(errno.EACCES, f"no credentials; set {_credentials(url)}", url) from None
        raise StorageError(f"{url}: {_first_line(error)}") from None


def _refuse_missing_bucket(url: str, error: Exception) -> None:
    """Raise a StorageError if a store has answered that the bucket does not exist: no file in it can be found."""
    if "NoSuchBucket" in str(error):
        bucket = url.split("://", 1)[-1].split("/", 1)[0]
        raise StorageError(
            f"{url}: there is no bucket {bucket!r}; check its name, AWS_ENDPOINT_URL and AWS_REGION"
        ) from None


def _credentials(url: str) -> str:
    """Name the environment variables with the credentials of a store."""
    protocol = url.split(":", 1)[0]
    kind = "az" if protocol.startswith(("az", "abfs")) else protocol[:2]
    return CREDENTIALS.get(kind, "its credentials")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
