"""Read, write and list files in local folders and object stores (obstore) by path or URL.

Only the protocols of `PROTOCOLS` are allowed: no shell (``pipe:``), no chained URLs. Credentials and endpoints are read
from the environment variables of the stores' own tools (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``,
``AWS_ALLOW_HTTP``, ...). Writes are atomic: a local file is written under a temporary name and renamed, and stores show
whole objects only.
"""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from splatfix import files
from splatfix.files import sync, temporary_beside, write_whole

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK)
REFUSALS = ("PermissionDeniedError", "UnauthenticatedError")  # of obstore
PROTOCOLS = ("file", "memory", "http", "https", "s3", "s3a", "gs", "az", "abfs", "abfss")
RETRIES: dict[str, Any] = {"max_retries": 6, "retry_timeout": timedelta(minutes=2)}  # of requests to object stores


def join(url: str | Path, name: str) -> str:
    """Return the path or URL of a file in a folder."""
    return f"{str(url).rstrip('/')}/{name}"


def is_local(url: str | Path) -> bool:
    """Whether a path or URL is in the file system. ValueError if its protocol is not allowed."""
    return isinstance(_resolve(str(url)), Path)


def absolute(url: str | Path) -> str:
    """Make a local path absolute, so that it does not depend on the working directory; a URL is returned as it is."""
    place = _resolve(str(url))
    return os.path.abspath(place) if isinstance(place, Path) else str(url).rstrip("/")


class MissingFileError(ValueError):
    """Raised when a file does not exist."""


class StorageError(OSError):
    """Raised when a store cannot be reached, so that it is unknown whether a file exists."""


def open_binary(url: str) -> io.BufferedIOBase:
    """Open a file for reading.

    Raises:
        ValueError: it does not exist (MissingFileError), or its protocol is not allowed.
        OSError: the store or disk cannot be read.
    """
    place = _resolve(url)
    with _translate_errors(url):
        return place.open("rb") if isinstance(place, Path) else io.BytesIO(_get(*place))


def read_bytes(url: str) -> bytes:
    """Read a whole file. Errors as `open_binary`."""
    place = _resolve(url)
    with _translate_errors(url):
        return place.read_bytes() if isinstance(place, Path) else _get(*place)


def exists(url: str) -> bool:
    """Whether a file exists. OSError if the store cannot be reached."""
    place = _resolve(url)
    if isinstance(place, Path):
        return place.is_file()
    import obstore

    try:
        with _translate_errors(url):
            obstore.head(*place)
    except MissingFileError:
        return False
    return True


def list_folder(url: str | Path) -> tuple[list[str], list[str]]:
    """List the sorted names of the files and of the folders in a folder; both are empty if it does not exist."""
    place = _resolve(str(url))
    if isinstance(place, Path):
        try:
            with os.scandir(place) as entries:
                children = [(entry.name, entry.is_dir()) for entry in entries]
        except FileNotFoundError:
            return [], []
        names = sorted(name for name, is_folder in children if not is_folder)
        return names, sorted(name for name, is_folder in children if is_folder)
    import obstore

    store, prefix = place
    with _translate_errors(str(url)):
        listing = obstore.list_with_delimiter(store, prefix or None)
    names = sorted(str(entry["path"]).rsplit("/", 1)[-1] for entry in listing["objects"])
    return names, sorted(str(prefix).rstrip("/").rsplit("/", 1)[-1] for prefix in listing["common_prefixes"])


def list_names(url: str | Path) -> list[str]:
    """List the sorted names of the files in a folder; empty if it does not exist."""
    return list_folder(url)[0]


def list_tree(url: str | Path) -> list[str]:
    """List the sorted relative paths of all files below a folder; empty if it does not exist."""
    place = _resolve(str(url))
    if isinstance(place, Path):
        return sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())
    import obstore

    store, prefix = place
    start = len(prefix) + 1 if prefix else 0
    with _translate_errors(str(url)):
        return sorted(entry["path"][start:] for batch in obstore.list(store, prefix or None) for entry in batch)


def write_bytes(url: str, content: bytes) -> None:
    """Write a file atomically; an existing one is replaced. OSError if that fails."""
    place = _resolve(url)
    if isinstance(place, Path):
        with write_whole(place) as temporary:
            temporary.write_bytes(content)
        return
    import obstore

    with _translate_errors(url):
        obstore.put(*place, content)


def create(url: str, content: bytes) -> bool:
    """Write a file atomically unless it exists. Return True for exactly one of several concurrent writers."""
    place = _resolve(url)
    if isinstance(place, Path):
        with temporary_beside(place) as temporary:
            temporary.write_bytes(content)
            sync(temporary)
            try:
                os.link(temporary, place)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                return _create_without_links(place, content)
        return True
    import obstore
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    with _translate_errors(url):
        try:
            obstore.put(*place, content, mode="create")
        except (AlreadyExistsError, PreconditionError):
            return False
    return True


def delete(url: str) -> None:
    """Delete a file, if it exists."""
    place = _resolve(url)
    if isinstance(place, Path):
        place.unlink(missing_ok=True)
        return
    import obstore

    try:
        with _translate_errors(url):
            obstore.delete(*place)
    except MissingFileError:  # raised by some stores only
        return


def _create_without_links(place: Path, content: bytes) -> bool:
    """Create a file on a file system without hard links: one writer succeeds, but readers may see a partial file."""
    try:
        file = place.open("xb")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        place.unlink(missing_ok=True)
        raise
    return True


def drop_leftovers(url: str) -> None:
    """Delete the temporary files of killed processes of this machine from a local folder."""
    place = _resolve(url)
    if isinstance(place, Path):
        files.drop_leftovers(place)


def _get(store: Any, path: str) -> bytes:
    import obstore

    return bytes(obstore.get(store, path).bytes())


def _resolve(url: str) -> Path | tuple[Any, str]:
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
    with _translate_errors(url):
        return _store(f"{protocol}://{bucket}"), path


@lru_cache(maxsize=64)
def _store(root: str) -> Any:
    from obstore.store import from_url

    settings: Any = {"retry_config": RETRIES}
    return from_url(root, **settings)


@lru_cache(maxsize=1)
def _memory() -> Any:
    """Return the store of ``memory://`` URLs, one for this process (for tests)."""
    from obstore.store import MemoryStore

    return MemoryStore()


@contextmanager
def _translate_errors(url: str) -> Iterator[None]:
    """Raise the same errors for every store: MissingFileError for a missing file, OSError for any other error."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise MissingFileError(f"{url}: cannot be opened ({_first_line(error)})") from None
    except OSError:
        raise
    except Exception as error:  # obstore's own errors
        if type(error).__name__ in REFUSALS:
            raise PermissionError(errno.EACCES, _first_line(error), url) from None
        raise StorageError(f"{url}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
