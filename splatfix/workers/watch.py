"""Watch the Ray that a command is connected to, and end the command when nothing would answer it any more."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from splatfix.process import abort_command

WATCH_SECONDS = 5.0  # between looks at the nodes of a cluster
NODELESS_SECONDS = 60.0  # without any node, before a command ends
LOCAL_WATCH_SECONDS = 1.0  # between looks at a Ray that was started here
LOCAL_PROCESSES = ("raylet", "gcs_server")  # without which nothing of it answers
log = logging.getLogger(__name__)


def _local_processes() -> dict[psutil.Process, str]:
    """The processes of Ray that this one has started, which run, and their names."""
    named = ((each, _name(each)) for each in psutil.Process().children())
    return {each: name for each, name in named if name in LOCAL_PROCESSES}


def _name(process: psutil.Process) -> str | None:
    """The name of a process that runs, else None."""
    try:
        return None if process.status() == psutil.STATUS_ZOMBIE else process.name()
    except psutil.Error:
        return None


@contextmanager
def ending_without_ray(ray: Any, *, starts: bool) -> Iterator[threading.Event]:
    """End the command when nothing would answer any more, since it would wait for ever.

    That is when Ray has had no node for `NODELESS_SECONDS` (a cluster that grows has its head), or, where the block
    ``starts`` Ray on this machine, at once when one of its processes has died. Later, when Ray finds out, it may end
    this process without a message (its client of the object store does).

    Yields:
        What the block sets when it is connected.
    """
    connected, closing = threading.Event(), threading.Event()
    arguments = (ray, starts, connected, closing, _local_processes())
    thread = threading.Thread(target=_watch_ray, args=arguments, name="splatfix-nodes", daemon=True)
    thread.start()
    try:
        yield connected
    finally:
        closing.set()
        thread.join(timeout=WATCH_SECONDS)


class _NodeCounter(threading.Thread):
    """Asks Ray for its nodes in a separate thread, which Ray blocks while its central service does not answer.

    Attributes:
        num_seen: how often there was a node, or no connection yet.
        is_asking: whether a question has no answer yet.
    """

    def __init__(self, ray: Any, connected: threading.Event, closing: threading.Event, pause: float) -> None:
        super().__init__(name="splatfix-nodes", daemon=True)
        self._ray, self._connected, self._closing, self._pause = ray, connected, closing, pause
        self.num_seen = 0
        self.is_asking = False

    def run(self) -> None:
        while not self._closing.wait(self._pause):
            self.is_asking = True
            self.num_seen += not self._connected.is_set() or _has_nodes(self._ray)
            self.is_asking = False


def _watch_ray(
    ray: Any, starts: bool, connected: threading.Event, closing: threading.Event, ignored: Collection[psutil.Process]
) -> None:
    pause = LOCAL_WATCH_SECONDS if starts else WATCH_SECONDS
    names: dict[psutil.Process, str] = {}
    counter = _NodeCounter(ray, connected, closing, pause)
    counter.start()
    num_seen, waited = 0, 0.0  # counted in looks, so that a process that was stopped for hours does not end at once
    reason, cause = None, "it was killed, or this machine ran out of memory"
    while reason is None:
        if closing.wait(pause):
            return
        dead = [name for each, name in names.items() if _name(each) is None]
        if starts:
            starts = not connected.is_set()
            names |= {each: name for each, name in _local_processes().items() if each not in ignored}
        waited = waited + pause if counter.num_seen == num_seen else 0.0
        num_seen = counter.num_seen
        if dead:
            reason = f"Ray's process {' and '.join(dead)} has died"
        elif waited > NODELESS_SECONDS:
            what = "not answered" if counter.is_asking else "had no node"
            reason = f"Ray has {what} for {NODELESS_SECONDS:.0f} s"
            cause = "its head node was lost, or cannot be reached" if counter.is_asking and not names else cause
    abort_command(f"{reason}: {cause}; finished work is kept, and the same command resumes")


def _has_nodes(ray: Any) -> bool:
    try:
        return any(node["Alive"] for node in ray.nodes())
    except Exception as error:  # of many kinds, while Ray's central service is away
        log.debug("the nodes of Ray cannot be listed: %s", error)
        return False
