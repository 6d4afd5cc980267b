"""The paths that a job names: all have to be where every node sees them."""

from __future__ import annotations

import logging
import re
import shlex
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splatfix import storage
from splatfix.captures import is_procedural
from splatfix.submission.cluster import Cluster

log = logging.getLogger(__name__)

PREFIX = "splatfix-paths-"  # of the jobs that look for paths
CHECK_SECONDS = 60.0  # for the check on the cluster
REMEDY = "use a folder that all nodes share, or a URL (s3://, gs://, az://)"


@dataclass(frozen=True)
class NamedPath:
    """A path or URL, and the flag or setting that names it. A job writes to outputs; they may not exist yet."""

    name: str
    value: str
    is_output: bool = False

    @property
    def is_local(self) -> bool:
        return storage.is_local(self.value)

    @property
    def path(self) -> str:
        """The path of a local one, without ``file://`` and without the part that has wildcards."""
        path = self.value.removeprefix("file://")
        return re.split(r"/[^/]*[*?\[]", path)[0] or "/"


def find_paths(arguments: Mapping[str, Any]) -> Iterator[NamedPath]:
    """Find the paths in the parsed arguments of a command, and in its settings. Procedural scenes have none."""
    settings = arguments["settings"]
    yield NamedPath("--out", str(arguments["out"]), is_output=True)
    if arguments.get("shards") is not None:
        yield NamedPath("--shards", str(arguments["shards"]))
    captures = tuple(arguments.get("captures") or ())
    replaces = captures and "out" in arguments and hasattr(settings, "restorers")  # compare: instead of the config's
    captures = (*captures, *(() if replaces else getattr(settings, "captures", ())))
    for name, places in (("captures", captures), ("held_out", getattr(settings, "held_out", ()))):
        yield from (NamedPath(name, str(place)) for place in places if not is_procedural(place))
    if (workers := getattr(settings, "workers", None)) is not None and getattr(workers, "storage", None) is not None:
        yield NamedPath("workers.storage", str(workers.storage), is_output=True)
    loop = getattr(settings, "loop", None)
    if loop is not None and loop.views.split is not None:
        yield NamedPath("loop.views.split", str(loop.views.split))
    for name, choice in _restorers(settings):
        if _is_path(choice):
            yield NamedPath(name, choice)


def refuse_relative(paths: Iterable[NamedPath]) -> None:
    """Refuse local paths that are relative: in a job they are inside its own folder. ValueError names the first."""
    for path in paths:
        if path.is_local and not Path(path.path).is_absolute():
            fate = "which is deleted with the job" if path.is_output else "which does not have it"
            raise ValueError(
                f"{path.name} {path.value}: in a job this is inside the job's own folder, {fate}; {REMEDY}"
            )


def check_paths(cluster: Cluster, paths: Iterable[NamedPath], **resources: Any) -> None:
    """Look for the local paths on the node that runs the job, by a job of a few seconds.

    Raises:
        ValueError: one is not there.
    """
    local = [path for path in paths if path.is_local]
    if not local:
        return
    found = _find_on_cluster(cluster, {candidate for path in local for candidate in _candidates(path)}, **resources)
    if found is None:
        listed = ", ".join(path.value for path in local)
        log.warning("could not check within %.0f s that the cluster has %s; its workers will", CHECK_SECONDS, listed)
        return
    for path in local:
        if not found.intersection(_candidates(path)):
            here = " (it exists on this machine)" if Path(path.path).exists() else ""
            raise ValueError(f"{path.name} {path.value}: the cluster does not have it{here}; {REMEDY}")


def _candidates(path: NamedPath) -> list[str]:
    """The paths of which one has to exist: the path, or for an output any of its parents but the root."""
    parents = [str(parent) for parent in Path(path.path).parents[:-1]] if path.is_output else []
    return [path.path, *parents]


def _find_on_cluster(cluster: Cluster, paths: Iterable[str], **resources: Any) -> set[str] | None:
    """Which of these paths exist there; None if the answer took too long."""
    listed = sorted(paths)
    tests = " ".join(f"test -e {shlex.quote(path)} && echo found {i};" for i, path in enumerate(listed))
    job_id = f"{PREFIX}{uuid.uuid4().hex[:8]}"
    cluster.submit(job_id, f"{tests} echo checked", **resources)
    end = time.monotonic() + CHECK_SECONDS
    while not (info := cluster.job(job_id)).has_ended and time.monotonic() < end:
        time.sleep(0.2)
    if not info.has_ended:
        cluster.stop(job_id)
        return None
    lines = cluster.log(job_id).splitlines()
    if "checked" not in lines:
        return None
    return {path for i, path in enumerate(listed) if f"found {i}" in lines}


def _restorers(settings: Any) -> Iterator[tuple[str, str]]:
    """The restorers that settings name, with the name of the setting."""
    loop = getattr(settings, "loop", None)
    choices = [("restorers", choice) for choice in getattr(settings, "restorers", ())]
    if loop is not None and not choices:
        choices.append(("loop.restorer", loop.restorer))
    if getattr(settings, "start_from", None) is not None:
        choices.append(("start_from", settings.start_from))
    searched = getattr(settings, "space", {}).get("restorer")
    choices += [("space.restorer", choice) for choice in (getattr(searched, "choice", None) or ())]
    for name, choice in choices:
        yield name, str(getattr(choice, "name", choice))


def needs_weights(settings: Any) -> bool:
    """Whether settings name the restorer nafnet, whose weights are large."""
    return any(choice == "nafnet" for _, choice in _restorers(settings))


def _is_path(choice: str) -> bool:
    """Whether a restorer is a folder, rather than a name or the id of a model on the Hub (``owner/name``)."""
    return choice.startswith(("/", "./", "../", "~")) or Path(choice).is_dir()
