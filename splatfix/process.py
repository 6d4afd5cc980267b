"""The process: logging, progress bars, signals, threads, seeds, and the choice of the device."""

from __future__ import annotations

import functools
import logging
import os
import platform
import random
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

import numpy as np
import torch
from tqdm import tqdm

from splatfix import cuda_setup
from splatfix.messages import readable

ABORT_SECONDS = 20.0  # that a command may take to end when Ray has died; Ray would end it after 60, without a message
log = logging.getLogger("splatfix")


def set_up_logging(verbose: bool = False) -> None:
    """Messages of splatfix go to standard error, one `readable` line each, without breaking progress bars."""

    class ThroughTqdm(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tqdm.write(readable(record.getMessage()), file=sys.stderr)

    handler = ThroughTqdm()
    log.handlers = [handler]
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    log.propagate = False


_quiet_lock = threading.Lock()
_quiet_levels: dict[str, list[int]] = {}  # by logger: its level before, then the level of each open `quiet`


@contextmanager
def quiet(*logger_names: str, level: int = logging.WARNING) -> Iterator[None]:
    """Drop messages below ``level`` of these loggers and of those below them.

    Calls may be nested and come from several threads: the highest level applies, and the last one to leave restores the
    logger's level.
    """
    with _quiet_lock:
        for name in logger_names:
            _quiet_levels.setdefault(name, [logging.getLogger(name).level]).append(level)
            logging.getLogger(name).setLevel(max(_quiet_levels[name]))
    try:
        yield
    finally:
        with _quiet_lock:
            for name in logger_names:
                levels = _quiet_levels[name]
                levels.remove(level)
                logging.getLogger(name).setLevel(max(levels))
                if len(levels) == 1:
                    del _quiet_levels[name]


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


_command = "splatfix"
_requested: str | None = None
_aborted: str | None = None
_abort_timer: threading.Timer | None = None
_awaited_step: str | None = None  # at whose end a progress bar is updated


def stop_on_signals(command: str = "splatfix") -> None:
    """Let Ctrl-C and SIGTERM (schedulers, machines about to go away) end a command with a KeyboardInterrupt.

    Where a library swallows it (callbacks from C do), the next update of a progress bar raises it again.
    """
    global _command, _requested, _aborted, _abort_timer
    _command = command
    _requested = _aborted = _abort_timer = None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _stop)
        signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, _frame: object) -> None:
    global _requested
    is_first = _requested is None
    _requested = "terminated" if number == signal.SIGTERM else "interrupted"
    sys.unraisablehook = _ignore_unraisable
    if not is_first or _awaited_step is None:
        raise KeyboardInterrupt(_requested)
    again = "Ctrl-C again" if number == signal.SIGINT else "a second signal"
    _write_line(f"stopping after this {_awaited_step}; {again} stops at once")


def _write_line(text: str) -> None:
    """Write a line to standard error where its buffer or the lock of progress bars may be in use, as in a handler.

    On a terminal it replaces the progress bar, which comes back below with its next update.
    """
    start = "\r\033[K" if os.isatty(2) else "\n"
    with suppress(OSError):  # closed, or a full disk
        os.write(2, f"{start}{text}\n".encode())


@contextmanager
def acting_after(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """Call ``act`` in another thread if the block has not ended after so many seconds."""
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    with suppress(RuntimeError):  # at the end of the interpreter no thread starts
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def abort_command(reason: str) -> None:
    """End a command from another thread: interrupt its main thread, with the reason as its last message.

    By SIGTERM, since Ray Train takes Ctrl-C for itself and waits for an answer of its actors. Where the main thread
    does not come back (Ray's calls to its central service cannot be interrupted), the process is ended after
    `ABORT_SECONDS`, with the message and exit code 1.
    """
    global _aborted, _abort_timer
    _aborted = reason
    _abort_timer = threading.Timer(ABORT_SECONDS, _end_process, args=[f"{_command}: {reason}"])
    _abort_timer.daemon = True
    _abort_timer.start()
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    signal.pthread_kill(main_thread, signal.SIGTERM)  # which also ends most calls that block


def is_aborting() -> bool:
    """Whether `abort_command` is ending the command."""
    return _aborted is not None


def _end_process(message: str) -> None:
    _write_line(readable(message))
    os._exit(1)


def abort_reason() -> str | None:
    """The reason if `abort_command` ended the command, which has come to its end now, else None."""
    if _abort_timer is not None:
        _abort_timer.cancel()
    return _aborted


def _ignore_unraisable(_: object) -> None:
    """Finalizers of objects that a stop left half made (of llvmlite) would print tracebacks below the last message."""


@contextmanager
def stopping_at_progress(step: str = "step") -> Iterator[None]:
    """Let a stop signal wait for the next update of a progress bar, so that it interrupts no step; not a second one.

    The first one is answered with a line that names the ``step``.
    """
    global _awaited_step
    before, _awaited_step = _awaited_step, step
    try:
        yield
    finally:
        _awaited_step = before


def stop_requested() -> str | None:
    """``interrupted`` or ``terminated`` after such a signal, else None."""
    return _requested


@contextmanager
def keeping_handler(number: signal.Signals) -> Iterator[None]:
    """Restore our handler of a signal after code that replaces it (importing pycolmap, Ray)."""
    if threading.current_thread() is not threading.main_thread():  # the only one that can set them
        yield
        return
    handler = signal.getsignal(number)
    try:
        yield
    finally:
        if handler is not None:
            signal.signal(number, handler)


@contextmanager
def setting_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables that are not set, and unset them at the end."""
    names = [name for name in variables if name not in os.environ]
    os.environ.update({name: variables[name] for name in names})
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)


def choose_device(name: str = "auto", *, renders: bool = True) -> torch.device:
    """The one place where the device is chosen: ``auto`` takes CUDA where it works, else the CPU.

    ``renders``: Gaussians are rendered there, so that CUDA works only with gsplat (`cuda_setup`), which is compiled if
    needed; otherwise torch is enough.

    Raises:
        ValueError: an unknown name, or CUDA asked for where it does not work.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        obstacle = _find_obstacle(renders)
        if obstacle is not None:
            _warn_once(f"the GPU is not used: {obstacle}")
        return torch.device("cpu" if obstacle is not None else "cuda")
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if match is None:
        raise ValueError(f"device = {name!r}: wanted auto, cpu, cuda or cuda:N")
    if name == "cpu":
        return torch.device("cpu")
    obstacle = _find_obstacle(renders)
    if obstacle is not None:
        raise ValueError(f"device = {name!r}: {obstacle}; or use auto or cpu")
    num = torch.cuda.device_count()
    if match[1] is not None and int(match[1]) >= num:
        raise ValueError(f"device = {name!r}: this machine has {num} CUDA devices, the last is cuda:{num - 1}")
    return torch.device(name)


def _find_obstacle(renders: bool) -> str | None:
    return cuda_setup.find_obstacle() if renders else cuda_setup.find_device_obstacle()


@functools.cache
def _warn_once(message: str) -> None:
    log.warning("%s", message)


def name_device(device: torch.device) -> str:
    """The name of a GPU, or of the processor (where the system does not say, its architecture)."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


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


def peak_memory_mb() -> int | None:
    """The largest resident memory of this process so far, in MiB (None where the system does not say)."""
    try:
        import resource
    except ImportError:
        return None
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(kilobytes / 1024 / (1024 if sys.platform == "darwin" else 1))


class _Progress(tqdm):
    def update(self, n: float | None = 1) -> bool | None:
        if _requested is not None:
            raise KeyboardInterrupt(_requested)
        return super().update(n)


LOG_SECONDS = 60.0  # between the lines of a progress bar in a log
_bars_hidden = False


@contextmanager
def hidden_bars() -> Iterator[None]:
    """Hide progress bars within this context: a caller that runs many tasks shows a single bar for them."""
    global _bars_hidden
    before, _bars_hidden = _bars_hidden, True
    try:
        yield
    finally:
        _bars_hidden = before


def progress(
    iterable=None,
    *,
    total: int | None = None,
    initial: int = 0,
    description: str,
    quiet: bool = False,
    log_after: float = 0.0,
) -> tqdm:
    """A progress bar with an ETA on standard error; in logs (no terminal) a line every minute.

    ``log_after``: in logs, work that takes fewer seconds has no line.
    """
    terminal = sys.stderr.isatty()
    return _Progress(
        iterable,
        total=total,
        initial=initial,
        desc=description,
        disable=quiet or _bars_hidden,
        mininterval=0.2 if terminal else LOG_SECONDS,
        maxinterval=10 if terminal else LOG_SECONDS,
        delay=0.0 if terminal else log_after,
        dynamic_ncols=terminal,
        leave=True,
        file=sys.stderr,
    )


def seconds_left(bar: tqdm) -> float | None:
    """Estimate the remaining time as the progress bar does; None before its first step."""
    numbers = bar.format_dict
    done, total = numbers["n"], numbers["total"]
    if not total or done <= numbers["initial"]:
        return None
    rate = numbers["rate"] or (done - numbers["initial"]) / max(numbers["elapsed"], 1e-9)
    return max(total - done, 0) / rate
