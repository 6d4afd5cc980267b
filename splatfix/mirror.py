"""Run folders on object stores: the work is done in a local folder, and parts of it are copied from and to the store.

A command whose ``--out`` is a URL works in a folder of this machine. At the start it pulls what the store has, and
after each step it pushes what has changed. Its workers on other nodes do the same with the part that they write, so
nodes need no common disk. At any time one process writes a part (a trial, an entry).

Both directions can be interrupted and repeated. Files are copied whole, records (`RECORDS`) after all others in the
order in which they were written, and ``run.json``, which says that a run is finished, last: a record is never on the
store, or in the local folder, before the files that it speaks of.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from splatfix import runs, storage
from splatfix.errors import LeaseLost, RunAborted
from splatfix.files import hash_text, hold_lock, private_folder, user_name, write_text, write_whole
from splatfix.messages import without_secrets
from splatfix.runs import mark_started
from splatfix.storage import StoredFile

log = logging.getLogger(__name__)

TOP = "."  # as a part: the files that are directly in the run folder
RECORDS = ("*.json", "state.pt")  # the last is the state of a training
LAST_RECORD = "run.json"
NOT_MIRRORED = (".*", "mlflow.db*", "mlartifacts", "ray", "*.lock", "*.partial")  # names of files and folders
LOCK_SECONDS = 1800.0  # to wait for another process that copies


class Known(NamedTuple):
    """A file that is equal here and on the store: as it was when it was last copied."""

    size_bytes: int
    mtime_ns: int
    digest: str
    version: str


@dataclass(frozen=True)
class Mirror:
    """A run folder, and its copy on an object store (``url`` is None for a folder that is used as it is).

    It can be pickled and sent to workers on other nodes.
    """

    path: Path
    url: str | None = None

    @property
    def place(self) -> str:
        """What every node must see: the URL, or the folder."""
        return str(self.path) if self.url is None else self.url

    def pull(self, *parts: str, skip: Sequence[str] = (), discard: bool = False) -> None:
        """Copy from the store what has changed there; all parts, or the given ones.

        Args:
            parts: folders in the run folder, or `TOP`.
            skip: folders in the run folder that are left out.
            discard: where another node has changed a file of a part, delete the local files of that part that were
                never pushed: an earlier process of this node left them half done. For the process that is going to
                write the part.

        Raises:
            OSError: the store cannot be reached, or refuses access.
        """
        if self.url is None:
            return
        with self._index() as index:
            for part in parts or ("",):
                self._pull(part, index, skip, discard)

    def push(self, *parts: str) -> None:
        """Copy to the store what has changed here, and delete there what was deleted here. Errors as `pull`."""
        if self.url is None:
            return
        with self._index() as index:
            for part in parts or ("",):
                self._push(part, index)

    @contextmanager
    def work_on(
        self, part: str, *, shared: str | None = None, read: Sequence[str] = (), discard: bool = True
    ) -> Iterator[None]:
        """Pull a part that this process is going to write, and push it at the end, also after an error.

        Args:
            part: folder in the run folder.
            shared: a folder that several processes add files to.
            read: folders that are only read.
            discard: as in `pull`; not for a part in which the driver writes as well.
        """
        common = [] if shared is None else [shared]
        self.pull(part, discard=discard)
        if common or read:
            self.pull(*common, *read)
        try:
            yield
        finally:
            self.push(*common, part)

    def begin(self) -> None:
        """Push what a driver has written at its start, or deleted to start over; its workers pull afterwards."""
        self.push()
        if self.url is not None:
            mark_started(self.url)

    @contextmanager
    def drive(self) -> Iterator[None]:
        """Be the driver of the run: push at the end, also after an error, and name the URL in errors.

        Nothing is pushed if another driver has taken over the run: it may have pushed newer files meanwhile.
        """
        with self.name_errors(), self._keep():
            try:
                yield
            except LeaseLost:
                raise
            except BaseException:
                self.push()
                raise
            self.push()

    @contextmanager
    def name_errors(self) -> Iterator[None]:
        """Name the URL in the place of the local folder in errors that users see."""
        try:
            yield
        except (ValueError, RunAborted) as error:
            if self.url is not None and error.args and isinstance(error.args[0], str):
                error.args = (error.args[0].replace(str(self.path), self.url), *error.args[1:])
            raise

    @contextmanager
    def _keep(self) -> Iterator[None]:
        """Hold a lock on the local folder, so that systemd-tmpfiles leaves old files in it alone (tmpfiles.d(5))."""
        if self.url is None:
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with suppress(OSError):
                fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
            yield
        finally:
            os.close(folder)

    def _pull(self, part: str, index: dict[str, Known], skip: Sequence[str], discard: bool) -> None:
        def is_skipped(name: str) -> bool:
            return any(_is_in(name, folder) for folder in skip)

        def is_wanted(name: str) -> bool:
            return _is_in(name, part) and not is_skipped(name)

        for name in [name for name in index if is_skipped(name) and not (self.path / name).is_file()]:
            del index[name]  # lost here, but not deleted by a command: it stays on the store
        stored = {file.name: file for file in self._list_stored(part) if is_wanted(file.name)}
        known = {name: entry for name, entry in index.items() if is_wanted(name)}
        changed = []
        for name, file in stored.items():
            if name in known and known[name].version == file.version and (self.path / name).is_file():
                continue
            if name not in known and self._has(file):  # pushed by a process that was killed before it noted this
                index[name] = self._describe(name, file.version)
            else:
                changed.append(file)
        gone = [name for name in known if name not in stored]
        if discard and (gone or any(file.name in known for file in changed)):
            gone += [
                name for name in filter(is_wanted, self._list_local(part)) if name not in stored and name not in known
            ]
        for name in sorted(gone, key=_is_record, reverse=True):
            (self.path / name).unlink(missing_ok=True)
            index.pop(name, None)
        self._copy([file.name for file in changed], lambda name: self._download(name, stored[name], index))

    def _push(self, part: str, index: dict[str, Known]) -> None:
        local = self._list_local(part)
        changed, present = [], set[str]()
        for name in local:
            try:
                status = (self.path / name).stat()
            except FileNotFoundError:  # another process of this node works on this part, too
                continue
            present.add(name)
            entry = index.get(name)
            if entry is not None and entry[:2] == (status.st_size, status.st_mtime_ns):
                continue
            if entry is not None and entry.digest == _hash_file(self.path / name):
                index[name] = entry._replace(mtime_ns=status.st_mtime_ns)
            else:
                changed.append(name)
        gone = [name for name in index if _is_in(name, part) and name not in present]
        for name in sorted(gone, key=_is_record, reverse=True):  # before the files that it speaks of
            self._delete_stored(name)
            del index[name]
        self._copy(changed, lambda name: self._upload(name, index))

    def _copy(self, names: Sequence[str], copy: Callable[[str], None]) -> None:
        """Copy files at the same time, and then records one after another."""
        for _ in storage.in_parallel(copy, [name for name in names if not _is_record(name)]):
            pass
        for name in sorted(filter(_is_record, names), key=self._order):
            copy(name)

    def _order(self, name: str) -> tuple[bool, int, str]:
        """Order records as they were written, if they are here, with ``run.json`` last."""
        path = self.path / name
        return PurePosixPath(name).name == LAST_RECORD, path.stat().st_mtime_ns if path.is_file() else 0, name

    def _download(self, name: str, file: StoredFile, index: dict[str, Known]) -> None:
        with write_whole(self.path / name) as temporary:
            storage.download(self._stored(name), temporary)
        index[name] = self._describe(name, file.version)

    def _upload(self, name: str, index: dict[str, Known]) -> None:
        try:
            before = self._describe(name, "")
            version = storage.upload(self.path / name, self._stored(name))
        except (OSError, storage.MissingFileError):
            if (self.path / name).exists():
                raise
            return  # deleted meanwhile, as above
        index[name] = before._replace(version=version)

    def _delete_stored(self, name: str) -> None:
        storage.delete(self._stored(name))

    def _stored(self, name: str) -> str:
        assert self.url is not None
        return storage.join(self.url, name)

    def _list_stored(self, part: str) -> list[StoredFile]:
        assert self.url is not None
        if part == TOP:
            found = storage.list_files(self.url, recursive=False)
        else:
            place = storage.join(self.url, part) if part else self.url
            found = [StoredFile(f"{part}/{file.name}".lstrip("/"), *_rest(file)) for file in storage.list_files(place)]
        return [file for file in found if not _is_excluded(file.name)]

    def _list_local(self, part: str) -> list[str]:
        folder = self.path if part == TOP else self.path / part
        paths = folder.glob("*") if part == TOP else folder.rglob("*")
        names = [path.relative_to(self.path).as_posix() for path in paths if path.is_file()]
        return sorted(name for name in names if not _is_excluded(name))

    def _has(self, file: StoredFile) -> bool:
        """Whether the local file is that on the store, by the MD5 that S3 has as the version of most files."""
        path = self.path / file.name
        if not path.is_file() or path.stat().st_size != file.size_bytes:
            return False
        return file.version.strip('"') == _hash_file(path)

    def _describe(self, name: str, version: str) -> Known:
        path = self.path / name
        status = path.stat()
        return Known(status.st_size, status.st_mtime_ns, _hash_file(path), version)

    @contextmanager
    def _index(self) -> Iterator[dict[str, Known]]:
        """Hold the lock of this node's copy, with what is known of its files, which is written at the end."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        index_file = self.path.parent / "index.json"
        waiting = f"{self.url}: waiting for another process of this node that copies it"
        with hold_lock(self.path.parent / "lock", seconds=LOCK_SECONDS, waiting=waiting):
            try:
                index = {name: Known(*entry) for name, entry in json.loads(index_file.read_text()).items()}
            except (FileNotFoundError, ValueError, TypeError):
                index = {}
            try:
                yield index
            finally:
                write_text(index_file, json.dumps(index))


def open_mirror(out: str | Path) -> Mirror:
    """Find the local folder of a run: the path itself, or for a URL a folder in the temporary folder of this machine.

    Raises:
        ValueError: the protocol is not allowed, or the folder for copies belongs to another user.
    """
    if "://" not in str(out) or storage.is_local(out):
        return Mirror(Path(storage.absolute(out)).resolve())
    url = str(out).rstrip("/")
    copies = Path(tempfile.gettempdir()) / f"splatfix-runs-{user_name()}"
    private_folder(copies, "set TMPDIR to a folder that is yours")
    return Mirror(copies / hash_text(url) / without_secrets(url).rsplit("/", 1)[-1], url)


def stored_settings(out: str | Path, command: str) -> dict[str, Any] | None:
    """Read the settings in a run folder or at its URL (`runs.stored_settings`), with the same errors."""
    mirror = open_mirror(out)
    mirror.pull(TOP)
    return runs.stored_settings(mirror.path, command)


def _is_in(name: str, part: str) -> bool:
    if part == TOP:
        return "/" not in name
    return not part or name.startswith(f"{part}/")


def _is_record(name: str) -> bool:
    return any(fnmatch(PurePosixPath(name).name, pattern) for pattern in RECORDS)


def _is_excluded(name: str) -> bool:
    return any(fnmatch(part, pattern) for part in name.split("/") for pattern in NOT_MIRRORED)


def _rest(file: StoredFile) -> tuple[int, str]:
    return file.size_bytes, file.version


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
