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
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from splatfix import files
from splatfix.files import sync, temporary_beside, write_whole

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK)
REFUSALS = ("PermissionDeniedError", "UnauthenticatedError")  # of obstore
PROTOCOLS = ("file", "memory", "http", "https", "s3", "s3a", "gs", "az", "abfs", "abfss")
RETRIES: dict[str, Any] = {"max_retries": 6, "retry_timeout": timedelta(minutes=2)}  # of requests to object stores
NUM_REQUESTS = 16  # to an object store at the same time
PIECE_BYTES = 2**20  # of a file that is copied: what one request keeps in memory
CREDENTIALS = {  # what to set where a store refuses or does not know who asks
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (for a public bucket AWS_SKIP_SIGNATURE=true)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (for a public bucket GOOGLE_SKIP_SIGNATURE=true)",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
NO_CREDENTIALS = (
    "/latest/api/token",
    "/latest/meta-data",
    "/computeMetadata/",
    "Account must be specified",
)  # in errors without credentials

_MEMORY_LOCK = threading.Lock()
Item = TypeVar("Item")
Result = TypeVar("Result")


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


@dataclass(frozen=True)
class StoredFile:
    """A file in a folder: its relative path, its size, and a text that changes with its content (an ETag or a time)."""

    name: str
    size_bytes: int
    version: str


def in_parallel(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Call a function that sends requests for each item, `NUM_REQUESTS` at once; yields the results in order.

    After an error, calls that have not begun are cancelled, and the error is raised.
    """
    pool = ThreadPoolExecutor(NUM_REQUESTS, thread_name_prefix="storage")
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)


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


def list_files(url: str | Path, *, recursive: bool = True, limit: int | None = None) -> list[StoredFile]:
    """List the files in a folder, and those below it, with size and version, sorted by name.

    Raises:
        ValueError: more than ``limit`` files.
    """
    place, found = _resolve(str(url)), list[StoredFile]()
    if isinstance(place, Path):
        for name in list_tree(url) if recursive else list_names(url):
            status = (place / name).stat()
            _refuse_many(url, len(found) + 1, limit)
            found.append(StoredFile(name, status.st_size, str(status.st_mtime_ns)))
        return found
    import obstore

    store, prefix = place
    start = len(prefix) + 1 if prefix else 0
    with _translate_errors(str(url)):
        batches = obstore.list(store, prefix or None) if recursive else [_list_level(store, prefix)]
        for batch in batches:
            found += [_describe(dict(entry), str(entry["path"])[start:]) for entry in batch]
            _refuse_many(url, len(found), limit)
    return sorted((file for file in found if file.name), key=lambda file: file.name)


def _refuse_many(url: str | Path, num_files: int, limit: int | None) -> None:
    if limit is not None and num_files > limit:
        raise ValueError(f"{url}: more than {limit} files; wanted a smaller folder")


def _list_level(store: Any, prefix: str) -> Any:
    import obstore

    return obstore.list_with_delimiter(store, prefix or None)["objects"]


def find_file(url: str) -> StoredFile | None:
    """Describe a file by its last name, or return None if it does not exist. OSError if the store cannot be reached."""
    place, name = _resolve(url), url.rsplit("/", 1)[-1]
    if isinstance(place, Path):
        status = place.stat() if place.is_file() else None
        return None if status is None else StoredFile(name, status.st_size, str(status.st_mtime_ns))
    import obstore

    try:
        with _translate_errors(url):
            return _describe(dict(obstore.head(*place)), name)
    except MissingFileError:
        return None


def download(url: str, path: Path) -> None:
    """Copy a file to a local path piece by piece; after an error or a kill the local file is partial. As `open_binary`.

    A copy that ends early is tried three times.
    """
    place = _resolve(url)
    if isinstance(place, Path):
        with _translate_errors(url):
            shutil.copyfile(place, path)
        return
    import obstore

    for attempt in range(3):
        try:
            with _translate_errors(url), path.open("wb") as file:
                answer = obstore.get(*place)
                for piece in answer.stream(min_chunk_size=PIECE_BYTES):
                    file.write(piece)
            if path.stat().st_size == answer.meta["size"]:
                return
            raise StorageError(f"{url}: {path.stat().st_size} of {answer.meta['size']} bytes were read")
        except StorageError:
            if attempt == 2:
                raise


def read_start(url: str, num_bytes: int) -> bytes:
    """Read the first bytes of a file that is not shorter. Errors as `open_binary`."""
    place = _resolve(url)
    with _translate_errors(url):
        if isinstance(place, Path):
            with place.open("rb") as file:
                return file.read(num_bytes)
        import obstore

        return bytes(obstore.get_range(*place, start=0, length=num_bytes))


def upload(path: Path, url: str) -> str:
    """Copy a local file to a path or URL; it appears whole, and an existing one is replaced. Returns its version.

    Raises:
        OSError: the store cannot be reached, or the disk is full.
    """
    place = _resolve(url)
    if isinstance(place, Path):
        with write_whole(place) as temporary:
            shutil.copyfile(path, temporary)
        return str(place.stat().st_mtime_ns)
    import obstore

    with _translate_errors(url):
        answer = dict(obstore.put(*place, path))
    if not answer.get("e_tag"):
        stored = find_file(url)
        return stored.version if stored is not None else ""
    return str(answer["e_tag"])


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


def remove_empty_folder(url: str) -> None:
    """Remove a local folder if it is empty; object stores have no folders."""
    place = _resolve(url)
    if isinstance(place, Path):
        with suppress(OSError):  # it does not exist, or is not empty
            place.rmdir()


def drop_leftovers(url: str) -> None:
    """Delete the temporary files of killed processes of this machine from a local folder."""
    place = _resolve(url)
    if isinstance(place, Path):
        files.drop_leftovers(place)


def _get(store: Any, path: str) -> bytes:
    import obstore

    return bytes(obstore.get(store, path).bytes())


def _describe(entry: dict[str, Any], name: str) -> StoredFile:
    """Make the record of a file from obstore's."""
    return StoredFile(name, int(entry["size"]), str(entry.get("e_tag") or entry.get("last_modified")))


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


def _memory() -> Any:
    """Return the store of ``memory://`` URLs, one for this process (for tests)."""
    with _MEMORY_LOCK:  # threads that come first at the same time get the same one
        return _make_memory()


@lru_cache(maxsize=1)
def _make_memory() -> Any:
    from obstore.store import MemoryStore

    return MemoryStore()


@contextmanager
def _translate_errors(url: str) -> Iterator[None]:
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
