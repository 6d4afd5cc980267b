"""What runs in the process of an actor: a worker, and the checks of its share of a GPU."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from splatfix.errors import MachineError, RunAborted, is_disk_full
from splatfix.shared_folder import describe_machine
from splatfix.workers.cluster import current_gpus, current_node
from splatfix.workers.cuda_errors import breaks_cuda, free_cached_memory, is_out_of_memory, retry_with_free_memory
from splatfix.workers.failures import BrokenProcessError, GpuMemoryError, NodeDiskFullError
from splatfix.workers.tasks import Worker

MAX_WARNINGS = 20  # that are sent to the driver with one answer
INSTANT_SECONDS = 1.0  # a failure within this time is instant
MAX_INSTANT_FAILURES = 2  # in a row, before the process is taken for broken


@dataclass(frozen=True)
class Answer:
    """The result of a task, and the warnings that were logged meanwhile."""

    result: Any
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where an actor is: the id of its node, and the ids of the GPUs there that it was given, or given a share of."""

    node: str
    gpus: frozenset[str] = frozenset()


class WorkerHost:
    """Creates the worker when the actor starts, then forwards tasks to it.

    ``gpus`` is the share of a GPU that the actor holds; 0 if none.
    """

    def __init__(self, create: Callable[[], Worker], gpus: float) -> None:
        self._worker: Worker | None = None
        self._error: Exception | None = None
        self._gpus = gpus
        self._num_instant_failures = 0
        self._warnings = _Warnings()
        logging.basicConfig(level=logging.WARNING, format="%(message)s")  # into the node's own log
        logging.getLogger("splatfix").addHandler(self._warnings)
        try:
            if gpus > 0:  # else its environment hides all GPUs (`cluster.worker_options`)
                take_gpu_share(gpus)
            self._worker = create()
        except Exception as error:  # raised by `check_ready`: Ray would only report that the actor died
            self._error = error

    def __repr__(self) -> str:
        return f"{type(self).__name__}({socket.gethostname()})"

    def check_ready(self) -> Place:
        """Return where this actor is; raise the error if the worker could not be created."""
        if self._error is not None:
            raise self._error
        return Place(current_node(), current_gpus())

    def free_memory(self) -> None:
        """Free what this process has cached on its GPU, for a task that is about to run alone on it."""
        free_cached_memory()

    def run_alone(self, task: Any) -> Answer:
        """Do a task that may use the whole memory of the GPU, since no other task runs there. Errors as `run`."""
        free_cached_memory()
        if 0 < self._gpus < 1:
            set_memory_share(1.0)
        try:
            return self.run(task, None)
        finally:
            free_cached_memory()
            if 0 < self._gpus < 1:
                set_memory_share(self._gpus)

    def run(self, task: Any, upcoming: Any | None) -> Answer:
        """Do a task; see `Worker`. If the memory of the GPU is full, it is tried once more with what can be freed.

        Raises:
            NodeDiskFullError: no space is left in a folder that only this node uses.
            GpuMemoryError: the memory of the GPU is full.
            BrokenProcessError: CUDA no longer works in this process, or two tasks in a row failed within a second.
        """
        assert self._worker is not None
        start = time.monotonic()
        try:
            result = retry_with_free_memory(lambda: self._worker.run(task, upcoming))  # type: ignore[union-attr]
        except RunAborted:
            raise
        except Exception as error:
            if isinstance(error, OSError) and is_disk_full(error):
                if not _is_temporary(error.filename):
                    raise
                place = error.filename or tempfile.gettempdir()
                raise NodeDiskFullError(f"{describe_machine()}: no space is left ({place})") from error
            if is_out_of_memory(error):
                reason = str(error).strip().split("\n")[0]
                raise GpuMemoryError(f"{describe_machine()}: {reason}") from error
            is_instant = time.monotonic() - start < INSTANT_SECONDS and not isinstance(error, ValueError)
            self._num_instant_failures = self._num_instant_failures + 1 if is_instant else 0
            if breaks_cuda(error) or self._num_instant_failures >= MAX_INSTANT_FAILURES:
                reason = f"{type(error).__name__}: {error}"
                raise BrokenProcessError(f"{reason}; a worker of {describe_machine()} is replaced") from error
            raise
        self._num_instant_failures = 0
        return Answer(result, self._warnings.take())


def host_class(create: Callable[[], Worker]) -> type[WorkerHost]:
    """Return the class of the actors that host a worker, with the worker's name, which Ray's dashboard shows."""
    while isinstance(create, partial):
        create = create.func
    name = getattr(create, "__name__", type(create).__name__).lstrip("_")
    return type(name if name.isidentifier() else "Worker", (WorkerHost,), {})


def take_gpu_share(gpus: float) -> None:
    """Keep this process to its share of a GPU: to that share of its memory, or, with a share of 0, to the CPU.

    For a process that has not used CUDA yet.

    Raises:
        MachineError: CUDA does not work, as `require_cuda`.
    """
    if gpus == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides the GPUs of others only from workers that have one
        return
    require_cuda(f"{gpus:g} of a GPU", "set workers.gpus to 0 for the CPU")
    if gpus < 1:
        set_memory_share(gpus)


def set_memory_share(share: float) -> None:
    """Limit the memory that torch takes of the GPU of this process to a share of it, above 0 and up to 1."""
    import torch

    torch.cuda.set_per_process_memory_fraction(share)


def require_cuda(held: str, remedy: str, *, renders: bool = True) -> None:
    """Check that a worker can use the GPU that it holds; ``held`` and ``remedy`` are for the message.

    ``renders``: it needs gsplat, which is compiled if needed (`cuda_setup`); otherwise torch is enough.

    Raises:
        MachineError: CUDA does not work, so that the worker would run on the CPU.
    """
    from splatfix import cuda_setup

    obstacle = cuda_setup.find_obstacle() if renders else cuda_setup.find_device_obstacle()
    if obstacle is not None:
        raise MachineError(f"{describe_machine()}: this worker holds {held}, but {obstacle}, or {remedy}")


def _is_temporary(name: str | None) -> bool:
    """Whether a file is one of this node's own. Files of results have names: they are written by `write_whole`."""
    return name is None or Path(name).absolute().is_relative_to(Path(tempfile.gettempdir()).absolute())


class _Warnings(logging.Handler):
    """Collects warnings and errors until they are sent to the driver."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._messages) < MAX_WARNINGS:
            self._messages.append(record.getMessage())

    def take(self) -> tuple[str, ...]:
        """Return the collected messages, and forget them."""
        messages, self._messages = tuple(self._messages), []
        return messages
