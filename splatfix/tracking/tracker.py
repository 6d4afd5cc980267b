"""Tracking a run: records are appended to the journal, and a thread sends them."""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from splatfix.config import require
from splatfix.deadlines import call_within
from splatfix.extras import install_line, is_installed, require_modules
from splatfix.messages import without_secrets
from splatfix.process import acting_after, progress, stop_requested
from splatfix.tracking.config import WANTED_URI, TrackingConfig, is_known, uri_in, uri_of_environment
from splatfix.tracking.journal import GATHER_SECONDS, JOURNAL, Journal
from splatfix.tracking.limits import MAX_PARAM, MAX_TAG, mlflow_name
from splatfix.tracking.sender import Sender, reason
from splatfix.tracking.state import STATE, State, read_state

log = logging.getLogger(__name__)

INSTALL = install_line("tracking")
QUIET_SECONDS = 2.0  # of waiting at the end of a run, before a message
SLOW_SECONDS = 10.0  # of `send_unsent`, before a message
SEND_SECONDS = 600.0  # in which a server has to take some of what `send_unsent` sends
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 60.0  # between tries where there is no answer

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Tracker:
    """Tracks one run. Leaving it as a context ends the run: FINISHED, FAILED (an exception) or KILLED (stopped).

    Created by `open_tracker`. Its methods only append to the journal, and may be called from any thread.
    """

    def __init__(self, sender: Sender | None) -> None:
        self._sender = sender
        self.is_down = False  # no answer at the last try
        self._has_ended = False
        self._all_sent: bool | None = None  # None until `finish` has waited
        if sender is None:
            return
        self._journal = Journal(sender.folder / JOURNAL)
        self._news, self._finishing, self._stopped = threading.Event(), threading.Event(), threading.Event()
        self._append("start")
        self._thread = threading.Thread(target=self._send_loop, name="tracking", daemon=True)
        self._thread.start()

    @property
    def key(self) -> str | None:
        """The tag by which MLflow finds the run; None where nothing is tracked."""
        return None if self._sender is None else self._sender.state.key

    def params(self, tree: Mapping[str, Any]) -> None:
        """Log settings, which may be nested: ``{"a": {"b": 1}}`` is the param ``a.b``. Long values are cut.

        A param never changes in MLflow: a value that differs on resuming is kept as ``a.b changed 1``.
        """
        self._append("params", values={mlflow_name(key): value[:MAX_PARAM] for key, value in _flat(tree)})

    def metrics(self, values: Mapping[str, float], step: int, time_ms: int | None = None) -> None:
        """Log values at a step; those that are not finite numbers are left out.

        ``time_ms`` is their time, by default now: MLflow keeps the same values at the same time only once.
        """
        finite = {mlflow_name(key): number for key, value in values.items() if (number := _finite(value)) is not None}
        if finite:
            self._append("metrics", time_ms, values=finite, step=int(step))

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags of the run; a later value replaces an earlier one."""
        self._append("tags", values={mlflow_name(key): str(value)[:MAX_TAG] for key, value in values.items()})

    def artifact(self, path: Path, folder: str = "") -> None:
        """Store a file or folder inside the run's folder in MLflow, under ``folder``, as it is when it is sent.

        Raises:
            ValueError: it is not inside the run's folder.
        """
        if self._sender is None:
            return
        root = self._sender.folder.resolve()
        resolved = Path(path).resolve()
        if root not in resolved.parents:
            raise ValueError(f"{path}: wanted a file or folder inside {self._sender.folder}, where the run is")
        self._append("artifact", path=resolved.relative_to(root).as_posix(), folder=folder.strip("/"))

    def end(self, status: Status) -> None:
        """End the run without waiting: remaining records are sent in the background, until `finish`."""
        if self._sender is None or self._has_ended:
            return
        self._append("end", status=status)
        self._has_ended = True
        self._journal.close()
        self._finishing.set()
        self._news.set()

    def finish(self, status: Status, wait_seconds: float = 20, *, warn: bool = True) -> bool:
        """End the run, and wait for the sending thread; returns whether MLflow has all of the run by then.

        Args:
            status: how the run ended.
            wait_seconds: the longest wait.
            warn: log that it takes long, and a warning with the remedy where something was not sent.
        """
        if self._sender is None:
            return True
        self.end(status)
        if self._all_sent is None:
            deadline = time.monotonic() + wait_seconds
            if warn and not self.is_idle(min(QUIET_SECONDS, wait_seconds)):
                say_sending(deadline)
            self._thread.join(max(0.0, deadline - time.monotonic()))
            self._stopped.set()
            self._all_sent = self._num_unsent() == 0 and not self._thread.is_alive()
            if warn:
                self.warn_unsent()
        return self._all_sent

    def warn_unsent(self) -> None:
        """Log a warning with the remedy where something was not sent at `finish`."""
        if self._sender is None or self._all_sent is not False:
            return
        uri = self._sender.state.uri
        folder = f"{self._sender.folder}" + ("" if uri is None else f" --uri {uri}")
        if not is_installed("mlflow"):
            log.info("tracking: records are kept; for MLflow, %s, then `splatfix sync %s`", INSTALL, folder)
            return
        log.warning("tracking: %d records were not sent; `splatfix sync %s` sends them", self._num_unsent(), folder)

    def _num_unsent(self) -> int:
        return 0 if self._sender is None else self._sender.num_unsent() + self._journal.num_unwritten

    def is_idle(self, wait_seconds: float) -> bool:
        """Whether the sending thread has ended, after `finish` and at most so many seconds of waiting."""
        if self._sender is not None:
            self._thread.join(wait_seconds)
        return self._sender is None or not self._thread.is_alive()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(exit_status(kind))

    def _append(self, kind: str, time_ms: int | None = None, **record: Any) -> None:
        if self._sender is None:
            return
        if self._has_ended:
            log.warning("tracking: %s came after the end of the run and are left out", kind)
            return
        self._journal.append({"kind": kind, "time": time_ms or round(time.time() * 1000), **record})
        self._news.set()

    def _send_loop(self) -> None:
        """Send new records until the run has ended and all are sent, or `finish` waits no longer: the thread."""
        sender = self._sender
        assert sender is not None
        if not is_installed("mlflow"):  # the journal is kept, and `warn_unsent` says so
            self.is_down = True
            return
        pause = FIRST_PAUSE_SECONDS
        while not self._stopped.is_set():
            self._news.clear()
            finishing = self._finishing.is_set()
            try:
                sender.send(retry_left_out=finishing, stopped=self._stopped.is_set)
            except Exception as error:
                if not self.is_down:
                    message = (
                        "tracking: %s does not answer (%s); what is not sent is kept in %s and sent when it is back"
                    )
                    log.warning(message, without_secrets(sender.uri), reason(error), self._journal.path)
                self.is_down = True
            else:
                if self.is_down:
                    log.info("tracking: %s answers again; it has what was kept", without_secrets(sender.uri))
                    self.is_down, pause = False, FIRST_PAUSE_SECONDS
                if finishing and not sender.waits_for_parent:
                    return
            if finishing:
                self._stopped.wait(FIRST_PAUSE_SECONDS)
            elif self.is_down or sender.waits_for_parent:
                self._finishing.wait(pause)
                pause = min(2 * pause, MAX_PAUSE_SECONDS)
            else:
                pause = FIRST_PAUSE_SECONDS
                self._finishing.wait(GATHER_SECONDS)
                self._news.wait()


def exit_status(kind: type[BaseException] | None) -> Status:
    """The status of a run that ends with an exception of this type, or (None) without one."""
    if kind is None:
        return "FINISHED"
    is_stopped = issubclass(kind, KeyboardInterrupt | SystemExit) or stop_requested() is not None
    return "KILLED" if is_stopped else "FAILED"


def say_sending(deadline: float) -> None:
    """Log that the end of the work waits for MLflow, up to a time of the monotonic clock."""
    seconds = deadline - time.monotonic()
    if seconds > 0:
        log.info("tracking: sending the remaining records to MLflow, up to %.0f s", seconds)


def finish_all(trackers: Sequence[tuple[Tracker, Status]], deadline: float) -> list[Tracker]:
    """End runs and wait for all of them together, without warnings; returns those that were not sent completely.

    Args:
        trackers: with how each run ended.
        deadline: the end of the wait, as a time of the monotonic clock.
    """
    for tracker, status in trackers:
        tracker.end(status)
    quiet_end = min(deadline, time.monotonic() + QUIET_SECONDS)
    if not all(tracker.is_idle(max(0.0, quiet_end - time.monotonic())) for tracker, _ in trackers):
        say_sending(deadline)
    return [
        tracker
        for tracker, status in trackers
        if not tracker.finish(status, wait_seconds=max(0.0, deadline - time.monotonic()), warn=False)
    ]


def open_tracker(
    folder: Path, config: TrackingConfig, *, key: str | None = None, parent: Tracker | str | None = None
) -> Tracker:
    """Start tracking the run in ``folder``, or continue it.

    Args:
        folder: of the run; created if it is missing.
        key: tag by which MLflow finds the run; None takes a random one, which the folder keeps.
        parent: the run that this one is nested in, or its key. Both have the same server and experiment.

    Raises:
        ValueError: a URI that MLflow does not know, a key that is not the folder's or has quotes, or a broken
            ``tracking.json``, or a folder in the place of its files.
    """
    if not config.enabled:
        return Tracker(None)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (JOURNAL, STATE):
        if (folder / name).exists() and not (folder / name).is_file():
            raise ValueError(f"{folder / name}: is no file; wanted a file of the tracking, or nothing: move it away")
    above = parent._sender if isinstance(parent, Tracker) else None
    uri = config.uri or uri_of_environment() or (above.uri if above else None)
    kept = read_state(folder) if (folder / STATE).exists() else None
    if key is not None:
        require(bool(key) and not set(key) & set("'\"\\"), "key", key, "a name without quotes")
        if kept is not None and kept.key != key:
            raise ValueError(f"{folder / STATE}: is of the run {kept.key!r}, not {key!r}; take another folder")
    state = State(
        key=key or (kept.key if kept else uuid.uuid4().hex),
        experiment=above.state.experiment if above else config.experiment,
        name=config.name or folder.resolve().name,
        parent=parent.key if isinstance(parent, Tracker) else parent,
        uri=None if uri is None else without_secrets(uri),
        run=kept.run if kept else None,
        experiment_id=kept.experiment_id if kept else None,
        offset=kept.offset if kept else 0,
        left_out=kept.left_out if kept else [],
        linked=kept.linked if kept else False,
    )
    sender = Sender(folder, state, uri or uri_in(folder))
    sender.write_state()
    return Tracker(sender)


def send_unsent(
    folder: Path,
    uri: str | None = None,
    *,
    stopped: Callable[[], bool] = lambda: False,
    quiet: bool = True,
) -> int:
    """Send the records that earlier processes left unsent; returns their number.

    Args:
        folder: of the run.
        uri: of MLflow; None takes that of the run (without its password, which is not kept).
        stopped: whether to end early; asked between batches.
        quiet: without a progress bar.

    Raises:
        ValueError: nothing was tracked in this folder, MLflow is not installed, or a URI that it does not know.
        ConnectionError: MLflow does not answer; unsent records are kept.
    """
    folder = Path(folder)
    state = _read_tracked(folder)
    require_modules("mlflow", user="splatfix sync")
    if uri is not None:
        require(is_known(uri), "uri", uri, WANTED_URI)
    elif state.uri is not None:
        around = uri_of_environment()
        uri = around if around is not None and without_secrets(around) == state.uri else state.uri
    sender, has_moved = Sender(folder, state, uri or uri_in(folder)), threading.Event()
    try:
        with (
            progress(total=sender.num_unsent(), description=f"sending {folder.name}", quiet=quiet) as bar,
            acting_after(SLOW_SECONDS, partial(_say_slow, sender)),
        ):

            def note(num: int) -> None:
                has_moved.set()
                bar.update(num)

            send = partial(sender.send, retry_left_out=True, stopped=stopped, on_sent=note)
            num = call_within(SEND_SECONDS, send, has_moved=has_moved)
    except Exception as error:
        raise ConnectionError(f"{without_secrets(sender.uri)} does not answer: {reason(error)}") from error
    if sender.num_unsent() and not stopped():
        log.warning("tracking: %s: %d records could not be sent", folder, sender.num_unsent())
    return num


def _say_slow(sender: Sender) -> None:
    log.info(
        "tracking: %s has not taken all records after %g s; waiting as long as it takes some each %g s",
        *(without_secrets(sender.uri), SLOW_SECONDS, SEND_SECONDS),
    )


def refuse_foreign_address(folder: Path) -> None:
    """Refuse to send records where only the run's folder says: it may come from somebody else.

    Raises:
        ValueError: nothing was tracked in this folder, or its address is not that of MLFLOW_TRACKING_URI; the message
            has the line to run.
    """
    folder = Path(folder)
    state = _read_tracked(folder)
    around = uri_of_environment()
    if state.uri is not None and (around is None or without_secrets(around) != state.uri):
        raise ValueError(
            f"{folder}: its {STATE} names {state.uri}, which MLFLOW_TRACKING_URI does not; if records and files of "
            f"this run are to be sent there, confirm it: --uri {state.uri}"
        )


def _read_tracked(folder: Path) -> State:
    """Read ``tracking.json`` of a run that was tracked. ValueError if nothing was tracked in this folder."""
    if not (folder / JOURNAL).is_file():
        raise ValueError(f"{folder}: no {JOURNAL} in it; wanted the folder of a run that was tracked")
    return read_state(folder)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", without_secrets(str(value))


def _finite(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def page_of(folder: Path) -> str | None:
    """Where MLflow shows the run in a folder: a URL, for a file after the command that serves it; else None."""
    folder = Path(folder)
    state = read_state(folder) if (folder / STATE).is_file() else None
    if state is None or state.run is None or state.experiment_id is None:
        return None
    place = f"/#/experiments/{state.experiment_id}/runs/{state.run}"
    uri = state.uri or uri_in(folder)
    if uri.startswith("http"):
        return uri.rstrip("/") + place
    return f"mlflow ui --backend-store-uri {uri}, then http://127.0.0.1:5000{place}"
