"""Plan a job and submit it: its id, its command line, and what it takes along."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shlex
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import splatfix
from splatfix import storage
from splatfix.command_line import find_command, parse_arguments
from splatfix.files import scratch_folder
from splatfix.runs import COMMIT, source_commit
from splatfix.submission.cluster import Cluster, JobInfo
from splatfix.submission.package import CONFIG_NAME, size_mb, source_files, stage_package
from splatfix.submission.paths import NamedPath, check_paths, find_paths, needs_weights, refuse_relative

log = logging.getLogger(__name__)

JOBS = ("generate", "train", "sweep", "compare")
STOP_SECONDS = 60  # Ray's default of 3 s is too short to write the manifest of a large set


@dataclass(frozen=True, kw_only=True)
class SubmitOptions:
    """How a job is submitted.

    Attributes:
        env: environment variables of the job on all nodes; their values are not printed.
        installed: the nodes have splatfix installed; nothing but the config file is uploaded.
        python: the interpreter of the job.
        cpus: CPU cores that Ray reserves for the driver of the job; with 0 it runs on the head.
        memory_gb: memory that Ray reserves for it, in GB.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    installed: bool = False
    python: str = "python"
    cpus: float = 0.0
    memory_gb: float = 0.0

    @property
    def resources(self) -> dict[str, float]:
        """The resources of the driver, as Ray's client takes them."""
        found = {"entrypoint_num_cpus": self.cpus, "entrypoint_memory": int(self.memory_gb * 2**30)}
        return {name: value for name, value in found.items() if value}

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables of the job; uploaded sources have no ``.git`` that names their commit."""
        commit = None if self.installed else source_commit()
        known = {} if commit is None else {COMMIT: commit}
        return {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **known, **self.env}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job that can be submitted.

    Attributes:
        command: generate, train, sweep or compare.
        words: its arguments on the cluster.
        out: its output; the id is made from it, so that the same job has the same id.
        config: its config file on this machine, if it has one.
        paths: the paths that it names.
        with_weights: whether it needs the weights of the restorer nafnet.
    """

    command: str
    words: tuple[str, ...]
    out: str
    config: Path | None
    paths: tuple[NamedPath, ...]
    with_weights: bool

    @property
    def id(self) -> str:
        """The id of its first submission; later ones are numbered."""
        digest = hashlib.sha256(f"{self.command}\n{storage.absolute(self.out)}".encode()).hexdigest()
        return f"splatfix-{self.command}-{digest[:8]}"

    def entrypoint(self, python: str) -> str:
        """Its command line on the cluster."""
        return shlex.join([python, "-m", "splatfix", self.command, *self.words])


def plan_job(command: str, words: Sequence[str]) -> Job:
    """Parse the arguments of a command as on the cluster.

    Raises:
        ValueError: a setting cannot be used, or a path is relative.
        SystemExit: an argument is refused; the reason has been printed.
    """
    if command not in JOBS:
        raise ValueError(f"no job {command!r}; wanted {', '.join(JOBS)} (or status, logs, stop, list)")
    arguments = parse_arguments(find_command(command), words, resumes=False)
    paths = tuple(find_paths(arguments))
    refuse_relative(paths)
    sent, config = replace_config(words)
    return Job(
        command=command,
        words=sent,
        out=str(arguments["out"]),
        config=config,
        paths=paths,
        with_weights=needs_weights(arguments["settings"]),
    )


def replace_config(words: Sequence[str]) -> tuple[tuple[str, ...], Path | None]:
    """Put the name that the config file has in the job in place of its path; returns that path, too."""
    sent, path = list(words), None
    for i, word in enumerate(words):
        if word == "--config" and i + 1 < len(words):
            path, sent[i + 1] = Path(words[i + 1]), CONFIG_NAME
        elif word.startswith("--config="):
            path, sent[i] = Path(word.removeprefix("--config=")), f"--config={CONFIG_NAME}"
    return tuple(sent), path


def parse_env(assignments: Sequence[str]) -> dict[str, str]:
    """Environment variables from ``NAME=VALUE``, or ``NAME`` for the value that it has here.

    Raises:
        ValueError: no such name, or a variable that is not set here. The message holds no value.
    """
    found = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("--env: wanted NAME=VALUE or NAME, with a name of letters, digits and _")
        if not equals and name not in os.environ:
            raise ValueError(f"--env {name}: it is not set here; set it, or use --env {name}=VALUE")
        found[name] = value if equals else os.environ[name]
    return found


def describe_plan(job: Job, options: SubmitOptions) -> str:
    """What would be submitted, without the values of environment variables."""
    root = Path(splatfix.__file__).parent
    sources = source_files(root, with_weights=job.with_weights)
    package = "nothing (--installed)" if options.installed else f"splatfix {splatfix.__version__}"
    size = "" if options.installed else f" ({len(sources)} files, {size_mb(sources):.1f} MB before compression)"
    checked = [f"{path.name} {path.value}" for path in job.paths if path.is_local]
    rows = {
        "id": job.id,
        "runs": job.entrypoint(options.python),
        "config": f"{job.config} as {CONFIG_NAME}" if job.config else "none: flags only",
        "uploads": f"{package}{size}",
        "variables": ", ".join(
            f"{name}=***" if name in options.env else f"{name}={options.variables[name]}" for name in options.variables
        ),
        "driver": f"{options.cpus:g} CPUs{' (on the head)' if not options.resources else ''}",
        "checked there": ", ".join(checked) or "no path: all are URLs",
    }
    return "\n".join(f"{name:<14} {value}" for name, value in rows.items())


def find_running(cluster: Cluster, job: Job) -> JobInfo | None:
    """The submission of a job that has not ended, if there is one."""
    return next((info for info in _submissions(cluster, job) if not info.has_ended), None)


def submit_job(cluster: Cluster, job: Job, options: SubmitOptions) -> str:
    """Submit a job; returns the id of this submission.

    Raises:
        ValueError: the job is running already, or the cluster lacks one of its paths.
    """
    if (running := find_running(cluster, job)) is not None:
        raise ValueError(
            f"{running.id} is {running.status} already; nothing was submitted{follow_hint(cluster, running.id)}"
        )
    check_paths(cluster, job.paths, **options.resources)
    metadata = {"splatfix_job": job.id, "command": job.command, "out": job.out, "version": splatfix.__version__}
    return start_job(
        cluster,
        _next_id(job, _submissions(cluster, job)),
        job.entrypoint(options.python),
        options,
        config=job.config,
        with_weights=job.with_weights,
        metadata=metadata,
    )


def submit_check(cluster: Cluster, words: Sequence[str], options: SubmitOptions) -> str:
    """Submit ``splatfix doctor`` with these arguments as a job; returns its id."""
    entrypoint = shlex.join([options.python, "-m", "splatfix", *words])
    return start_job(
        cluster, f"splatfix-doctor-{uuid.uuid4().hex[:8]}", entrypoint, options, metadata={"command": "doctor"}
    )


def start_job(
    cluster: Cluster,
    job_id: str,
    entrypoint: str,
    options: SubmitOptions,
    *,
    config: Path | None = None,
    with_weights: bool = False,
    metadata: Mapping[str, str],
) -> str:
    """Upload what a job takes along, and start it; returns its id. ValueError if that id has been used."""
    with scratch_folder("submit") as folder:
        package = stage_package(folder, config=config, installed=options.installed, with_weights=with_weights)
        environment: dict[str, Any] = {"env_vars": options.variables}
        if package.work is not None:
            environment["working_dir"] = str(package.work)
        if package.sources is not None:
            environment["py_modules"] = [str(package.sources)]
        return cluster.submit(job_id, entrypoint, runtime_env=environment, metadata=dict(metadata), **options.resources)


def follow_hint(cluster: Cluster, job_id: str) -> str:
    """The lines with which a job can be followed and stopped."""
    rows = [
        f"splatfix submit {verb} --address {cluster.address}" for verb in (f"logs {job_id} --follow", f"stop {job_id}")
    ]
    return f"\n  follow: {rows[0]}\n  stop:   {rows[1]}"


def _next_id(job: Job, earlier: Sequence[JobInfo]) -> str:
    """The id of the next submission: that of the job, then with numbers from 2 on."""
    numbers = [int(info.id.removeprefix(job.id).removeprefix("-") or 1) for info in earlier]
    return f"{job.id}-{max(numbers) + 1}" if numbers else job.id


def _submissions(cluster: Cluster, job: Job) -> list[JobInfo]:
    pattern = re.compile(rf"{re.escape(job.id)}(-\d+)?")
    return [info for info in cluster.jobs() if pattern.fullmatch(info.id)]
