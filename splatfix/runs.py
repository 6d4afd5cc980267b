"""Run folders: inputs and settings of a run, whether a command may resume it, seconds per stage, and provenance.

One rule holds for every command that writes a run: the same command on the same folder resumes, if inputs and settings
are the same. If they differ, that is an error that names the first difference, raised before anything in the folder
changes. ``--fresh`` removes what the earlier run wrote, and nothing else.

``run.json`` is the record: the command, its inputs, its settings and the patterns of the files that it writes, from
the start on; provenance and the time when it finished, at the end.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import torch

import splatfix
from splatfix.config import first_difference, read_yaml, to_public_tree, to_yaml
from splatfix.files import drop_leftovers_below, read_json, write_json, write_text
from splatfix.messages import hide_secrets
from splatfix.process import name_device, peak_memory_mb
from splatfix.programs import run_program
from splatfix.stages import STEP, StagePlan

COMMIT = "SPLATFIX_COMMIT"  # environment variable: the commit of a copy without .git
RUN_FILES = RECORD, CONFIG = "run.json", "config.yaml"
REMEDIES = "use the same settings, another --out, or --fresh to start over"


@dataclass(frozen=True, kw_only=True)
class Input:
    """An input of a run: its path (or URL), and a digest of its content. Inputs with equal digests are the same."""

    path: str
    digest: str


def files_input(path: str | Path, files: Iterable[Path]) -> Input:
    """Some files as one input of a run. ``path`` names it: their folder, or the file if there is only one."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return Input(path=str(Path(path).resolve()), digest=digest.hexdigest()[:16])


@dataclass
class Run:
    """A run folder: its path, how long each stage took, and how fast it trained.

    ``record`` is what ``run.json`` holds so far. ``plan`` announces the stages; without one they begin in silence.
    """

    path: Path
    seconds: dict[str, float] = field(default_factory=dict)
    num_steps: int = 0
    step_seconds: float = 0.0
    record: dict[str, Any] = field(default_factory=dict)
    plan: StagePlan | None = None

    @property
    def is_finished(self) -> bool:
        """Whether an earlier process has finished this very run."""
        return "finished" in self.record

    def count_steps(self, num: int, seconds: float) -> None:
        """Add training steps and the seconds that they took."""
        self.num_steps += num
        self.step_seconds += seconds
        self.note(STEP, num, seconds)

    def note(self, unit: str, amount: float, seconds: float) -> None:
        """Tell the plan of finished work (`StagePlan.note`)."""
        if self.plan is not None:
            self.plan.note(unit, amount, seconds)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; repeated stages add up."""
        if self.plan is not None:
            self.plan.enter(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def write_provenance(self, *, seed: int, device: torch.device, **more: Any) -> None:
        """Complete ``run.json``: the run is finished."""
        write_json(
            self.path / RECORD,
            {
                **self.record,
                **describe_code(),
                "seed": seed,
                "device": str(device),
                "device_name": name_device(device),
                "num_threads": torch.get_num_threads(),
                "python": platform.python_version(),
                "torch": torch.__version__,
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
                "steps_per_second": round(self.num_steps / self.step_seconds, 2) if self.num_steps else None,
                "peak_memory_mb": peak_memory_mb(),
                **more,
            },
        )


def open_run(
    path: str | Path,
    config: Any,
    *,
    command: str,
    inputs: Mapping[str, Input] | None = None,
    may_change: Collection[str] = (),
    files: Sequence[str] = (),
    is_complete: bool = True,
    fresh: bool = False,
) -> Run:
    """Start a run in a folder, or resume the one in it; writes the record and ``config.yaml``.

    Args:
        path: the folder.
        config: the resolved settings.
        command: the command that runs.
        inputs: by name.
        may_change: settings (dotted) that decide no result, and may differ on resuming.
        files: glob patterns of the files that the run writes, besides record and config.
        is_complete: whether the folder holds all that these settings ask for; else a finished run is resumed, too.
        fresh: remove what an earlier run wrote here first.

    Returns:
        The run. Where ``is_finished``, nothing is written and nothing remains to be done.

    Raises:
        ValueError: the folder holds another run, or files that no run has recorded. Nothing has changed then.
    """
    path = Path(path)
    record = describe_run(config, command=command, inputs=inputs, files=files)
    earlier = check_run(path, record, may_change=may_change, fresh=fresh)
    if fresh:
        remove_run(path)
    elif is_complete and "finished" in earlier:
        return Run(path, record=earlier)
    path.mkdir(parents=True, exist_ok=True)
    drop_leftovers_below(path)
    write_json(path / RECORD, record)
    write_text(path / CONFIG, to_yaml(config))
    mark_started(path.resolve())
    return Run(path, record=record)


def describe_run(
    config: Any, *, command: str, inputs: Mapping[str, Input] | None = None, files: Sequence[str] = ()
) -> dict[str, Any]:
    """The record of a run at its start; arguments as of `open_run`."""
    return {
        "command": command,
        "inputs": hide_secrets({name: asdict(value) for name, value in (inputs or {}).items()}),
        "settings": to_public_tree(config),
        "files": list(files),
    }


_started: set[str] = set()


def mark_started(place: Path | str) -> None:
    """Remember that this process has started or resumed the run in a folder (or URL)."""
    _started.add(str(place))


def has_started(place: Path | str) -> bool:
    """Whether this process has started or resumed the run in a folder: running the command again resumes it then."""
    return str(place) in _started


def check_run(
    path: str | Path, record: Mapping[str, Any], *, may_change: Collection[str] = (), fresh: bool = False
) -> dict[str, Any]:
    """The record of the earlier run in a folder, empty where there is none. Changes nothing.

    Raises:
        ValueError: the folder holds another run than ``record`` describes (unless ``fresh``), or files that would be
            overwritten and that no run has recorded.
    """
    path = check_place(path)
    earlier = read_run(path)
    if earlier is None:
        for pattern in (CONFIG, RECORD, *record["files"]):
            if strange := next(path.glob(pattern), None):
                raise ValueError(
                    f"{path}: holds {strange.relative_to(path)}, which no run of this version recorded; choose another "
                    "--out, or remove it"
                )
        return {}
    if fresh:
        return earlier
    check_command(path, earlier, record["command"])
    for name, now in record["inputs"].items():
        before = earlier["inputs"].get(name, {"path": None, "digest": None})
        if before["digest"] != now["digest"] and before["path"] != now["path"]:
            raise ValueError(f"{path}: {name} was {before['path']}, now it is {now['path']}; {REMEDIES}")
    refuse_changes(path, earlier["settings"], record["settings"], may_change)
    for name, now in record["inputs"].items():
        if earlier["inputs"][name]["digest"] != now["digest"]:
            raise ValueError(f"{path}: {name} {now['path']} has changed since the run began; {REMEDIES}")
    return earlier


def check_place(path: str | Path) -> Path:
    """The folder of a run, which need not exist. ValueError if it is a URL or a file."""
    path = Path(path)
    if re.match(r"[A-Za-z][A-Za-z0-9]+:/", str(path)):
        raise ValueError(f"{path}: is a URL; this command writes to a folder: choose one as --out, and copy it later")
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path}: is a file; wanted a folder for the run")
    if file := next((parent for parent in path.parents if parent.is_file()), None):
        raise ValueError(f"{path}: {file} is a file; wanted a folder for the run")
    return path


def check_command(path: Path | str, record: Mapping[str, Any], command: str) -> None:
    """Refuse a folder in which another command has run."""
    if record["command"] != command:
        raise ValueError(
            f"{path}: holds a run of splatfix {record['command']}, not of {command}; choose another --out, or --fresh "
            "to replace it"
        )


def refuse_changes(place: Path | str, before: Any, now: Any, may_change: Collection[str] = ()) -> None:
    """Refuse other settings than a run began with: a ValueError names the first that differs, and both values."""
    difference = first_difference(before, now, may_change)
    if difference is not None:
        name, was, wanted = difference
        raise ValueError(f"{place}: {name} was {was!r}, now it is {wanted!r}; {REMEDIES}")


def read_run(path: Path | str) -> dict[str, Any] | None:
    """The record of the run in a folder; None where there is none (or one of a version that recorded less)."""
    place = Path(path) / RECORD
    record = read_json(place) if place.is_file() else None
    return record if isinstance(record, dict) and {"command", "inputs", "settings", "files"} <= record.keys() else None


def stored_settings(path: Path | str, command: str) -> dict[str, Any] | None:
    """The settings in a run folder, for those that a rerun does not name; None where no run has begun there.

    Raises:
        ValueError: another command has run there.
    """
    record = read_run(path)
    if record is None:
        return None
    check_command(path, record, command)
    config = Path(path) / CONFIG
    return read_yaml(config) if config.is_file() else record["settings"]


def remove_run(path: Path) -> None:
    """Remove the files that the run in a folder has recorded as its own, and folders that are empty then.

    Anything else stays: what splatfix did not write, and MLflow's database, which may hold other runs.
    """
    path = Path(path)
    record = read_run(path)
    if record is None:
        return
    emptied: set[Path] = set()
    patterns = [PurePosixPath(str(pattern)) for pattern in (*record["files"], CONFIG, RECORD)]
    for parts in patterns:  # the record may be somebody else's
        if parts.is_absolute() or ".." in parts.parts or not parts.name:
            raise ValueError(
                f"{path / RECORD}: files: {str(parts)!r} is not in the folder; wanted patterns of files in it"
            )
    for parts in patterns:  # the record last: an interrupted removal can be repeated
        for name in (parts.name, f".{parts.name}.*.partial"):
            for file in path.glob(str(parts.with_name(name))):
                if file.is_file() or file.is_symlink():
                    file.unlink(missing_ok=True)
                    emptied.update(parent for parent in file.parents if path in parent.parents)
    for folder in sorted(emptied, key=lambda folder: len(folder.parts), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def describe_code() -> dict[str, str | None]:
    """What code runs: version, commit, and a digest of the sources, which tells apart what has no commit."""
    return {"version": splatfix.__version__, "commit": source_commit(), "code": source_digest()}


@lru_cache(maxsize=1)
def source_commit() -> str | None:
    """The commit of the checkout that splatfix is imported from, or that ``SPLATFIX_COMMIT`` names; None if unknown.

    A Ray job runs from a copy without ``.git``.
    """
    root = Path(splatfix.__file__).parent.parent
    named = os.environ.get(COMMIT) or None
    if not (root / ".git").exists():
        return named
    try:
        done = run_program(["git", "-C", str(root), "rev-parse", "HEAD"], timeout_seconds=10)
    except (OSError, subprocess.TimeoutExpired):
        return named
    return done.output.strip() if done.code == 0 else named


@lru_cache(maxsize=1)
def source_digest() -> str:
    """The first 12 hex digits of the SHA-256 of all Python files of the package, as they are on disk."""
    package = Path(splatfix.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py"), key=lambda file: file.relative_to(package).as_posix()):
        digest.update(f"{file.relative_to(package).as_posix()}\n".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]
