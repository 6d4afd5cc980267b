"""The commands that look at machines and clusters, and those that run jobs there."""

import os
import sys
from typing import Annotated

import tyro
from tyro.conf import Positional

from splatfix.command_line import EXIT_CODES, command, show
from splatfix.process import stop_requested

Words = Annotated[
    tuple[str, ...],
    tyro.conf.arg(metavar="generate|train|sweep|compare ARGUMENTS, status|logs|stop ID, or list"),
]
Address = Annotated[str | None, tyro.conf.arg(metavar="URL")]
Variables = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME[=VALUE]")]


@command(
    examples=[
        "splatfix doctor",
        "splatfix doctor --build",
        "splatfix doctor --cluster --address http://HEAD:8265 --out s3://bucket/pairs",
    ]
)
def doctor(
    *,
    cluster: bool = False,
    build: bool = False,
    address: Address = None,
    out: Annotated[str | None, tyro.conf.arg(metavar="URL")] = None,
    captures: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CAPTURE ...")] = (),
    uri: str | None = None,
    env: tyro.conf.UseAppendAction[Variables] = (),
    installed: bool = False,
    python: str = "python",
) -> int:
    """Report what this machine can run, and what the rest needs; or check every node of a cluster.

    A check of a cluster prints a row for each node and a line for each problem; the exit code is 1 if there are any.

    Args:
        cluster: check the nodes of a Ray cluster: versions, GPUs, disks, clocks, and what they see.
        build: compile now what is compiled on first use: the kernels for CPUs, and gsplat where there is a CUDA
            toolkit.
        address: dashboard of the cluster, http://HEAD:8265; by default the cluster that this machine is part of.
        out: folder or URL that every node has to read and write.
        captures: folders or URLs that every node has to read.
        uri: MLflow server that every node has to reach; by default that of MLFLOW_TRACKING_URI on the cluster.
        env: environment variable of the check (with --address), as for splatfix submit.
        installed: the nodes have splatfix installed (with --address): do not upload it.
        python: interpreter of the nodes (with --address).
    """
    if build:
        from splatfix.doctor.build import build_kernels

        build_kernels()
        return 0
    if not cluster:
        from splatfix.doctor import print_report

        print_report()
        return 0
    from splatfix.doctor.cluster import ClusterCheck, check_cluster

    check = ClusterCheck(out=out, captures=captures, uri=uri)
    from splatfix import submission

    address = address or next(filter(None, map(os.environ.get, submission.ADDRESS_VARIABLES)), None)
    if address is None or "://" not in address:
        return check_cluster(check, address)

    options = submission.SubmitOptions(env=submission.parse_env(env), installed=installed, python=python)
    found = submission.connect(address)
    job_id = submission.submit_check(found, check.words, options)
    return submission.job_exit_code(submission.follow_job(found, job_id))


@command(
    examples=[
        "splatfix submit generate s3://bucket/captures --out s3://bucket/pairs --config configs/generate.yaml "
        "--address http://HEAD:8265 --follow",
        "splatfix submit status splatfix-generate-1a2b3c4d --address http://HEAD:8265",
        "splatfix submit stop splatfix-generate-1a2b3c4d --address http://HEAD:8265",
    ]
)
def submit(
    words: Positional[Words],
    *,
    address: Address = None,
    follow: bool = False,
    env: Variables = (),
    installed: bool = False,
    entrypoint_cpus: float = 0.0,
    entrypoint_memory_gb: float = 0.0,
    python: str = "python",
    dry_run: bool = False,
) -> int:
    """Run generate, train, sweep or compare as a job of a Ray cluster, and follow or stop it.

    Arguments are those of the command; they are checked here, before anything is sent. The same command with the same
    --out has the same id: while it runs it is not submitted again, and afterwards a new submission resumes it.

    Args:
        words: what to run, or what to do with a job.
        address: dashboard of the cluster, http://HEAD:8265; by default RAY_API_SERVER_ADDRESS or RAY_ADDRESS.
        follow: print the log until the job ends, and end with its exit code. Ctrl-C leaves the job running.
        env: environment variable of the job on all nodes; NAME alone takes the value that it has here. May be repeated.
        installed: the nodes have splatfix installed: upload only the config file.
        entrypoint_cpus: CPU cores to reserve for the driver; with 0 it runs on the head.
        entrypoint_memory_gb: memory to reserve for the driver, in GB.
        python: interpreter of the job.
        dry_run: only print what would be submitted.
    """
    from splatfix import submission

    verb, *rest = words or ("",)
    if verb in ("status", "logs", "stop", "list"):
        return _manage(verb, rest, address, follow=follow)
    job = submission.plan_job(verb, rest)
    options = submission.SubmitOptions(
        env=submission.parse_env(env),
        installed=installed,
        python=python,
        cpus=entrypoint_cpus,
        memory_gb=entrypoint_memory_gb,
    )
    if dry_run:
        show(submission.describe_plan(job, options))
        return 0
    cluster = submission.connect(address)
    running = submission.find_running(cluster, job) if follow else None
    if running is not None:
        show(f"{running.id} is {running.status} already; nothing was submitted")
        return _follow(cluster, running.id)
    job_id = submission.submit_job(cluster, job, options)
    show(f"{job_id}: submitted to {cluster.address}{submission.follow_hint(cluster, job_id)}")
    return _follow(cluster, job_id) if follow else 0


def _manage(verb: str, words: list[str], address: str | None, *, follow: bool) -> int:
    """Run ``submit status``, ``logs``, ``stop`` or ``list``."""
    from splatfix import submission

    if len(words) != (0 if verb == "list" else 1):
        wanted = "no arguments" if verb == "list" else f"one id, such as splatfix-generate-1a2b3c4d; saw {words}"
        raise ValueError(f"submit {verb}: wanted {wanted}")
    cluster = submission.connect(address)
    if verb == "list":
        show(submission.describe_jobs(cluster))
        return 0
    job_id = words[0]
    if verb == "logs":
        if follow:
            return _follow(cluster, job_id)
        cluster.job(job_id)
        print(cluster.log(job_id), end="")
        return 0
    if verb == "stop":
        info = submission.stop_job(cluster, job_id)
        show(f"{info.id}: {submission.describe_status(info)}; submit the same command to resume it")
        return 0
    show(submission.describe_job(cluster, job_id))
    return submission.job_exit_code(cluster.job(job_id))


def _follow(cluster, job_id: str) -> int:
    """Print the log of a job until it ends or Ctrl-C is pressed; returns its exit code."""
    from splatfix import submission

    try:
        info = submission.follow_job(cluster, job_id)
    except KeyboardInterrupt:
        show(f"\n{job_id}: detached; the job continues{submission.follow_hint(cluster, job_id)}", file=sys.stderr)
        return EXIT_CODES[stop_requested() or "interrupted"]
    show(f"{job_id}: {submission.describe_status(info)}")
    if info.exit_code is None and info.status == "FAILED":
        show(f"  {' '.join(info.message.split())[:600]}", file=sys.stderr)
    return submission.job_exit_code(info)
