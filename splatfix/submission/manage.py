"""Jobs that have been submitted: their status, their exit codes, and how they are stopped."""

from __future__ import annotations

import logging
import time
from datetime import datetime

from splatfix.submission.cluster import Cluster, JobInfo

log = logging.getLogger(__name__)

STOP_MARGIN_SECONDS = 15.0  # for Ray to notice, beyond the time that it gives the process
TAIL_LINES = 3


def job_exit_code(info: JobInfo) -> int:
    """The exit code of a job's process, as `splatfix` itself has it: 0, 1, 2, 3, 130 or 143.

    Ray tells none of a job that it stopped (143 here), or that it could not start (1). It is 0 while a job runs.
    """
    if info.exit_code is not None:
        return info.exit_code if info.exit_code >= 0 else 128 - info.exit_code
    return {"STOPPED": 143, "FAILED": 1}.get(info.status, 0)


def describe_job(cluster: Cluster, job_id: str) -> str:
    """Status, times and output of a job, its reason where it failed, and the last lines of its log."""
    info = cluster.job(job_id)
    lines = [f"{info.id}: {describe_status(info)}"]
    lines += [f"  out: {info.metadata['out']}"] if "out" in info.metadata else []
    if info.status == "PENDING" or (info.status == "FAILED" and info.exit_code is None):
        lines.append(f"  {' '.join(info.message.split())[:400]}")
    log_lines = [line for line in cluster.log(job_id).splitlines() if line.strip()]
    return "\n".join([*lines, *(f"  | {line}" for line in log_lines[-TAIL_LINES:])])


def describe_jobs(cluster: Cluster) -> str:
    """The jobs of splatfix, a line each, the newest first."""
    found = [info for info in cluster.jobs() if "splatfix_job" in info.metadata]
    if not found:
        return f"no jobs of splatfix at {cluster.address}"
    width = max(len(info.id) for info in found)
    return "\n".join(
        f"{info.id:<{width}}  {describe_status(info)}  {info.metadata.get('out', '')}".rstrip() for info in found
    )


def describe_status(info: JobInfo) -> str:
    """The status of a job in words, with its duration and its exit code."""
    words = info.status
    if info.started is not None:
        seconds = (info.ended or time.time()) - info.started
        began = datetime.fromtimestamp(info.started).strftime("%Y-%m-%d %H:%M")
        words += f" {'after' if info.has_ended else 'for'} {format_seconds(seconds)} (since {began})"
    if info.has_ended and info.exit_code is not None:
        words += f", exit code {info.exit_code}"
    return words


def format_seconds(seconds: float) -> str:
    """A duration as people say it: 40 s, 12 min, 3 h 5 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def stop_job(cluster: Cluster, job_id: str) -> JobInfo:
    """Stop a job, and wait until it has ended. It keeps what it finished; submitting it again resumes it.

    Raises:
        ConnectionError: it did not end within the time that Ray gives its process, and some seconds more.
    """
    info = cluster.job(job_id)
    if info.has_ended:
        return info
    cluster.stop(job_id)
    log.info(
        "%s: stopping; it finishes what it is writing (at most %d s, then Ray kills it)", job_id, info.stop_seconds
    )
    end = time.monotonic() + info.stop_seconds + STOP_MARGIN_SECONDS
    while time.monotonic() < end:
        if (info := cluster.job(job_id)).has_ended:
            return info
        time.sleep(0.5)
    raise ConnectionError(
        f"{job_id}: still {info.status} {format_seconds(info.stop_seconds + STOP_MARGIN_SECONDS)} after the stop; "
        f"does its node answer? Ask again: splatfix submit status {job_id} --address {cluster.address}"
    )
