"""Run a command of splatfix as a job of a Ray cluster: submit it from here, follow it, and stop it.

The cluster is reached through the jobs API of its dashboard, so that nothing but its URL is needed here. Everything
that can be refused is refused before the submission: settings, flags, and paths that only this machine has.
"""

from splatfix.submission.cluster import ADDRESS_VARIABLES, Cluster, connect, resolve_address
from splatfix.submission.follow import follow_job
from splatfix.submission.job import (
    Job,
    SubmitOptions,
    describe_plan,
    find_running,
    follow_hint,
    parse_env,
    plan_job,
    submit_check,
    submit_job,
)
from splatfix.submission.manage import describe_job, describe_jobs, describe_status, job_exit_code, stop_job

__all__ = [
    "ADDRESS_VARIABLES",
    "Cluster",
    "Job",
    "SubmitOptions",
    "connect",
    "describe_job",
    "describe_jobs",
    "describe_plan",
    "describe_status",
    "find_running",
    "follow_hint",
    "follow_job",
    "job_exit_code",
    "parse_env",
    "plan_job",
    "resolve_address",
    "stop_job",
    "submit_check",
    "submit_job",
]
