"""Copies of folders on object stores, shared by the processes of a node and bounded in size.

A cached folder has all names of the folder on the store from the start; the content of a file is copied when it is
asked for (`CachedFolder.fetch`), `storage.NUM_REQUESTS` files at once, by one process for all of them. A folder whose
files have changed on the store is another entry. Beyond the limit, the least recently used entries that no process has
open are removed.

The cache is in ``SPLATFIX_CACHE`` (default: a folder of the user in the temporary folder), of at most
``SPLATFIX_CACHE_GB`` gigabytes (default 50, and no more than four fifths of the free disk). It may be deleted while
nothing runs.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from splatfix import storage
from splatfix.files import hash_text, hold_lock, private_folder, try_lock, user_name, wait_for_lock
from splatfix.messages import without_secrets
from splatfix.process import progress
from splatfix.storage import StoredFile

log = logging.getLogger(__name__)

FOLDER_VARIABLE, SIZE_VARIABLE = "SPLATFIX_CACHE", "SPLATFIX_CACHE_GB"
DEFAULT_GB = 50.0
MAX_DISK_SHARE = 0.8  # of the free disk
HEADER_BYTES = 65536  # of a file of which only the header is needed
SMALL_BYTES = 2**26  # files of which the headers are needed are copied whole if they are smaller together
BAR_BYTES = 2**26  # copies of more bytes have a progress bar
LOCK_SECONDS = 1800.0  # to wait for a process that copies or removes the same folder


class CachedFolder:
    """A folder on an object store whose files are copied to this node when they are needed.

    The entry cannot be removed from the cache while this object exists in any process. It can be pickled and sent to
    processes of the same node.

    Attributes:
        url: the folder on the store.
        path: its copy. A file in it is whole if it has the size of that on the store, else empty or its first bytes.
    """

    def __init__(self, url: str, files: Iterable[StoredFile]) -> None:
        self.url = url.rstrip("/")
        self._files: Mapping[str, StoredFile] = {file.name: file for file in files}
        name = without_secrets(self.url).split("://", 1)[-1].rsplit("/", 1)[-1]
        _refuse_unsafe([name, *self._files], self.url)
        versions = [(file.name, file.size_bytes, file.version) for file in self._files.values()]
        self._key = hash_text(json.dumps([self.url, versions]))
        self._name = name
        self._open()

    def _open(self) -> None:
        self._cache = cache_folder()
        self.path = self._cache / self._key / self._name
        self._in_use = _lock_shared(self._cache / f"{self._key}.use")
        os.utime(self._cache / f"{self._key}.use")  # for the order of removal
        with self._copying():
            for parent in {(self.path / name).parent for name in self._files}:
                parent.mkdir(parents=True, exist_ok=True)
            for name in self._files:
                (self.path / name).touch()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_in_use"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def size(self, path: Path) -> int:
        """Return the size of a file on the store, in bytes."""
        name = self._find_name(path)
        return path.stat().st_size if name is None else self._files[name].size_bytes

    def fetch(self, paths: Iterable[Path], *, headers: bool = False) -> None:
        """Copy the content of files, or (``headers``) at least the first bytes of each; others are left alone.

        Raises:
            OSError: the store cannot be reached, or the disk is full.
        """
        names = list(dict.fromkeys(name for path in paths if (name := self._find_name(path)) is not None))
        names = [name for name in names if not self._has(name, headers)]
        if not names:
            return
        headers = headers and sum(self._files[name].size_bytes for name in names) > SMALL_BYTES
        with self._copying() as is_alone:
            missing = [name for name in names if not self._has(name, headers)]
            sizes = {name: self._num_bytes(name, headers) for name in missing}
            make_room(self._cache, sum(sizes.values()))
            self._copy(sizes, is_alone=is_alone)
            _add_size(self._cache / f"{self._key}.use", sum(sizes.values()))

    def _copy(self, sizes: Mapping[str, int], *, is_alone: bool) -> None:
        """Copy files, or the first bytes of them."""
        partial = self._cache / self._key / ".partial"
        if is_alone:
            shutil.rmtree(partial, ignore_errors=True)  # of a killed process
        partial.mkdir(exist_ok=True)

        def copy(name: str) -> int:
            target, url = partial / uuid4().hex, storage.join(self.url, name)
            if sizes[name] < self._files[name].size_bytes:
                target.write_bytes(storage.read_start(url, sizes[name]))
            elif sizes[name]:
                storage.download(url, target)
                if target.stat().st_size != sizes[name]:
                    raise storage.StorageError(f"{url}: has changed while it was read; try again")
            target.replace(self.path / name)
            return sizes[name]

        total = sum(sizes.values())
        quiet, num_bytes = total < BAR_BYTES, 0
        with progress(total=total // 2**20, description=f"{self._name}: MiB from the store", quiet=quiet) as bar:
            for size in storage.in_parallel(copy, sizes):
                num_bytes += size
                bar.update(num_bytes // 2**20 - bar.n)

    def _find_name(self, path: Path) -> str | None:
        """Return the name of a path in the folder; None if the folder on the store has no such file."""
        try:
            name = PurePosixPath(os.path.normpath(path)).relative_to(self.path).as_posix()
        except ValueError:
            return None
        return name if name in self._files else None

    def _num_bytes(self, name: str, headers: bool) -> int:
        size = self._files[name].size_bytes
        return min(size, HEADER_BYTES) if headers else size

    def _has(self, name: str, headers: bool) -> bool:
        try:
            present = (self.path / name).stat().st_size
        except OSError:
            return False
        whole = self._files[name].size_bytes
        return present == whole or (headers and present == min(whole, HEADER_BYTES))

    @contextmanager
    def _copying(self) -> Iterator[bool]:
        """Hold the lock of processes and threads that copy this folder; yields whether no other one copies it."""
        waiting = f"{self.url}: waiting for another process of this node that copies it"
        is_alone = True
        with ExitStack() as stack:
            try:
                stack.enter_context(hold_lock(self._cache / f"{self._key}.copy", seconds=LOCK_SECONDS, waiting=waiting))
            except TimeoutError:
                log.warning("%s: another process has copied it for %.0f s; copying it too", self.url, LOCK_SECONDS)
                is_alone = False
            yield is_alone


def cache_folder() -> Path:
    """Return the folder of the cache, which is created if needed. ValueError if it is another user's."""
    given = os.environ.get(FOLDER_VARIABLE)
    folder = Path(given) if given else Path(tempfile.gettempdir()) / f"splatfix-cache-{user_name()}"
    return private_folder(folder, f"wanted a folder that is yours in {FOLDER_VARIABLE}").resolve()


def make_room(cache: Path, num_bytes: int) -> None:
    """Remove the least recently used entries that no process has open, until ``num_bytes`` more are in the limit."""
    entries = sorted(cache.glob("*.use"), key=_modified)
    total = sum(map(_read_size, entries))
    limit = min(_limit_bytes(), int(MAX_DISK_SHARE * (shutil.disk_usage(cache).free + total)))
    for entry in entries:
        if total + num_bytes <= limit:
            return
        size = _read_size(entry)
        if _remove_entry(cache, entry):
            total -= size


def _limit_bytes() -> int:
    text = os.environ.get(SIZE_VARIABLE) or str(DEFAULT_GB)
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if limit < 0:
        raise ValueError(f"{SIZE_VARIABLE} = {text!r}: wanted gigabytes, 0 or more")
    return int(limit * 1e9)


def _remove_entry(cache: Path, use: Path) -> bool:
    """Remove an entry unless a process has it open."""
    try:
        with use.open("r+b") as file:
            if not try_lock(file) or not _is_same(file, use):
                return False
            shutil.rmtree(cache / use.stem, ignore_errors=True)
            use.with_suffix(".copy").unlink(missing_ok=True)
            use.unlink(missing_ok=True)
    except FileNotFoundError:
        return False
    return True


def _lock_shared(path: Path) -> Any:
    """Open a file with a shared lock, which lasts until the file is closed or its process ends.

    Raises:
        TimeoutError: another process has removed the entry for `LOCK_SECONDS`.
    """
    waiting = f"{path}: waiting for another process of this node that removes this entry of the cache"
    while True:
        file = path.open("a+b")
        try:  # held exclusively only while the entry is removed
            wait_for_lock(file, path, seconds=LOCK_SECONDS, waiting=waiting, shared=True)
        except BaseException:
            file.close()
            raise
        if _is_same(file, path):
            return file
        file.close()


def _is_same(file: Any, path: Path) -> bool:
    """Whether an open file is still that of a path: it may have been removed before it was locked."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _read_size(use: Path) -> int:
    """Read how many bytes have been copied into an entry."""
    try:
        return int(use.read_text() or 0)
    except (OSError, ValueError):
        return 0


def _add_size(use: Path, num_bytes: int) -> None:
    size = _read_size(use) + num_bytes
    with use.open("r+b") as file:  # in place, since the file carries a lock, and of one length, so that it is never cut
        file.write(b"%020d" % size)


def _refuse_unsafe(names: Sequence[str], url: str) -> None:
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError(f"{url}: the file name {name!r} is a path out of the folder")
