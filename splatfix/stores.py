"""Resolve paths and URLs to folders and object stores (obstore), and raise the same errors for all of them.

Only the protocols of `PROTOCOLS` are allowed: no shell (``pipe:``), no chained URLs. Credentials and endpoints are read
from the environment variables of the stores' own tools (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``,
``AWS_ALLOW_HTTP``, ...).
"""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

PROTOCOLS = ("file", "memory", "http", "https", "s3", "s3a", "gs", "az", "abfs", "abfss")
RETRIES: dict[str, Any] = {"max_retries": 6, "retry_timeout": timedelta(minutes=2)}  # of requests to object stores
REFUSALS = ("PermissionDeniedError", "UnauthenticatedError")  # of obstore
CREDENTIALS = {  # what to set where a store refuses or does not know who asks
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (for a public bucket AWS_SKIP_SIGNATURE=true)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (for a public bucket GOOGLE_SKIP_SIGNATURE=true)",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
# parts of the errors that stores raise without credentials
NO_CREDENTIALS = ("/latest/api/token", "/latest/meta-data", "/computeMetadata/", "Account must be specified")

_MEMORY_LOCK = threading.Lock()


class MissingFileError(ValueError):
    """Raised when a file does not exist."""


class StorageError(OSError):
    """Raised when a store cannot be reached, so that it is unknown whether a file exists."""


def resolve(url: str) -> Path | tuple[Any, str]:
    """Return a local path, or a store and the path in it."""
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
    with translate_errors(url):
        return open_store(f"{protocol}://{bucket}"), path


@lru_cache(maxsize=64)
def open_store(root: str) -> Any:
    from obstore.store import from_url

    settings: Any = {"retry_config": RETRIES}
    return from_url(root, **settings)


def _memory() -> Any:
    """Return the store of ``memory://`` URLs, one for this process (for tests)."""
    with _MEMORY_LOCK:  # threads that come first at the same time get the same one
        return _make_memory()


@lru_cache(maxsize=1)
def _make_memory() -> Any:
    from obstore.store import MemoryStore

    return MemoryStore()


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
