"""What a sweep keeps to be resumed besides its trials, and the lock that keeps a second driver out of its folder."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import splatfix
from splatfix.files import read_json, write_json
from splatfix.records import parse_record

log = logging.getLogger(__name__)

STATE, LOCK = "state.json", ".driver.lock"


@dataclass(frozen=True, kw_only=True)
class SweepState:
    """The contents of ``state.json``.

    Attributes:
        parallel: trials that may run at once; the proposals depend on it.
        seconds: by stage.
        versions: of the packages that the proposals depend on.
    """

    parallel: int
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def write_state(folder: Path, *, parallel: int, seconds: Mapping[str, float]) -> None:
    """Write ``state.json``."""
    state = SweepState(
        parallel=parallel,
        seconds={name: round(value, 1) for name, value in seconds.items()},
        versions={"splatfix": splatfix.__version__, "optuna": version("optuna"), "ray": version("ray")},
    )
    write_json(folder / STATE, asdict(state))


def read_state(folder: Path) -> SweepState | None:
    """The state of the sweep in a folder; None for a new one."""
    path = folder / STATE
    if not path.is_file():
        return None
    return parse_record(SweepState, read_json(path), source=str(path), remedy="use --fresh to start over")


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other drivers out of the sweep's folder, which is made if need be. ValueError where one is running."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(f"{folder}: {file.read().strip() or 'another process'} is running this sweep") from None
        except OSError:
            log.debug("%s: this file system has no locks", folder)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
