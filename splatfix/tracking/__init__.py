"""Tracking: the params, metrics, tags and files of a run, and how it ended, in MLflow. The only home of mlflow.

Nothing that is tracked is lost, and tracking neither stops nor delays the work. Every record is first appended to a
journal in the run's folder (``tracking.jsonl``); a thread sends the journal to MLflow, in order and in batches, and
keeps in ``tracking.json`` how far it got. A server that does not answer costs a warning: unsent records are sent when
it is back, when the run is resumed, or by `send_unsent`. Sending a record twice has no effect. A run is found in MLflow
by a tag, so that a resumed process continues its run.
"""

from splatfix.tracking.config import TrackingConfig
from splatfix.tracking.journal import JOURNAL, end_status, tracked_values
from splatfix.tracking.sender import ENVIRONMENT
from splatfix.tracking.state import STATE, is_sent
from splatfix.tracking.tracker import (
    Status,
    Tracker,
    exit_status,
    finish_all,
    open_tracker,
    page_of,
    refuse_foreign_address,
    send_unsent,
)

TRACKING_FILES = (JOURNAL, STATE)  # in the folder of a run, besides MLflow's database

__all__ = [
    "ENVIRONMENT",
    "JOURNAL",
    "STATE",
    "TRACKING_FILES",
    "Status",
    "Tracker",
    "TrackingConfig",
    "end_status",
    "exit_status",
    "finish_all",
    "is_sent",
    "open_tracker",
    "page_of",
    "refuse_foreign_address",
    "send_unsent",
    "tracked_values",
]
