"""Where shards lie: local folders and object stores behind one small door (obstore).

Only named protocols are opened: no shell (``pipe:``), no chained URLs. Credentials and endpoints come from the
environment, as the stores' own tools read it (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ``AWS_ALLOW_HTTP``, ...).
A file appears whole: locally it is written aside, synchronised and renamed; on an object store it is one object.
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
    """A file's place within a folder or URL."""
    return f"{str(url).rstrip('/')}/{name}"


def is_local(url: str | Path) -> bool:
    """Whether a place is in this machine's file system. ValueError where its protocol is not allowed."""
    return isinstance(_resolve(str(url)), Path)


def absolute(url: str | Path) -> str:
    """A place as every process understands it, whatever folder it works in."""
    place = _resolve(str(url))
    return os.path.abspath(place) if isinstance(place, Path) else str(url).rstrip("/")


class NotThereError(ValueError):
    """There is no such file."""


class StorageError(OSError):
    """A store that does not answer, or refuses: what is there is not known."""


def open_binary(url: str) -> io.BufferedIOBase:
    """Open a file for reading.

    Raises:
        ValueError: it does not exist (NotThereError), or its protocol is not allowed.
        OSError: it cannot be read now.
    """
    place = _resolve(url)
    with _told(url):
        return place.open("rb") if isinstance(place, Path) else io.BytesIO(_get(*place))


def read_bytes(url: str) -> bytes:
    """The content of a file. Errors as `open_binary`."""
    place = _resolve(url)
    with _told(url):
        return place.read_bytes() if isinstance(place, Path) else _get(*place)


def exists(url: str) -> bool:
    """Whether there is a file. OSError where that cannot be found out: it must not pass for "not there"."""
    place = _resolve(url)
    if isinstance(place, Path):
        return place.is_file()
    import obstore

    try:
        with _told(url):
            obstore.head(*place)
    except NotThereError:
        return False
    return True


def list_folder(url: str | Path) -> tuple[list[str], list[str]]:
    """Sorted names of the files and of the folders in a folder; empty where it does not exist."""
    place = _resolve(str(url))
    if isinstance(place, Path):
        try:
            with os.scandir(place) as entries:
                found = [(entry.name, entry.is_dir()) for entry in entries]
        except FileNotFoundError:
            return [], []
        return sorted(n for n, folder in found if not folder), sorted(n for n, folder in found if folder)
    import obstore

    store, prefix = place
    with _told(str(url)):
        listed = obstore.list_with_delimiter(store, prefix or None)
    files = sorted(str(entry["path"]).rsplit("/", 1)[-1] for entry in listed["objects"])
    return files, sorted(str(each).rstrip("/").rsplit("/", 1)[-1] for each in listed["common_prefixes"])


def list_names(url: str | Path) -> list[str]:
    """Sorted names of the files in a folder; empty where it does not exist."""
    return list_folder(url)[0]


def list_tree(url: str | Path) -> list[str]:
    """Sorted paths of all files below a folder, relative to it; empty where it does not exist."""
    place = _resolve(str(url))
    if isinstance(place, Path):
        return sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())
    import obstore

    store, prefix = place
    start = len(prefix) + 1 if prefix else 0
    with _told(str(url)):
        return sorted(entry["path"][start:] for batch in obstore.list(store, prefix or None) for entry in batch)


def commit(url: str, content: bytes) -> None:
    """Write a file whole; one that was there before is replaced. OSError where that fails."""
    place = _resolve(url)
    if isinstance(place, Path):
        with write_whole(place) as temporary:
            temporary.write_bytes(content)
        return
    import obstore

    with _told(url):
        obstore.put(*place, content)


def create(url: str, content: bytes) -> bool:
    """Write a file whole, but only where there is none: of several writers exactly one is told True."""
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

    with _told(url):
        try:
            obstore.put(*place, content, mode="create")
        except (AlreadyExistsError, PreconditionError):
            return False
    return True


def delete(url: str) -> None:
    """Remove a file; nothing happens where there is none."""
    place = _resolve(url)
    if isinstance(place, Path):
        place.unlink(missing_ok=True)
        return
    import obstore

    try:
        with _told(url):
            obstore.delete(*place)
    except NotThereError:  # some stores mind that it is not there
        return


def _create_without_links(place: Path, content: bytes) -> bool:
    """For file systems without hard links: still only once, but for a moment not whole."""
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
    """Remove the temporary files that killed processes of this machine left in a local folder."""
    place = _resolve(url)
    if isinstance(place, Path):
        files.drop_leftovers(place)


def _get(store: Any, path: str) -> bytes:
    import obstore

    return bytes(obstore.get(store, path).bytes())


def _resolve(url: str) -> Path | tuple[Any, str]:
    """A local path, or a store and a path within it."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", url)  # two letters at least: a drive is not a protocol
    protocol = match.group(1) if match else "file"
    if "::" in url or protocol not in PROTOCOLS:
        raise ValueError(f"{url}: wanted a local path or a URL of {', '.join(PROTOCOLS)}")
    if protocol == "file":
        return Path(url[len("file://") :] if url.startswith("file://") else url)
    bucket, _, path = url[len(protocol) + 1 :].lstrip("/").partition("/")  # a key may hold # and ?
    path = path.strip("/")
    if protocol == "memory":
        return _memory(), f"{bucket}/{path}".strip("/")
    with _told(url):
        return _store(f"{protocol}://{bucket}"), path


@lru_cache(maxsize=64)
def _store(root: str) -> Any:
    from obstore.store import from_url

    settings: Any = {"retry_config": RETRIES}
    return from_url(root, **settings)


@lru_cache(maxsize=1)
def _memory() -> Any:
    """One store for this process: for tests."""
    from obstore.store import MemoryStore

    return MemoryStore()


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Errors in one kind for every store: NotThereError for what is not there, OSError for what does not work."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise NotThereError(f"{url}: cannot be opened ({_first_line(error)})") from None
    except OSError:
        raise
    except Exception as error:  # obstore's own kinds
        if type(error).__name__ in REFUSALS:
            raise PermissionError(errno.EACCES, _first_line(error), url) from None
        raise StorageError(f"{url}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
