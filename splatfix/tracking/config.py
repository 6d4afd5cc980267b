"""Where a run is tracked: the config, and the URIs that MLflow knows."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from splatfix.config import require

SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")
T = TypeVar("T")
WANTED_URI = "sqlite:///FILE or http://HOST:PORT (MLflow keeps no runs in plain folders any more)"


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
        require(self.uri is None or is_known(self.uri), "tracking.uri", self.uri, f"{WANTED_URI}, or null")
        require(bool(self.experiment.strip()), "tracking.experiment", self.experiment, "a name")


def is_known(uri: str) -> bool:
    """Whether MLflow can track at this URI."""
    return uri == "databricks" or ("://" in uri and urlsplit(uri).scheme.split("+")[0] in SCHEMES)


def uri_of_environment() -> str | None:
    """The URI in MLFLOW_TRACKING_URI, or None. ValueError where MLflow does not know it."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or None
    require(uri is None or is_known(uri), "MLFLOW_TRACKING_URI", uri, WANTED_URI)
    return uri


def uri_in(folder: Path) -> str:
    """The URI of a database in the folder of a run."""
    file = str(folder.resolve() / "mlflow.db")
    return "sqlite:///" + file.replace("%", "%25").replace("?", "%3F")


def artifacts_beside(uri: str) -> str | None:
    """Where the files of an SQLite file's runs go; None leaves it to the server."""
    if not uri.startswith("sqlite"):
        return None
    file = uri.partition("://")[2].partition("?")[0].removeprefix("/")
    return (Path(unquote(file)).absolute().parent / "mlartifacts").as_uri()
