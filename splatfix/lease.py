"""One driver per output: a file that the driver renews while it runs, and that keeps other drivers out.

The lease is the file ``.driver.json`` in the output, a folder or a URL. It is created atomically (`storage.create`) and
renewed by a thread. A second driver is refused while the file changes. If the file has not changed for
`STALE_SECONDS`, its driver is dead, and another may take the lease over. The one who wants it measures that time by
its own clock, since the clocks of machines differ; a driver of the same machine is dead if its process is gone.
File locks are not used: several network file systems, and all object stores, have none.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from splatfix import storage
from splatfix.errors import LeaseLost, RunAborted
from splatfix.files import parse_json, process_space

log = logging.getLogger(__name__)

LEASE = ".driver.json"
RENEW_SECONDS = 10.0
STALE_SECONDS = 60.0  # without a change, after which a driver of another machine is taken for dead
STOP_SECONDS = 5.0
MAX_RACES = 20  # attempts to take the lease over while other drivers try as well


@dataclass(frozen=True, kw_only=True)
class _Holder:
    """The contents of the lease: who holds it.

    Attributes:
        id: of this lease, unique.
        command: what the driver runs.
        host, pid: of the driver's process.
        machine: within which process ids can be compared.
        start: when the process started, since process ids are used again.
        renewed_at: time of the last renewal, by the clock of the driver's machine.
    """

    id: str
    command: str
    host: str
    pid: int
    machine: str
    start: str | None
    renewed_at: float = 0.0

    def encode(self) -> bytes:
        return (json.dumps(asdict(self) | {"renewed_at": time.time()}) + "\n").encode()


@contextlib.contextmanager
def hold_lease(url: str, command: str) -> Iterator[None]:
    """Hold the lease of an output; ``command`` says what runs, to other drivers.

    A folder that does not exist is created, and removed at the end if nothing was written into it.

    Raises:
        ValueError: another driver holds the lease and is alive, or ``url`` is a file.
        RunAborted: another driver took the lease over, since this one was suspended or could not write. This can be
            raised at any point of the block.
    """
    where = storage.join(url, LEASE)
    holder = _Holder(
        id=uuid.uuid4().hex,
        command=command,
        host=socket.gethostname(),
        pid=os.getpid(),
        machine=process_space(),
        start=_find_start(os.getpid()),
    )
    is_new = storage.is_local(url) and not os.path.lexists(storage.absolute(url))
    try:
        _acquire(url, where, holder)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{url}: is a file; wanted a folder") from None
    renewal = _Renewal(where, holder)
    try:
        renewal.start()
        try:
            yield
        finally:
            renewal.stop()
    except LeaseLost:
        raise RunAborted(
            f"{url}: another driver took over while this one was suspended or could not write; finished work is kept"
        ) from None
    finally:
        _release(where, holder)
        if is_new:
            storage.remove_empty_folder(url)


def find_driver(url: str) -> str | None:
    """Describe the driver at work in an output; None if there is none, or only the lease of a dead one.

    A driver of another machine counts as alive if it renewed its lease within `STALE_SECONDS`, by the clocks of both.
    """
    content = _read(storage.join(url, LEASE))
    holder = None if content is None else _parse(content)
    if holder is None:
        return None
    if holder.machine == process_space():
        is_alive = holder.start is not None and _find_start(holder.pid) == holder.start
    else:
        is_alive = time.time() - holder.renewed_at < STALE_SECONDS
    return _describe(holder) if is_alive else None


class _Renewal(threading.Thread):
    """Renews a lease until it is stopped; raises `LeaseLost` in the thread that created it if the lease is lost."""

    def __init__(self, where: str, holder: _Holder) -> None:
        super().__init__(name="lease", daemon=True)
        self._where, self._holder = where, holder
        self._caller = threading.get_ident()
        self._lock = threading.Lock()  # so that nothing is raised after `stop`
        self._stopped = threading.Event()
        self._has_warned = False

    def stop(self) -> None:
        """End the renewals; one that is under way has `STOP_SECONDS` to end."""
        with self._lock:
            self._stopped.set()
        self.join(STOP_SECONDS)

    def run(self) -> None:
        while not self._stopped.wait(RENEW_SECONDS):
            try:
                is_lost = not _renew(self._where, self._holder)
            except (OSError, ValueError) as error:  # another driver may take over meanwhile, which is noticed later
                if not self._has_warned:
                    log.warning("%s: cannot be renewed (%s); trying again", self._where, error)
                self._has_warned = True
                continue
            with self._lock:
                if is_lost and not self._stopped.is_set():
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(self._caller), ctypes.py_object(LeaseLost)
                    )
                    return


def _acquire(url: str, where: str, holder: _Holder) -> None:
    """Create the lease, or take over that of a dead driver. ValueError if its driver is alive."""
    for _ in range(MAX_RACES):
        if storage.create(where, holder.encode()):
            return
        content = _read(where)
        if content is None:
            continue  # it was just released
        other = _parse(content)
        if other is not None and other.machine == holder.machine:
            if other.start is not None and _find_start(other.pid) == other.start:
                raise ValueError(_refuse(url, other, time.time() - other.renewed_at))
        else:
            _wait_until_stale(url, where, content)
        if _read(where) == content:  # otherwise, another driver was faster
            storage.delete(where)
            log.warning("%s: taking over from %s, which was killed", url, _describe(other))
    raise ValueError(f"{url}: several drivers start here at once; start one of them")


def _wait_until_stale(url: str, where: str, content: bytes) -> None:
    """Return when the lease is released or has not changed for `STALE_SECONDS`. ValueError if it is renewed."""
    start = time.monotonic()
    log.info(
        "%s: %s was at work here; waiting for up to %.0f s to see whether it still is",
        *(url, _describe(_parse(content)), STALE_SECONDS),
    )
    while time.monotonic() - start < STALE_SECONDS:
        seen = time.monotonic()
        time.sleep(min(1.0, STALE_SECONDS / 20))
        now = _read(where)
        if now is None:
            return
        if now != content:
            raise ValueError(_refuse(url, _parse(now), time.monotonic() - seen))


def _renew(where: str, holder: _Holder) -> bool:
    """Renew the lease; return False if it is another driver's."""
    content = _read(where)
    if content is None:
        return storage.create(where, holder.encode())  # the file was deleted by hand
    other = _parse(content)
    if other is not None and other.id != holder.id:
        return False
    storage.write_bytes(where, holder.encode())
    return True


def _release(where: str, holder: _Holder) -> None:
    try:
        content = _read(where)
        other = _parse(content) if content is not None else None
        if other is not None and other.id == holder.id:
            storage.delete(where)
    except (OSError, ValueError) as error:
        log.debug("%s: cannot be released (%s)", where, error)  # the next driver waits until it is stale


def _read(where: str) -> bytes | None:
    """Read the lease; None if there is none."""
    try:
        return storage.read_bytes(where)
    except storage.MissingFileError:
        return None


def _parse(content: bytes) -> _Holder | None:
    """Parse a lease; None if it is not whole, or of another version."""
    try:
        return _Holder(**parse_json(content, LEASE))
    except (ValueError, TypeError):
        return None


def _refuse(url: str, other: _Holder | None, seconds: float) -> str:
    return (
        f"{url}: {_describe(other)} is at work here, its last sign of life was {max(seconds, 0):.0f} s ago; wait for "
        "it, stop it, or choose another --out"
    )


def _describe(other: _Holder | None) -> str:
    return "another driver" if other is None else f"{other.command} (process {other.pid} on {other.host})"


def _find_start(pid: int) -> str | None:
    """Return when a process of this machine started, as far as the system says; None if it is not running."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return None if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "running"
