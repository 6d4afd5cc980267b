"""Read, write and list files in local folders and object stores (obstore) by path or URL.

Which URLs are allowed, and where credentials come from, is in `stores`. Writes are atomic: a local file is written
under a temporary name and renamed, and stores show whole objects only.
"""

from __future__ import annotations

import ctypes
import errno
import io
import os
import shutil
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, TypeVar

from splatfix import files, stores
from splatfix.files import sync, temporary_beside, write_whole
from splatfix.stores import PARTS, MissingFileError, SlowStoreError, StorageError, ask, resolve, translate_errors

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK)
AT_FDCWD, RENAME_NOREPLACE = -100, 1  # of renameat2 in Linux
NUM_REQUESTS = 16  # to an object store at the same time
PIECE_BYTES = 2**20  # of a file that is copied: what one request keeps in memory

Item = TypeVar("Item")
Result = TypeVar("Result")


def join(url: str | Path, name: str) -> str:
    """Return the path or URL of a file in a folder."""
    return f"{str(url).rstrip('/')}/{name}"


def is_local(url: str | Path) -> bool:
    """Whether a path or URL is in the file system. ValueError if its protocol is not allowed."""
    return isinstance(resolve(str(url)), Path)


def absolute(url: str | Path) -> str:
    """Make a local path absolute, so that it does not depend on the working directory; a URL is returned as it is."""
    place = resolve(str(url))
    return os.path.abspath(place) if isinstance(place, Path) else str(url).rstrip("/")


@dataclass(frozen=True)
class StoredFile:
    """A file in a folder: its relative path, its size, and a text that changes with its content (an ETag or a time)."""

    name: str
    size_bytes: int
    version: str


def in_parallel(function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """Call a function that sends requests for each item, `NUM_REQUESTS` at once; yields the results in order.

    After an error or a stop signal, or when the generator is closed, calls that have not begun are cancelled, and those
    under way are not waited for. The error is raised.
    """
    has_failed = threading.Event()

    def call(item: Item) -> Result:
        if has_failed.is_set():  # for an item before this one, since they begin in order
            raise CancelledError
        try:
            return function(item)
        except BaseException:
            has_failed.set()
            raise

    pool = ThreadPool(NUM_REQUESTS)  # of daemon threads: the end of the process waits for none of them
    try:
        yield from pool.imap(call, items)
    finally:
        has_failed.set()
        pool.terminate()


def open_binary(url: str) -> io.BufferedIOBase:
    """Open a file for reading.

    Raises:
        ValueError: it does not exist (MissingFileError), or its protocol is not allowed.
        OSError: the store or disk cannot be read.
    """
    place = resolve(url)
    if isinstance(place, Path):
        with translate_errors(url):
            return place.open("rb")
    return io.BytesIO(_get(url, *place))


def read_bytes(url: str) -> bytes:
    """Read a whole file. Errors as `open_binary`."""
    place = resolve(url)
    if isinstance(place, Path):
        with translate_errors(url):
            return place.read_bytes()
    return _get(url, *place)


def exists(url: str) -> bool:
    """Whether a file exists. OSError if the store cannot be reached."""
    return find_file(url) is not None


def list_folder(url: str | Path) -> tuple[list[str], list[str]]:
    """List the sorted names of the files and of the folders in a folder; both are empty if it does not exist."""
    place = resolve(str(url))
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
    listing = ask(str(url), lambda: obstore.list_with_delimiter(store, prefix or None), stores.READ_SECONDS)
    names = sorted(str(entry["path"]).rsplit("/", 1)[-1] for entry in listing["objects"])
    return names, sorted(str(prefix).rstrip("/").rsplit("/", 1)[-1] for prefix in listing["common_prefixes"])


def list_names(url: str | Path) -> list[str]:
    """List the sorted names of the files in a folder; empty if it does not exist."""
    return list_folder(url)[0]


def list_tree(url: str | Path) -> list[str]:
    """List the sorted relative paths of all files below a folder; empty if it does not exist."""
    place = resolve(str(url))
    if isinstance(place, Path):
        return sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())
    import obstore

    store, prefix = place
    start = len(prefix) + 1 if prefix else 0

    def list_all() -> list[str]:
        return [entry["path"][start:] for batch in obstore.list(store, prefix or None) for entry in batch]

    return sorted(ask(str(url), list_all, stores.READ_SECONDS))


def list_files(url: str | Path, *, recursive: bool = True, limit: int | None = None) -> list[StoredFile]:
    """List the files in a folder, and those below it, with size and version, sorted by name.

    Raises:
        ValueError: more than ``limit`` files.
    """
    place = resolve(str(url))
    if isinstance(place, Path):
        found = list[StoredFile]()
        for name in list_tree(url) if recursive else list_names(url):
            status = (place / name).stat()
            _refuse_many(url, len(found) + 1, limit)
            found.append(StoredFile(name, status.st_size, str(status.st_mtime_ns)))
        return found
    import obstore

    store, prefix = place
    start = len(prefix) + 1 if prefix else 0

    def list_all() -> list[StoredFile]:
        listed = list[StoredFile]()
        for batch in obstore.list(store, prefix or None) if recursive else [_list_level(store, prefix)]:
            listed += [_describe(dict(entry), str(entry["path"])[start:]) for entry in batch]
            _refuse_many(url, len(listed), limit)
        return listed

    return sorted(
        (file for file in ask(str(url), list_all, stores.READ_SECONDS) if file.name), key=lambda file: file.name
    )


def _refuse_many(url: str | Path, num_files: int, limit: int | None) -> None:
    if limit is not None and num_files > limit:
        raise ValueError(f"{url}: more than {limit} files; wanted a smaller folder")


def _list_level(store: Any, prefix: str) -> Any:
    import obstore

    return obstore.list_with_delimiter(store, prefix or None)["objects"]


def find_file(url: str) -> StoredFile | None:
    """Describe a file by its last name, or return None if it does not exist. OSError if the store cannot be reached."""
    place, name = resolve(url), url.rsplit("/", 1)[-1]
    if isinstance(place, Path):
        status = place.stat() if place.is_file() else None
        return None if status is None else StoredFile(name, status.st_size, str(status.st_mtime_ns))
    import obstore

    try:
        return _describe(dict(ask(url, lambda: obstore.head(*place))), name)
    except MissingFileError:
        return None


def download(url: str, path: Path) -> None:
    """Copy a file to a local path piece by piece; after an error or a kill the local file is partial. As `open_binary`.

    A copy that ends early is tried three times; one of which no byte has come is not.
    """
    place = resolve(url)
    if isinstance(place, Path):
        with translate_errors(url):
            shutil.copyfile(place, path)
        return
    import obstore

    def copy() -> int:
        with path.open("wb") as file:
            answer = obstore.get(*place)
            for piece in answer.stream(min_chunk_size=PIECE_BYTES):
                file.write(piece)
        return int(answer.meta["size"])

    for attempt in range(3):
        try:
            size_bytes = ask(url, copy, stores.READ_SECONDS)
            if path.stat().st_size == size_bytes:
                return
            raise StorageError(f"{url}: {path.stat().st_size} of {size_bytes} bytes were read")
        except StorageError as error:
            if isinstance(error, SlowStoreError) or attempt == 2 or path.stat().st_size == 0:
                raise


def read_start(url: str, num_bytes: int) -> bytes:
    """Read the first bytes of a file that is not shorter. Errors as `open_binary`."""
    place = resolve(url)
    if isinstance(place, Path):
        with translate_errors(url), place.open("rb") as file:
            return file.read(num_bytes)
    import obstore

    return bytes(ask(url, lambda: obstore.get_range(*place, start=0, length=num_bytes)))


def upload(path: Path, url: str) -> str:
    """Copy a local file to a path or URL; it appears whole, and an existing one is replaced. Returns its version.

    Raises:
        OSError: the store cannot be reached, or the disk is full.
    """
    place = resolve(url, path.stat().st_size)
    if isinstance(place, Path):
        with write_whole(place) as temporary:
            shutil.copyfile(path, temporary)
        return str(place.stat().st_mtime_ns)
    import obstore

    answer = dict(ask(url, lambda: obstore.put(*place, path, **PARTS)))
    if not answer.get("e_tag"):
        stored = find_file(url)
        return stored.version if stored is not None else ""
    return str(answer["e_tag"])


def write_bytes(url: str, content: bytes) -> None:
    """Write a file atomically; an existing one is replaced. OSError if that fails."""
    place = resolve(url, len(content))
    if isinstance(place, Path):
        with write_whole(place) as temporary:
            temporary.write_bytes(content)
        return
    import obstore

    ask(url, lambda: obstore.put(*place, content, **PARTS))


def create(url: str, content: bytes) -> bool:
    """Write a file atomically unless it exists. Return True for exactly one of several concurrent writers."""
    place = resolve(url, len(content))
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
                is_created = _rename_new(temporary, place)
                return _create_without_links(place, content) if is_created is None else is_created
        return True
    import obstore
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    attempts = 0

    def put() -> bool:
        nonlocal attempts
        attempts += 1
        try:
            obstore.put(*place, content, mode="create")
        except (AlreadyExistsError, PreconditionError):
            # an earlier attempt may have succeeded although its answer was lost
            return attempts > 1 and bytes(obstore.get(*place).bytes()) == content
        return True

    return ask(url, put)


def delete(url: str) -> None:
    """Delete a file, if it exists."""
    place = resolve(url)
    if isinstance(place, Path):
        place.unlink(missing_ok=True)
        return
    import obstore

    try:
        ask(url, lambda: obstore.delete(*place))
    except MissingFileError:  # raised by some stores only
        return


def _rename_new(source: Path, target: Path) -> bool | None:
    """Rename a file unless the target exists; whether that was done, or None where the system cannot (not Linux)."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    if rename(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), RENAME_NOREPLACE) == 0:
        return True
    return False if ctypes.get_errno() == errno.EEXIST else None


def _create_without_links(place: Path, content: bytes) -> bool:
    """Create a file where neither hard links nor `_rename_new` work: one writer succeeds.

    Readers may see a partial file, which also a kill leaves.
    """
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
    place = resolve(url)
    if isinstance(place, Path):
        with suppress(OSError):  # it does not exist, or is not empty
            place.rmdir()


def drop_leftovers(url: str) -> None:
    """Delete the temporary files of killed processes of this machine from a local folder."""
    place = resolve(url)
    if isinstance(place, Path):
        files.drop_leftovers(place)


def _get(url: str, store: Any, path: str) -> bytes:
    import obstore

    return ask(url, lambda: bytes(obstore.get(store, path).bytes()), stores.READ_SECONDS)


def _describe(entry: dict[str, Any], name: str) -> StoredFile:
    """Make the record of a file from obstore's."""
    return StoredFile(name, int(entry["size"]), str(entry.get("e_tag") or entry.get("last_modified")))
