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
from typing import Any

import splatfix
from splatfix.config import to_tree
from splatfix.files import read_json, write_json
from splatfix.records import parse_record
from splatfix.sweep.config import SweepConfig, hide_password

log = logging.getLogger(__name__)

STATE, LOCK = "state.json", ".driver.lock"
CHANGEABLE = ("workers", "tracking", "reruns", "held_out", "keep_splats")  # settings that may change on resuming
CHANGEABLE_SEARCH = ("trials", "parallel")


@dataclass(frozen=True, kw_only=True)
class SweepState:
    """The contents of ``state.json``.

    Attributes:
        config: settings that the sweep was started with, without a password.
        parallel: trials that may run at once; the proposals depend on it.
        seconds: by stage.
        versions: of the packages that the proposals depend on.
    """

    config: dict[str, Any]
    parallel: int
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def write_state(folder: Path, config: SweepConfig, *, parallel: int, seconds: Mapping[str, float]) -> None:
    """Write ``state.json``."""
    state = SweepState(
        config=to_tree(hide_password(config)),
        parallel=parallel,
        seconds={name: round(value, 1) for name, value in seconds.items()},
        versions={"splatfix": splatfix.__version__, "optuna": version("optuna"), "ray": version("ray")},
    )
    write_json(folder / STATE, asdict(state))


def read_state(folder: Path, config: SweepConfig, *, resume: bool) -> SweepState | None:
    """The state of a sweep that is to be resumed; None for a new one.

    Raises:
        ValueError: the folder holds a sweep with other settings, or one that is not to be resumed.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    if not resume:
        raise ValueError(f"{folder}: holds a sweep already; resume it with --resume, or take another folder")
    state = parse_record(SweepState, read_json(path), source=str(path), remedy="take another folder")
    before, now = _fixed_settings(state.config), _fixed_settings(to_tree(hide_password(config)))
    for name in now:
        if before.get(name) != now[name]:
            raise ValueError(
                f"{path}: the sweep was started with other {name}: {before.get(name)!r}, now {now[name]!r}; keep the "
                "settings (--resume without --config takes them), or take another folder"
            )
    return state


def _fixed_settings(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that may not change on resuming."""
    fixed = {name: value for name, value in tree.items() if name not in CHANGEABLE}
    search = {name: value for name, value in tree["search"].items() if name not in CHANGEABLE_SEARCH}
    return {**fixed, "search": search}


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other drivers out of the sweep's folder. ValueError where one is running."""
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
