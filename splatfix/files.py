"""Write files atomically: under a temporary name, synchronized, then renamed; readers never see a partial file."""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import json
import logging
import math
import os
import re
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from splatfix.errors import is_disk_full
from splatfix.messages import hide_secrets

log = logging.getLogger(__name__)

MAX_DEPTH = 100  # levels of lists and mappings in JSON
TOO_DEEP = f"lists and mappings are nested more than {MAX_DEPTH} levels deep; wanted a file that splatfix reads"
MAX_DIGITS = 19  # of a whole number in JSON: 64 bits
NOTICE_SECONDS = 15.0  # of waiting for a lock, before a message
MAX_AGE_SECONDS = 7 * 86400.0  # of a temporary file: no file is written for so long
# .NAME.MACHINE-PROCESS-RANDOM.partial, and .NAME.RANDOM.partial of older versions
SCRATCH = re.compile(r"splatfix-[a-z]+-(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-\w+")
SCRATCH_SECONDS = 86400.0  # of a temporary folder whose process is gone: a child of it may still use it
LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?:(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-)?[0-9a-f]+\.partial")


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; then synchronize the file to disk and rename it to ``path``.

    The temporary file is in the same folder, which is created if needed. If the block raises, the temporary file is
    removed and ``path`` is unchanged. The temporary name does not end in the suffix of ``path``.
    """
    path = Path(path)
    with temporary_beside(path) as temporary:
        yield temporary
        sync(temporary)
        temporary.replace(path)


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Yield an unused path in the folder of ``path``, which is created if needed; the file is removed at the end.

    The name contains machine and process, so that `drop_leftovers` recognizes the files of killed processes, which it
    does once in each folder that this process writes to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent not in _cleaned:
        _cleaned.add(path.parent)
        with suppress(OSError):
            drop_leftovers(path.parent)
    unique = f"{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    temporary = path.with_name(f".{path.name}.{unique}.partial")
    try:
        yield temporary
    except OSError as error:
        if is_disk_full(error) and error.filename is None:  # as errors of writes are
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


_cleaned: set[Path] = set()
_scratch_cleaned: set[Path] = set()


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """Yield a new folder in the temporary folder (``TMPDIR``), which is removed at the end.

    Those of killed processes are removed by the first call of a later process of this user on this machine: the name
    contains machine and process, and a folder goes when its process is gone and it is older than `SCRATCH_SECONDS`.
    """
    place = Path(tempfile.gettempdir())
    if place not in _scratch_cleaned:
        _scratch_cleaned.add(place)
        with suppress(OSError):
            _drop_scratch(place)
    prefix = f"splatfix-{purpose}-{_machine()}-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _drop_scratch(place: Path) -> None:
    """Delete the folders of `scratch_folder` that killed processes of this user left."""
    with os.scandir(place) as entries:
        for entry in entries:
            match = SCRATCH.fullmatch(entry.name)
            if match is None or match["machine"] != _machine() or _is_alive(int(match["process"])):
                continue
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if status.st_uid == os.getuid() and time.time() - status.st_mtime > SCRATCH_SECONDS:
                    shutil.rmtree(entry.path, ignore_errors=True)  # which follows no symbolic links


def sync(path: Path) -> None:
    """Synchronize a file to disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def drop_leftovers(folder: Path, name: str | None = None) -> None:
    """Delete the temporary files of killed processes of this machine from a folder.

    Files of other machines are kept for `MAX_AGE_SECONDS`, since their processes may be running. With ``name``, all
    temporary files of that file are deleted, from every machine: for a file that only the calling process writes.
    """
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            match = LEFTOVER.fullmatch(entry.name)
            if match is None:
                continue
            is_dead = match["machine"] == _machine() and not _is_alive(int(match["process"]))
            if match["name"] == name or (name is None and (is_dead or _age(entry) > MAX_AGE_SECONDS)):
                Path(entry.path).unlink(missing_ok=True)


def drop_leftovers_below(folder: Path) -> None:
    """Delete the temporary files of killed processes from a folder and all folders below it (`drop_leftovers`)."""
    for place, _, names in os.walk(folder):
        if any(LEFTOVER.fullmatch(name) for name in names):
            drop_leftovers(Path(place))


def _age(entry: os.DirEntry[str]) -> float:
    try:
        return time.time() - entry.stat().st_mtime
    except FileNotFoundError:  # its process has just renamed it
        return 0.0


@lru_cache(maxsize=1)
def _machine() -> str:
    return hashlib.sha256(f"{socket.gethostname()} {process_space()}".encode()).hexdigest()[:8]


def process_space() -> str:
    """Name what process ids belong to: this boot of this machine, and the container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with write_whole(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, without credentials; NaN and infinities, which JSON does not allow, become null."""
    write_text(path, json.dumps(hide_secrets(_replace_non_finite(value)), indent=1, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file. ValueError if it is missing or invalid."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    return parse_json(path.read_bytes(), str(path))


def parse_json(content: bytes | str, source: str) -> Any:
    """Parse JSON of any origin; ``source`` names it in errors. Whole numbers beyond 64 bits become floats.

    Raises:
        ValueError: invalid, with line and column, not in UTF-8, or nested more than `MAX_DEPTH` levels deep.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        tree = json.loads(text, parse_int=_parse_int)
    except UnicodeDecodeError as error:
        raise ValueError(f"{source}: not text in UTF-8 (byte {error.start}); wanted JSON") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{source}: not valid JSON at {place} ({error.msg}); is the file whole?") from None
    except RecursionError:
        raise ValueError(f"{source}: {TOO_DEEP}") from None
    level: list[Any] = [tree]
    for _ in range(MAX_DEPTH + 1):
        level = [item for item in level if isinstance(item, dict | list)]
        if not level:
            return tree
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    raise ValueError(f"{source}: {TOO_DEEP}")


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_DIGITS else float(digits)


def _replace_non_finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _replace_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_non_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def hash_text(text: str) -> str:
    """The first 16 hex digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def user_name() -> str:
    """The user's name, or in a container that does not know its user the number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def private_folder(path: Path, remedy: str) -> Path:
    """Create a folder that only this user can enter. ValueError, with the remedy, if it is another user's."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise ValueError(f"{path}: belongs to another user; {remedy}")
    return path


@contextmanager
def hold_lock(path: Path, *, seconds: float, waiting: str) -> Iterator[None]:
    """Hold the lock of a file, which one process or thread of a machine can have (`wait_for_lock`)."""
    with path.open("ab") as file:
        wait_for_lock(file, path, seconds=seconds, waiting=waiting)
        yield


def wait_for_lock(file: Any, path: Path, *, seconds: float, waiting: str, shared: bool = False) -> None:
    """Lock an open file until it is closed.

    Logs ``waiting`` every `NOTICE_SECONDS` while another process or thread has the lock. TimeoutError after
    ``seconds``. See `try_lock` for ``shared``.
    """
    start = noticed = time.monotonic()
    while not try_lock(file, shared=shared):
        now = time.monotonic()
        if now - start > seconds:
            raise TimeoutError(f"{path}: another process has this lock for {now - start:.0f} s; is it stopped?")
        if now - noticed > NOTICE_SECONDS:
            noticed = now
            log.info("%s", waiting)
        time.sleep(0.05)


def try_lock(file: Any, *, shared: bool = False) -> bool:
    """Lock an open file until it is closed; False if another process or thread has the lock.

    A ``shared`` lock can be had by several, and while none has it alone.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
