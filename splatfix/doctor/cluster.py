"""Check every node of a Ray cluster, and compare them with each other and with the driver."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from splatfix import storage
from splatfix.doctor.probe import NodeReport, Request, find_versions, probe, read_clock
from splatfix.workers.cluster import telling_join

log = logging.getLogger(__name__)

PROBE_SECONDS = 60.0  # for all nodes together
CLOCK_SECONDS = 10.0  # for one clock
CLOCKS_SECONDS = 60.0  # for those of all nodes
MAX_SKEW_SECONDS = 2.0
TOKEN = re.compile(r"\.doctor-(\d+)-[0-9a-f]{8}")  # a folder, with the time in seconds since 1970
TOKEN_SECONDS = 86400.0  # after which its doctor was killed, also where clocks differ
MIN_TEMP_GB, MIN_SHM_GB = 5.0, 1.0
TABLE = ("node", "CPU", "GPU", "splatfix", "python", "torch", "ray", "gsplat", "temp free", "shm", "clock", "sees")


@dataclass(frozen=True, kw_only=True)
class ClusterCheck:
    """What every node has to see: the output, captures, and an MLflow server (by default MLFLOW_TRACKING_URI's)."""

    out: str | None = None
    captures: tuple[str, ...] = ()
    uri: str | None = None

    @property
    def words(self) -> list[str]:
        """The arguments of splatfix that run this check on the cluster itself."""
        words = ["doctor", "--cluster"]
        words += ["--out", self.out] if self.out is not None else []
        words += ["--captures", *self.captures] if self.captures else []
        return words + (["--uri", self.uri] if self.uri is not None else [])


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node as Ray knows it, and its report; ``silence`` says why it has none.

    Attributes:
        name: host name and address.
        skew_seconds: how far its clock is ahead of the driver's, beyond what the time of the request explains.
    """

    name: str
    is_head: bool
    cpus: float
    gpus: float
    report: NodeReport | None = None
    silence: str = ""
    skew_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something to mend; a hint (``is_hint``) costs time at most, and does not change the exit code."""

    node: str
    seen: str
    remedy: str
    is_hint: bool = False


def check_cluster(check: ClusterCheck, address: str | None = None) -> int:
    """Check all nodes and print the result; returns 1 if there is something to mend, else 0.

    Raises:
        ValueError: no cluster to join, or nobody can write to the output.
    """
    uri = check.uri or os.environ.get("MLFLOW_TRACKING_URI")
    with join_cluster(address) as ray, _token(check.out) as (url, token):
        request = Request(check_url=url, token=token, captures=check.captures, uri=uri)
        nodes = probe_nodes(ray, request)
    print(format_table(nodes, check, uri))
    problems = find_problems(nodes, find_versions(), check, uri)
    for line in describe_problems(problems):
        print(line)
    num = sum(not problem.is_hint for problem in problems)
    print(f"{len(nodes)} nodes, {num} {'problem' if num == 1 else 'problems'}")
    return 1 if num else 0


@contextlib.contextmanager
def join_cluster(address: str | None) -> Iterator[Any]:
    """Join a running cluster. ValueError if there is none."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        with telling_join(address or os.environ.get("RAY_ADDRESS", "auto")):
            ray.init(address=address or "auto", logging_level=logging.ERROR, log_to_driver=False)
    except ConnectionError:
        raise ValueError(
            "--cluster: no Ray cluster runs on this machine; name one with --address http://HEAD:8265, or start one "
            "(ray start --head)"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def probe_nodes(ray: Any, request: Request) -> list[Node]:
    """Run the probe on each living node; those that do not answer in `PROBE_SECONDS` say so."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    living = [node for node in ray.nodes() if node["Alive"]]
    remote, clock = ray.remote(num_cpus=0, max_retries=0)(probe), ray.remote(num_cpus=0, max_retries=0)(read_clock)
    places = {node["NodeID"]: NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in living}
    log.info("asking %d nodes, for up to %.0f s", len(living), PROBE_SECONDS + CLOCKS_SECONDS)
    asked = {key: remote.options(scheduling_strategy=place).remote(request) for key, place in places.items()}
    ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=PROBE_SECONDS)
    nodes, end = [], time.monotonic() + CLOCKS_SECONDS
    for known in living:
        reference = asked[known["NodeID"]]
        report, skew, silence = None, None, f"no answer within {PROBE_SECONDS:.0f} s"
        if reference in ready:
            try:
                report = ray.get(reference)
                seconds = min(CLOCK_SECONDS, end - time.monotonic())
                skew = _measure_skew(ray, clock.options(scheduling_strategy=places[known["NodeID"]]), seconds)
            except Exception as error:  # an import that fails there, a worker that dies
                lines = [line.strip() for line in str(error).splitlines() if line.strip()]
                silence = (lines[-1] if lines else type(error).__name__)[:300]
        else:
            ray.cancel(reference, force=True)
        resources = known["Resources"]
        nodes.append(
            Node(
                name=f"{known['NodeManagerHostname']} ({known['NodeManagerAddress']})",
                is_head="node:__internal_head__" in resources,
                cpus=resources.get("CPU", 0.0),
                gpus=resources.get("GPU", 0.0),
                report=report,
                silence="" if report is not None else silence,
                skew_seconds=skew,
            )
        )
    return sorted(nodes, key=lambda node: (not node.is_head, node.name))


def _measure_skew(ray: Any, clock: Any, seconds: float) -> float | None:
    """How far a clock is off, beyond what the time of the request explains; None if it does not answer in time."""
    if seconds <= 0:
        return None
    asked_at = time.time()
    try:
        seen = ray.get(clock.remote(), timeout=seconds)
    except ray.exceptions.GetTimeoutError:
        return None
    answered_at = time.time()
    return min(0.0, seen - asked_at) + max(0.0, seen - answered_at)


@contextlib.contextmanager
def _token(out: str | None) -> Iterator[tuple[str | None, str]]:
    """Write a file for the nodes to find into a separate folder in the output, and remove it again."""
    if out is None:
        yield None, ""
        return
    if storage.is_local(out) and not Path(out.removeprefix("file://")).is_absolute():
        raise ValueError(f"--out {out}: nodes have other working directories; wanted an absolute path, or a URL")
    token = uuid.uuid4().hex
    url = storage.join(out, f".doctor-{time.time():.0f}-{token[:8]}")
    is_new = storage.is_local(out) and not Path(storage.absolute(out)).exists()
    storage.write_bytes(storage.join(url, "token"), token.encode())
    _remove_old_tokens(out)
    try:
        yield url, token
    finally:
        _remove_token(url)
        if is_new:
            storage.remove_empty_folder(out)


def _remove_token(url: str) -> None:
    for name in storage.list_names(url):
        storage.delete(storage.join(url, name))
    storage.remove_empty_folder(url)


def _remove_old_tokens(out: str) -> None:
    """Remove what doctors that were killed more than a day ago left in an output."""
    with contextlib.suppress(OSError):  # they do no harm
        for name in storage.list_folder(out)[1]:
            match = TOKEN.fullmatch(name)
            if match is not None and time.time() - int(match[1]) > TOKEN_SECONDS:
                _remove_token(storage.join(out, name))


def find_problems(nodes: Sequence[Node], driver: dict[str, str], check: ClusterCheck, uri: str | None) -> list[Problem]:
    """What has to be mended, node by node; versions are compared with those of the driver."""
    problems = []
    for node in nodes:
        if node.report is None:
            remedy = "look at it in Ray's dashboard, or take it out of the cluster (on it: ray stop)"
            problems.append(Problem(node=node.name, seen=node.silence, remedy=remedy))
            continue
        problems += [*_version_problems(node, node.report, driver), *_gpu_problems(node, node.report)]
        problems += [*_machine_problems(node, node.report), *_access_problems(node, node.report, check)]
    if uri is not None and not uri.startswith(("http://", "https://")) and len(nodes) > 1:
        seen = f"MLflow at {uri}: a database in a file, on {len(nodes)} nodes"
        problems.append(Problem(node="all", seen=seen, remedy="use a server: cluster/tracking_server.sh", is_hint=True))
    return problems


def _version_problems(node: Node, report: NodeReport, driver: dict[str, str]) -> Iterator[Problem]:
    remedies = {"code": "the sources differ: use the same image, or submit without --installed"}
    for name, version in driver.items():
        if report.versions.get(name) != version:
            seen = f"{name} {report.versions.get(name)}, the driver has {version}"
            yield Problem(node=node.name, seen=seen, remedy=remedies.get(name, "use the same image on every node"))


def _gpu_problems(node: Node, report: NodeReport) -> Iterator[Problem]:
    seen, wanted = len(report.gpus), int(node.gpus)
    if seen < wanted:
        built = f"torch is built for CUDA {report.cuda}" if report.cuda else "torch is built without CUDA"
        text = f"Ray books {wanted} GPUs, torch sees {seen} ({built})"
        yield Problem(
            node=node.name, seen=text, remedy="check nvidia-smi, the driver's version, and the container's GPUs"
        )
    if seen > wanted:
        text = f"torch sees {seen} GPUs, Ray books {wanted}"
        yield Problem(node=node.name, seen=text, remedy=f"start Ray there with --num-gpus {seen}", is_hint=True)
    if seen and not report.compiled:
        if report.compiler:
            text, remedy = "gsplat is not compiled: the first fit waits minutes", "run splatfix doctor --build there"
            yield Problem(node=node.name, seen=text, remedy=remedy, is_hint=True)
        else:
            text, remedy = "gsplat is not compiled, and there is no nvcc", "use an image with it (cluster/Dockerfile)"
            yield Problem(node=node.name, seen=text, remedy=remedy)


def _machine_problems(node: Node, report: NodeReport) -> Iterator[Problem]:
    if report.temp_free_gb < MIN_TEMP_GB:
        seen = f"{report.temp} has {report.temp_free_gb:.1f} GB free"
        yield Problem(node=node.name, seen=seen, remedy="free some, or set TMPDIR to a larger disk")
    if report.shm_gb is not None and report.shm_gb < MIN_SHM_GB:
        seen = f"/dev/shm has {report.shm_gb:.2f} GB: Ray's objects go to the disk"
        yield Problem(node=node.name, seen=seen, remedy="docker run --shm-size=2g, or a volume in memory", is_hint=True)
    if node.skew_seconds is not None and abs(node.skew_seconds) > MAX_SKEW_SECONDS:
        seen = f"its clock is {node.skew_seconds:+.1f} s off the driver's"
        yield Problem(node=node.name, seen=seen, remedy="run ntp or chrony: object stores refuse wrong clocks")


def _access_problems(node: Node, report: NodeReport, check: ClusterCheck) -> Iterator[Problem]:
    remedies = {
        "output": "mount the same disk on every node, or use a URL (s3://, gs://, az://)",
        "store": "give the node rights to write there (credentials in its environment, or an instance profile)",
        "captures": "put them where every node sees them: a shared folder, or a URL",
        "mlflow": "start it so that nodes reach it (TRACKING_HOST=0.0.0.0), and open its port",
    }
    for name, fault in report.faults.items():
        place = {"output": check.out, "store": check.out}.get(name, name)
        yield Problem(node=node.name, seen=f"{place}: {fault}", remedy=remedies[name])


def describe_problems(problems: Sequence[Problem]) -> Iterator[str]:
    """Two lines for each problem: what was seen on which nodes, and the remedy."""
    nodes: dict[Problem, list[str]] = {}
    for problem in problems:
        nodes.setdefault(replace(problem, node=""), []).append(problem.node)
    for problem, names in nodes.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        mark = "hint" if problem.is_hint else "-- "
        yield f"{mark} {', '.join(names[:3])}{more}: {problem.seen}\n    -> {problem.remedy}"


def format_table(nodes: Sequence[Node], check: ClusterCheck, uri: str | None) -> str:
    """A row for each node."""
    checks = [*(("output", "store") if check.out else ()), *(("captures",) if check.captures else ())]
    checks += ["mlflow"] if uri else []
    rows = [TABLE, *(_row(node, checks) for node in nodes)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(TABLE))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(node: Node, checks: Sequence[str]) -> tuple[str, ...]:
    name, report = f"{node.name}{' head' if node.is_head else ''}", node.report
    if report is None:
        return (name, f"{node.cpus:g}", f"{node.gpus:g}", *["?"] * (len(TABLE) - 4), node.silence[:40])
    names = "; ".join(f"{num} {gpu}" for gpu, num in Counter(report.gpus).items())
    versions = report.versions
    return (
        name,
        f"{node.cpus:g}",
        f"{node.gpus:g}{f' ({names})' if names else ''}",
        f"{versions['splatfix']} {versions['code'][:8]}",
        *(versions[package] for package in ("python", "torch", "ray")),
        f"{versions['gsplat']}{' compiled' if report.compiled else ''}",
        f"{report.temp_free_gb:.0f} GB",
        "none" if report.shm_gb is None else f"{report.shm_gb:.1f} GB",
        "?" if node.skew_seconds is None else f"{node.skew_seconds:+.1f} s",
        " ".join(f"{name}{'!' if name in report.faults else ''}" for name in checks) or "-",
    )
