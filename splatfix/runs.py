"""Run folders: what a run was, written so that a reader finds it whole or not at all."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import splatfix
from splatfix.config import to_yaml

log = logging.getLogger("splatfix")


def set_up_logging(verbose: bool = False) -> None:
    """Messages of splatfix go to standard error, one line each, without breaking progress bars."""

    class ThroughTqdm(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tqdm.write(self.format(record), file=sys.stderr)

    handler = ThroughTqdm()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers = [handler]
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    log.propagate = False


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


_requested: str | None = None


def stop_on_signals() -> None:
    """Let Ctrl-C and SIGTERM (schedulers, machines about to go away) end a command with a KeyboardInterrupt.

    Where a library swallows it (callbacks from C do), the next update of a progress bar raises it again.
    """
    global _requested
    _requested = None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _stop)
        signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, _frame: object) -> None:
    global _requested
    _requested = "terminated" if number == signal.SIGTERM else "interrupted"
    raise KeyboardInterrupt(_requested)


def stop_requested() -> str | None:
    """``interrupted`` or ``terminated`` after such a signal, else None."""
    return _requested


@contextmanager
def keeping_handler(number: signal.Signals) -> Iterator[None]:
    """Put our handler of a signal back after what puts another in its place (importing pycolmap, Ray)."""
    if threading.current_thread() is not threading.main_thread():  # the only one that can set them
        yield
        return
    handler = signal.getsignal(number)
    try:
        yield
    finally:
        if handler is not None:
            signal.signal(number, handler)


def choose_device(name: str = "auto") -> torch.device:
    """The one place where the device is chosen: ``auto`` takes CUDA where it works, else the CPU.

    Raises:
        ValueError: an unknown name, or CUDA asked for and not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device = {name!r}: wanted auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device = {name!r}: torch {torch.__version__} sees no CUDA device; use auto or cpu")
    return device


def write_text(path: Path, text: str) -> None:
    """Write a text file whole: aside, then renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")  # of no other process on a shared disk
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole; NaN and infinities become null (they are not JSON)."""
    write_text(path, json.dumps(_finite(value), indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. ValueError names the file where it is missing or invalid."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@dataclass
class Run:
    """A run folder in the making: knows its path, how long each stage took, and how fast it trained."""

    path: Path
    seconds: dict[str, float] = field(default_factory=dict)
    num_steps: int = 0
    step_seconds: float = 0.0

    def count_steps(self, num: int, seconds: float) -> None:
        """Training steps that were made, and how long they took."""
        self.num_steps += num
        self.step_seconds += seconds

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; repeated stages add up."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def write_provenance(self, *, command: str, seed: int, device: torch.device, **more: Any) -> None:
        """Write ``run.json``."""
        write_json(
            self.path / "run.json",
            {
                "command": command,
                "version": splatfix.__version__,
                "commit": source_commit(),
                "seed": seed,
                "device": str(device),
                "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor(),
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


def open_run(path: Path, config: Any) -> Run:
    """Make a run folder and write the resolved config into it. ValueError where the path is a file."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path}: is a file; wanted a folder for the run")
    path.mkdir(parents=True, exist_ok=True)
    write_text(path / "config.yaml", to_yaml(config))
    return Run(path)


def peak_memory_mb() -> int | None:
    """The largest resident memory of this process so far, in MiB (None where the system does not say)."""
    try:
        import resource
    except ImportError:
        return None
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(kilobytes / 1024 / (1024 if sys.platform == "darwin" else 1))


def source_commit() -> str | None:
    """The commit of the checkout that splatfix is imported from; None for an installed package."""
    root = Path(splatfix.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


class _Progress(tqdm):
    def update(self, n: float | None = 1) -> bool | None:
        if _requested is not None:
            raise KeyboardInterrupt(_requested)
        return super().update(n)


@contextmanager
def using_threads(num: int) -> Iterator[None]:
    """Kernels and torch on ``num`` threads, or as many as this process has."""
    import numba

    before = numba.get_num_threads(), torch.get_num_threads()
    numba.set_num_threads(min(num, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    torch.set_num_threads(num)
    try:
        yield
    finally:
        numba.set_num_threads(before[0])
        torch.set_num_threads(before[1])


@contextmanager
def logging_at(level: int, name: str) -> Iterator[None]:
    """A logger (with those below it) at a level for a while."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


_bars_hidden = False


@contextmanager
def hidden_bars() -> Iterator[None]:
    """No progress bars in here: who runs many of something shows one of its own."""
    global _bars_hidden
    before, _bars_hidden = _bars_hidden, True
    try:
        yield
    finally:
        _bars_hidden = before


def progress(
    iterable=None, *, total: int | None = None, initial: int = 0, description: str, quiet: bool = False
) -> tqdm:
    """A progress bar with an ETA on standard error; in logs (no terminal) a line every 15 seconds."""
    terminal = sys.stderr.isatty()
    return _Progress(
        iterable,
        total=total,
        initial=initial,
        desc=description,
        disable=quiet or _bars_hidden,
        mininterval=0.2 if terminal else 15,
        maxinterval=10 if terminal else 60,
        dynamic_ncols=terminal,
        leave=True,
        file=sys.stderr,
    )
