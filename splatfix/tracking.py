"""Tracking: the params, metrics, tags and files of a run, and how it ended, in MLflow. The only home of mlflow.

Nothing that is tracked is lost, and none of it stops or delays the work. Every record is first appended to a journal
in the run's folder (``tracking.jsonl``); a thread sends the journal to MLflow, in order and in batches, and keeps in
``tracking.json`` how far it got. A server that does not answer costs a warning: what it missed is sent when it is back,
when the run is resumed, or by `send_rest`. Sending a record twice changes nothing. A run is found in MLflow by a tag,
so that a resumed process goes on with the run that it began.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from splatfix.config import build_config, require
from splatfix.runs import read_json, stop_requested, write_json

log = logging.getLogger(__name__)

JOURNAL, STATE = "tracking.jsonl", "tracking.json"
KEY_TAG, PARENT_TAG = "splatfix.key", "mlflow.parentRunId"
GATHER_SECONDS = 1.0  # between two batches
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 60.0  # between tries where there is no answer
MAX_PER_CALL = {"metrics": 1000, "params": 100, "tags": 100}  # of MLflow, as are the lengths
MAX_KEY, MAX_PARAM, MAX_TAG = 250, 6000, 5000  # characters
MAX_UNWRITTEN = 100_000  # records that wait in memory for room on the disk
SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")
WANTED_URI = "sqlite:///FILE or http://HOST:PORT (MLflow keeps no runs in plain folders any more)"
ENVIRONMENT = {  # what we want of mlflow where the user has not said otherwise
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # we try again ourselves, and urllib3 would tell of each try
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "GIT_PYTHON_REFRESH": "quiet",
}

Status = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where a run is tracked.

    Attributes:
        enabled: False tracks nothing and writes nothing.
        uri: of MLflow: ``http://HOST:PORT`` or ``sqlite:///FILE``; null takes MLFLOW_TRACKING_URI, else that of the
            parent run, else ``mlflow.db`` in the run's folder. Files of a run go beside an SQLite file.
        experiment: of MLflow that holds the run (a nested run is in its parent's).
        name: of the run in MLflow; null takes the folder's name.
    """

    enabled: bool = True
    uri: str | None = None
    experiment: str = "splatfix"
    name: str | None = None

    def __post_init__(self) -> None:
        require(self.uri is None or _is_known(self.uri), "tracking.uri", self.uri, f"{WANTED_URI}, or null")
        require(bool(self.experiment.strip()), "tracking.experiment", self.experiment, "a name")


class Tracker:
    """Tracks one run. Leaving it as a context ends the run: FINISHED, FAILED (an exception) or KILLED (stopped).

    Made by `open_tracker`. Its methods only append to the journal, and may be called from any thread.
    """

    def __init__(self, sender: _Sender | None) -> None:
        self._sender = sender
        self._has_ended = False
        self._all_sent: bool | None = None  # None until that was waited for
        if sender is None:
            return
        self._journal = _Journal(sender.folder / JOURNAL)
        self._news, self._finishing, self._stopped = threading.Event(), threading.Event(), threading.Event()
        self._note("start")
        self._thread = threading.Thread(target=self._send_on, name="tracking", daemon=True)
        self._thread.start()

    @property
    def key(self) -> str | None:
        """What the run is found by in MLflow; None where nothing is tracked."""
        return None if self._sender is None else self._sender.state.key

    def params(self, tree: Mapping[str, Any]) -> None:
        """Settings, nested as they come: ``{"a": {"b": 1}}`` is the param ``a.b``. Long values are cut.

        A param never changes in MLflow: a value that differs on resuming is kept as ``a.b changed 1``.
        """
        self._note("params", values={_name(key): value[:MAX_PARAM] for key, value in _flat(tree)})

    def metrics(self, values: Mapping[str, float], step: int, time_ms: int | None = None) -> None:
        """Values at a step; those that are not finite numbers are left out.

        ``time_ms`` is when that was, by default now: the same values noted twice for the same time stand there once.
        """
        finite = {_name(key): number for key, value in values.items() if (number := _finite(value)) is not None}
        if finite:
            self._note("metrics", time_ms, values=finite, step=int(step))

    def tags(self, values: Mapping[str, str]) -> None:
        """Words about the run; a later value takes the place of an earlier one."""
        self._note("tags", values={_name(key): str(value)[:MAX_TAG] for key, value in values.items()})

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file or folder inside the run's folder, kept in MLflow under ``folder``, as it is when it is sent.

        Raises:
            ValueError: it is not inside the run's folder.
        """
        if self._sender is None:
            return
        root = self._sender.folder.resolve()
        resolved = Path(path).resolve()
        if root not in resolved.parents:
            raise ValueError(f"{path}: wanted a file or folder inside {self._sender.folder}, where the run is")
        self._note("artifact", path=resolved.relative_to(root).as_posix(), folder=folder.strip("/"))

    def end(self, status: Status) -> None:
        """End the run without waiting: what is left is sent meanwhile, until `finish`."""
        if self._sender is None or self._has_ended:
            return
        self._note("end", status=status)
        self._has_ended = True
        self._journal.close()
        self._finishing.set()
        self._news.set()

    def finish(self, status: Status, wait_seconds: float = 20, *, told: bool = True) -> bool:
        """End the run: whether all of it was sent within so many seconds.

        Where not, a warning says what to do, unless it is not to be ``told``.
        """
        if self._sender is None:
            return True
        self.end(status)
        if self._all_sent is None:
            self._thread.join(wait_seconds)
            self._stopped.set()
            num = self._sender.num_unsent() + self._journal.num_unwritten
            self._all_sent = num == 0 and not self._thread.is_alive()
            if told and not self._all_sent:
                folder = self._sender.folder
                log.warning("tracking: %d records were not sent; `splatfix track %s` sends them", num, folder)
        return self._all_sent

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish("FINISHED")
        elif issubclass(kind, KeyboardInterrupt | SystemExit) or stop_requested() is not None:
            self.finish("KILLED")
        else:
            self.finish("FAILED")

    def _note(self, kind: str, time_ms: int | None = None, **record: Any) -> None:
        if self._sender is None:
            return
        if self._has_ended:
            log.warning("tracking: %s came after the end of the run and are left out", kind)
            return
        self._journal.append({"kind": kind, "time": time_ms or round(time.time() * 1000), **record})
        self._news.set()

    def _send_on(self) -> None:
        """The thread: sends what is new until the run has ended and all is sent, or `finish` waits no longer."""
        sender = self._sender
        assert sender is not None
        pause, is_down = FIRST_PAUSE_SECONDS, False
        while not self._stopped.is_set():
            self._news.clear()
            finishing = self._finishing.is_set()
            try:
                sender.send(left_out_too=finishing, stopped=self._stopped.is_set)
            except Exception as error:
                if not is_down:
                    message = (
                        "tracking: %s does not answer (%s); what is not sent is kept in %s and sent when it is back"
                    )
                    log.warning(message, _without_password(sender.uri), _reason(error), self._journal.path)
                is_down = True
            else:
                if is_down:
                    log.info("tracking: %s answers again; it has what was kept", _without_password(sender.uri))
                    is_down, pause = False, FIRST_PAUSE_SECONDS
                if finishing and not sender.waits_for_parent:
                    return
            if finishing:
                self._stopped.wait(FIRST_PAUSE_SECONDS)
            elif is_down or sender.waits_for_parent:
                self._finishing.wait(pause)
                pause = min(2 * pause, MAX_PAUSE_SECONDS)
            else:
                pause = FIRST_PAUSE_SECONDS
                self._finishing.wait(GATHER_SECONDS)
                self._news.wait()


def open_tracker(
    folder: Path, config: TrackingConfig, *, key: str | None = None, parent: Tracker | str | None = None
) -> Tracker:
    """Start tracking the run in ``folder``, or go on with it.

    Args:
        folder: of the run; made where it is missing.
        key: what the run is found by in MLflow; None takes one that is made once for the folder.
        parent: the run that this one is nested in, or its key. It goes where that one goes.

    Raises:
        ValueError: a URI that MLflow does not know, a key that is not the folder's or has quotes, or a broken
            ``tracking.json``.
    """
    if not config.enabled:
        return Tracker(None)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    above = parent._sender if isinstance(parent, Tracker) else None
    uri = config.uri or _uri_of_environment() or (above.uri if above else None)
    kept = _read_state(folder) if (folder / STATE).exists() else None
    if key is not None:
        require(bool(key) and not set(key) & set("'\"\\"), "key", key, "a name without quotes")
        if kept is not None and kept.key != key:
            raise ValueError(f"{folder / STATE}: is of the run {kept.key!r}, not {key!r}; take another folder")
    state = _State(
        key=key or (kept.key if kept else uuid.uuid4().hex),
        experiment=above.state.experiment if above else config.experiment,
        name=config.name or folder.resolve().name,
        parent=parent.key if isinstance(parent, Tracker) else parent,
        uri=None if uri is None else _without_password(uri),
        run=kept.run if kept else None,
        offset=kept.offset if kept else 0,
        left_out=kept.left_out if kept else [],
        linked=kept.linked if kept else False,
    )
    sender = _Sender(folder, state, uri or _uri_in(folder))
    sender.keep()
    return Tracker(sender)


def send_rest(folder: Path, uri: str | None = None) -> int:
    """Send what earlier processes left unsent; the number of records that were sent.

    Args:
        folder: of the run.
        uri: where to; None takes where the run was tracked (a password must be given, it is not kept).

    Raises:
        ValueError: nothing was tracked in this folder, or a URI that MLflow does not know.
        ConnectionError: there is no answer; what was not sent is still kept.
    """
    folder = Path(folder)
    if not (folder / JOURNAL).is_file():
        raise ValueError(f"{folder}: no {JOURNAL} in it; wanted the folder of a run that was tracked")
    state = _read_state(folder)
    if uri is not None:
        require(_is_known(uri), "uri", uri, WANTED_URI)
    elif state.uri is not None:
        around = _uri_of_environment()
        uri = around if around is not None and _without_password(around) == state.uri else state.uri
    sender = _Sender(folder, state, uri or _uri_in(folder))
    try:
        num = sender.send(left_out_too=True)
    except Exception as error:
        raise ConnectionError(f"{_without_password(sender.uri)} does not answer: {_reason(error)}") from error
    if sender.num_unsent():
        log.warning("tracking: %s: %d records could not be sent", folder, sender.num_unsent())
    return num


def has_ended(folder: Path) -> bool:
    """Whether all that there is to say of the run in a folder was noted, its end last."""
    last = None
    for _, records, _ in _batches(Path(folder) / JOURNAL, 0):
        last = records[-1]
    return last is not None and last["kind"] == "end"


def is_sent(folder: Path) -> bool:
    """Whether MLflow has all that was noted of the run in a folder; True where nothing was."""
    folder = Path(folder)
    if not (folder / JOURNAL).is_file():
        return True
    if not (folder / STATE).is_file():
        return False
    state = _read_state(folder)
    linked = state.linked or state.parent is None
    return state.offset == _size(folder / JOURNAL) and not state.left_out and linked


class _Journal:
    """Records, one JSON line each, appended whole. What finds no room on the disk waits in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: FileIO | None = None
        self._end = 0
        self._unwritten: deque[bytes] = deque(maxlen=MAX_UNWRITTEN)
        self._has_failed, self._tried = False, 0.0
        self._lock = threading.Lock()

    @property
    def num_unwritten(self) -> int:
        return len(self._unwritten)

    def append(self, record: dict[str, Any]) -> None:
        with self._lock:
            self._unwritten.append(json.dumps(record).encode() + b"\n")
            if not self._has_failed or time.monotonic() - self._tried > GATHER_SECONDS:
                self._write()

    def close(self) -> None:
        """Write what waits, if it can be; the file is opened again for what comes after."""
        with self._lock:
            if self._unwritten:
                self._write()
            if self._file is not None:
                self._file.close()
                self._file = None

    def _write(self) -> None:
        self._tried = time.monotonic()
        try:
            if self._file is None:
                file = self.path.open("ab", buffering=0)
                self._end = _cut_torn_line(self.path)
                self._file = file
            elif self._has_failed:
                self._file.truncate(self._end)
            data = b"".join(self._unwritten)
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if not self._has_failed:
                log.warning("tracking: %s: %s; what is noted waits in memory", self.path, error.strerror)
            self._has_failed = True
        else:
            self._end += len(data)
            self._unwritten.clear()
            self._has_failed = False


@dataclass(kw_only=True)
class _State:
    """What ``tracking.json`` holds: how a run is found, and how much of the journal MLflow has.

    Attributes:
        uri: without a password; None for the file in the run's own folder, which may be moved with it.
        run: its id in MLflow, once it has one.
        offset: bytes of the journal that MLflow has.
        left_out: records of files before ``offset`` that could not be stored.
        linked: whether MLflow knows the parent.
    """

    key: str
    experiment: str
    name: str
    parent: str | None
    uri: str | None
    run: str | None = None
    offset: int = 0
    left_out: list[dict[str, Any]] = field(default_factory=list)
    linked: bool = False


class _Sender:
    """Sends a journal to MLflow; used by one thread. Whatever it raises means: not now."""

    def __init__(self, folder: Path, state: _State, uri: str) -> None:
        self.folder, self.state, self.uri = folder, state, uri
        self.waits_for_parent = state.parent is not None
        self._client: Any = None
        self._experiment_id = ""
        self._told: set[str] = set()

    def send(self, *, left_out_too: bool, stopped: Callable[[], bool] = lambda: False) -> int:
        """Send what is new in the journal: the number of records. With ``left_out_too``, try those files again."""
        if self._client is None:
            self._connect()
        num = 0
        try:
            for kind, records, end in _batches(self.folder / JOURNAL, self.state.offset):
                self._send(kind, records)
                num += len(records)
                self.state.offset = end
                self.keep()
                if stopped():
                    return num
            for record in list(self.state.left_out) if left_out_too else []:
                if self._send_artifact(record):
                    num += 1
                    self.state.left_out.remove(record)
                    self.keep()
            if self.waits_for_parent:
                self._link_parent()
        except Exception as error:
            if _code(error) == "RESOURCE_DOES_NOT_EXIST":
                self._client = None  # MLflow has lost the run: it is made again, from the journal
            raise
        return num

    def num_unsent(self) -> int:
        """Records that MLflow does not have; one more where the parent run is not there."""
        unsent = sum(len(records) for _, records, _ in _batches(self.folder / JOURNAL, self.state.offset))
        return unsent + len(self.state.left_out) + self.waits_for_parent

    def keep(self) -> None:
        """Write ``tracking.json``."""
        try:
            write_json(self.folder / STATE, asdict(self.state))
        except OSError as error:
            self._tell_once("state", f"{self.folder / STATE}: {error.strerror}")

    def _connect(self) -> None:
        """Find the run, or make it."""
        client = _import_mlflow().MlflowClient(tracking_uri=self.uri)
        name = self.state.experiment
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            try:
                client.create_experiment(name, artifact_location=_artifacts_beside(self.uri))
            except Exception as error:
                if _code(error) != "RESOURCE_ALREADY_EXISTS":  # another process was first
                    raise
            experiment = client.get_experiment_by_name(name)
        self._experiment_id = experiment.experiment_id
        run = self._find(client, self.state.key)
        if run is None:
            first = next((records[0] for _, records, _ in _batches(self.folder / JOURNAL, 0)), {"time": None})
            run = client.create_run(
                self._experiment_id,
                start_time=first["time"],
                run_name=self.state.name,
                tags={KEY_TAG: self.state.key},
            )
        if run.info.run_id != self.state.run:
            self.state.run, self.state.offset, self.state.left_out = run.info.run_id, 0, []
            self.state.linked = False
        self._client = client

    def _find(self, client: Any, key: str) -> Any | None:
        query, order = f"tags.\"{KEY_TAG}\" = '{key}'", ["attributes.start_time ASC"]
        runs = client.search_runs([self._experiment_id], filter_string=query, order_by=order, max_results=1)
        return runs[0] if runs else None

    def _link_parent(self) -> None:
        assert self.state.parent is not None
        parent = self._find(self._client, self.state.parent)
        if parent is not None:
            self._client.set_tag(self.state.run, PARENT_TAG, parent.info.run_id)
            self.waits_for_parent, self.state.linked = False, True
            self.keep()

    def _send(self, kind: str, records: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        if kind == "metrics":
            rows = [(key, value, of["time"], of["step"]) for of in records for key, value in of["values"].items()]
            self._log("metrics", [Metric(*row) for row in rows])
        elif kind == "params":
            values = [item for record in records for item in record["values"].items()]
            self._log("params", [Param(key, value) for key, value in self._unchanging(values)])
        elif kind == "tags":
            self._log("tags", [RunTag(*item) for record in records for item in record["values"].items()])
        elif kind == "start":
            self._client.update_run(self.state.run, status="RUNNING")
        elif kind == "end":
            self._client.set_terminated(self.state.run, records[0]["status"], records[0]["time"])
        elif kind == "artifact" and not self._send_artifact(records[0]):
            self.state.left_out.append(records[0])

    def _log(self, kind: str, entities: list[Any]) -> None:
        """Send entities of a kind in as few calls as may be. Those that MLflow refuses for good are left out."""
        size = MAX_PER_CALL[kind]
        for start in range(0, len(entities), size):
            chunk = entities[start : start + size]
            try:
                self._client.log_batch(self.state.run, **{kind: chunk})
            except Exception as error:
                if _code(error) != "INVALID_PARAMETER_VALUE":
                    raise
                if len(chunk) == 1:
                    self._tell_once("refused", f"{chunk[0].key!r} of the {kind} was refused ({_reason(error)})")
                else:
                    for entity in chunk:
                        self._log(kind, [entity])

    def _unchanging(self, values: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """The params that MLflow does not have yet; a value that has changed gets a name of its own."""
        held = dict(self._client.get_run(self.state.run).data.params)
        for key, value in values:
            name, num = key, 0
            while held.get(name, value) != value:
                num += 1
                name = f"{key[: MAX_KEY - 20]} changed {num}"
            if num:
                self._tell_once("changed", f"{key} was {held[key]!r} and is {value!r}: kept as {name!r}")
            if name not in held:
                held[name] = value
                yield name, value

    def _send_artifact(self, record: dict[str, Any]) -> bool:
        """Whether the file or folder was stored. One that is gone is told, and counts as stored."""
        path = self.folder / record["path"]
        try:
            if path.is_dir():
                self._client.log_artifacts(
                    self.state.run, str(path), "/".join(filter(None, (record["folder"], path.name)))
                )
            else:
                self._client.log_artifact(self.state.run, str(path), record["folder"] or None)
        except Exception as error:
            if not path.exists():
                self._tell_once(f"gone {path}", f"{path} was gone before it was sent")
                return True
            self._client.get_run(self.state.run)  # no answer here either: then all of it is for later
            self._tell_once("stored", f"{path} could not be stored ({_reason(error)}); it is tried again at the end")
            return False
        return True

    def _tell_once(self, what: str, message: str) -> None:
        if what not in self._told:
            self._told.add(what)
            log.warning("tracking: %s", message)


def _import_mlflow() -> Any:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow


def _batches(path: Path, offset: int) -> Iterator[tuple[str, list[dict[str, Any]], int]]:
    """Records of a journal in order: their kind, some that go together, and where they end. Torn lines are left out."""
    kind, num, end = "", 0, offset
    records: list[dict[str, Any]] = []
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if isinstance(record, dict) and "kind" in record:
                size = len(record.get("values", ()))
                if records and (record["kind"] != kind or num + size > MAX_PER_CALL.get(kind, -1)):
                    yield kind, records, end
                    records, num = [], 0
                kind = record["kind"]
                records.append(record)
                num += size
            end += len(line)
    if records:
        yield kind, records, end


def _cut_torn_line(path: Path) -> int:
    """Cut what a crash left of a line at the end of a journal; the size that remains."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            end = start + newline + 1
            if newline >= 0:
                break
        file.truncate(end)
    return end


def _read_state(folder: Path) -> _State:
    state = build_config(_State, read_json(folder / STATE), source=str(folder / STATE))
    if state.offset > _size(folder / JOURNAL):
        state.offset = 0  # the journal was lost or cut
    return state


def _is_known(uri: str) -> bool:
    return uri == "databricks" or ("://" in uri and urlsplit(uri).scheme.split("+")[0] in SCHEMES)


def _uri_of_environment() -> str | None:
    uri = os.environ.get("MLFLOW_TRACKING_URI") or None
    require(uri is None or _is_known(uri), "MLFLOW_TRACKING_URI", uri, WANTED_URI)
    return uri


def _uri_in(folder: Path) -> str:
    file = str(folder.resolve() / "mlflow.db")
    return "sqlite:///" + file.replace("%", "%25").replace("?", "%3F")


def _artifacts_beside(uri: str) -> str | None:
    """Where the files of an SQLite file's runs go; None leaves it to the server."""
    if not uri.startswith("sqlite"):
        return None
    file = uri.partition("://")[2].partition("?")[0].removeprefix("/")
    return (Path(unquote(file)).absolute().parent / "mlartifacts").as_uri()


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)


def _code(error: Exception) -> str | None:
    return getattr(error, "error_code", None)  # of MlflowException


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    system = re.search(r"\[Errno -?\d+\] [^\"')]*", text)
    return _without_password(system[0] if system else text)[:200] or type(error).__name__


def _name(key: object) -> str:
    """A name that MLflow takes for a param, metric or tag."""
    parts = re.sub(r"[^\w\-. :/]", "_", str(key)).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))[:MAX_KEY].rstrip("/") or "_"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _finite(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
