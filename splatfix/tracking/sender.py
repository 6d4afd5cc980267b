"""Sending a journal to MLflow. The only home of mlflow, which is imported when there is something to send."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from splatfix.files import write_json
from splatfix.messages import without_secrets
from splatfix.tracking.config import artifacts_beside
from splatfix.tracking.journal import JOURNAL, batches
from splatfix.tracking.limits import MAX_KEY, MAX_PER_CALL
from splatfix.tracking.state import STATE, State

log = logging.getLogger(__name__)

KEY_TAG, PARENT_TAG = "splatfix.key", "mlflow.parentRunId"
ENVIRONMENT = {  # of mlflow, where the user has not set them
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the sender retries, and urllib3 would log each retry
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "GIT_PYTHON_REFRESH": "quiet",
}


class Sender:
    """Sends a journal to MLflow; used by one thread. Any exception means that MLflow is unreachable: retry later."""

    def __init__(self, folder: Path, state: State, uri: str) -> None:
        self.folder, self.state, self.uri = folder, state, uri
        self.waits_for_parent = state.parent is not None
        self._client: Any = None
        self._experiment_id = ""
        self._warned: set[str] = set()

    def send(
        self,
        *,
        retry_left_out: bool,
        stopped: Callable[[], bool] = lambda: False,
        on_sent: Callable[[int], object] = lambda _: None,
    ) -> int:
        """Send the new records of the journal; returns their number.

        With ``retry_left_out``, files that could not be stored are tried again. ``stopped`` is asked between batches,
        and ``on_sent`` called with the number of records of each.
        """
        if self._client is None:
            self._connect()
        num = 0
        try:
            for kind, records, end in batches(self.folder / JOURNAL, self.state.offset):
                self._send(kind, records)
                num += len(records)
                self.state.offset = end
                self.write_state()
                on_sent(len(records))
                if stopped():
                    return num
            for record in list(self.state.left_out) if retry_left_out else []:
                if self._send_artifact(record):
                    num += 1
                    self.state.left_out.remove(record)
                    self.write_state()
                    on_sent(1)
            if self.waits_for_parent:
                self._link_parent()
        except Exception as error:
            if _code(error) == "RESOURCE_DOES_NOT_EXIST":
                self._client = None  # MLflow has lost the run: the next call creates it again, from the journal
            raise
        return num

    def num_unsent(self) -> int:
        """Number of records that MLflow does not have, and one more while it does not have the parent run."""
        unsent = sum(len(records) for _, records, _ in batches(self.folder / JOURNAL, self.state.offset))
        return unsent + len(self.state.left_out) + self.waits_for_parent

    def write_state(self) -> None:
        """Write ``tracking.json``."""
        try:
            write_json(self.folder / STATE, asdict(self.state))
        except OSError as error:
            self._warn_once("state", f"{self.folder / STATE}: {error.strerror}")

    def _connect(self) -> None:
        """Find the run, or create it."""
        client = _import_mlflow().MlflowClient(tracking_uri=self.uri)
        name = self.state.experiment
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            try:
                client.create_experiment(name, artifact_location=artifacts_beside(self.uri))
            except Exception as error:
                if _code(error) != "RESOURCE_ALREADY_EXISTS":  # another process was first
                    raise
            experiment = client.get_experiment_by_name(name)
        self._experiment_id = experiment.experiment_id
        run = self._find(client, self.state.key)
        if run is None:
            first = next((records[0] for _, records, _ in batches(self.folder / JOURNAL, 0)), {"time": None})
            run = client.create_run(
                self._experiment_id,
                start_time=first["time"],
                run_name=self.state.name,
                tags={KEY_TAG: self.state.key},
            )
        self.state.experiment_id = self._experiment_id
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
            self.write_state()

    def _send(self, kind: str, records: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        if kind == "metrics":
            rows = [(key, value, of["time"], of["step"]) for of in records for key, value in of["values"].items()]
            self._log("metrics", [Metric(*row) for row in rows])
        elif kind == "params":
            values = [item for record in records for item in record["values"].items()]
            self._log("params", [Param(key, value) for key, value in self._new_params(values)])
        elif kind == "tags":
            self._log("tags", [RunTag(*item) for record in records for item in record["values"].items()])
        elif kind == "start":
            self._client.update_run(self.state.run, status="RUNNING")
        elif kind == "end":
            self._client.set_terminated(self.state.run, records[0]["status"], records[0]["time"])
        elif kind == "artifact" and not self._send_artifact(records[0]):
            self.state.left_out.append(records[0])

    def _log(self, kind: str, entities: list[Any]) -> None:
        """Send entities of a kind in as few calls as possible. Those that MLflow refuses for good are left out."""
        size = MAX_PER_CALL[kind]
        for start in range(0, len(entities), size):
            chunk = entities[start : start + size]
            try:
                self._client.log_batch(self.state.run, **{kind: chunk})
            except Exception as error:
                if _code(error) != "INVALID_PARAMETER_VALUE":
                    raise
                if len(chunk) == 1:
                    self._warn_once("refused", f"{chunk[0].key!r} of the {kind} was refused ({reason(error)})")
                else:
                    for entity in chunk:
                        self._log(kind, [entity])

    def _new_params(self, values: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """Yield the params that MLflow does not have yet; a changed value gets a separate name."""
        held = dict(self._client.get_run(self.state.run).data.params)
        for key, value in values:
            name, num = key, 0
            while held.get(name, value) != value:
                num += 1
                name = f"{key[: MAX_KEY - 20]} changed {num}"
            if num and name not in held:
                self._warn_once("changed", f"{key} was {held[key]!r} and is {value!r}: kept as {name!r}")
            if name not in held:
                held[name] = value
                yield name, value

    def _send_artifact(self, record: dict[str, Any]) -> bool:
        """Whether the file or folder was stored.

        One that no longer exists, or that is not a plain file or folder inside the run, costs a warning, and counts as
        stored: the journal may be somebody else's, and name any file of this machine.
        """
        path = self.folder / str(record["path"])
        if not _is_inside(path, self.folder):
            self._warn_once(f"outside {path}", f"{path} is not a plain file or folder inside the run: not sent")
            return True
        try:
            if path.is_dir():
                self._client.log_artifacts(
                    self.state.run, str(path), "/".join(filter(None, (record["folder"], path.name)))
                )
            else:
                self._client.log_artifact(self.state.run, str(path), record["folder"] or None)
        except Exception as error:
            if not path.exists():
                self._warn_once(f"gone {path}", f"{path} was gone before it was sent")
                return True
            self._client.get_run(self.state.run)  # raises where MLflow does not answer at all: retried later
            self._warn_once("stored", f"{path} could not be stored ({reason(error)}); it is tried again at the end")
            return False
        return True

    def _warn_once(self, what: str, message: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            log.warning("tracking: %s", message)


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether a path is in a folder, and neither it nor anything below it is a link or a special file."""
    root = folder.resolve()
    inner = path.relative_to(folder) if path.is_relative_to(folder) else None
    if inner is None or ".." in inner.parts or path.resolve() != root / inner or path.resolve() == root:
        return False
    below = path.rglob("*") if path.is_dir() else [path]
    return all(not each.is_symlink() and (each.is_file() or each.is_dir() or not each.exists()) for each in below)


def _import_mlflow() -> Any:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow


def reason(error: Exception) -> str:
    """Why MLflow could not be reached, in one short line without a password."""
    text = " ".join(str(error).split())
    system = re.search(r"\[Errno -?\d+\] [^\"')]*", text)
    return without_secrets(system[0] if system else text)[:200] or type(error).__name__


def _code(error: Exception) -> str | None:
    return getattr(error, "error_code", None)  # of MlflowException
