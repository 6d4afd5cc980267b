"""Connect to Ray, and read what its cluster consists of. The only module of workers that imports ray."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splatfix.errors import RunAborted
from splatfix.extras import require_modules
from splatfix.files import private_folder, user_name
from splatfix.process import abort_command, acting_after, keeping_handler
from splatfix.workers.config import WorkersConfig
from splatfix.workers.watch import ending_without_ray

NODE_LABEL = "ray.io/node-id"  # Ray gives each node this label
ACCELERATOR_SHARE = 0.001  # of a node's resource ``accelerator_type:A100``, which Ray takes for a worker, too
MAX_SOCKET_BYTES = 107 if sys.platform == "linux" else 103  # of the path of a socket
SOCKET = "/ray/session_2000-01-01_00-00-00_000000_0000000/sockets/plasma_store.1"  # below RAY_TMPDIR or TMPDIR
SHORT_PLACE = Path("/tmp")
JOIN_NOTICE_SECONDS = 10.0  # without an answer of a cluster that is joined, before a message
SHUTDOWN_SECONDS = 60.0  # that closing the connection may take, before the command is ended
RECONNECT = ("RAY_gcs_rpc_server_reconnect_timeout_s", "120")  # then Ray ends a process; `watch` is earlier
UNLIMITED = 10_000  # nodes of an autoscaler's group without a maximum
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Node:
    """A node of the cluster that is alive.

    Attributes:
        name: its host name and address.
        capacity: number of workers that fit on it if nothing else runs there.
        is_draining: whether it is about to go away.
    """

    id: str
    name: str
    capacity: int
    is_draining: bool = False


@contextmanager
def connect_ray(
    address: str | None, *, num_cpus: int, gpus: float = 0.0, log_to_driver: bool = False, has_dashboard: bool = False
) -> Iterator[Any]:
    """Join a Ray cluster or start Ray, and yield the module; at the end, close the connection if it was opened here.

    Args:
        address: address of a cluster; None joins the cluster of this process (RAY_ADDRESS, a Ray job), if any, or
            starts Ray on this machine, also beside another Ray that runs there.
        num_cpus: number of CPU cores that Ray schedules on, if it is started.
        gpus: number of GPUs that a worker needs; may be a fraction.
        log_to_driver: whether to print the output of the workers in this process.
        has_dashboard: whether Ray gets a dashboard, if it is started.

    Raises:
        ValueError: Ray would be started on this machine, which has fewer GPUs than ``gpus``, or no folder with a path
            that is short enough for its sockets; or the cluster wants a token that is not there.
    """
    require_modules("ray", user="more than one worker", otherwise="--workers.num 0 does without")
    import ray

    if ray.is_initialized():
        yield ray
        return
    joined = address or os.environ.get("RAY_ADDRESS")
    start: dict[str, Any] = {} if joined else {"include_dashboard": has_dashboard, "num_cpus": num_cpus}
    if not joined and (folder := short_folder()) is not None:
        start["_temp_dir"] = str(folder)
    quiet: dict[str, Any] = {"log_to_driver": log_to_driver, "logging_level": logging.ERROR}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray sends no usage statistics
    try:
        with ending_without_ray(ray, starts=not joined) as is_connected:
            _connect(ray, joined, {**quiet, **start})
            is_connected.set()
            num_gpus = ray.cluster_resources().get("GPU", 0)
            if not joined and gpus > num_gpus:
                raise ValueError(f"workers.gpus = {gpus:g}: this machine has {num_gpus:g}; use 0 for the CPU")
            yield ray
    finally:
        with acting_after(SHUTDOWN_SECONDS, lambda: abort_command(f"Ray did not end within {SHUTDOWN_SECONDS:.0f} s")):
            ray.shutdown()


@contextmanager
def telling_join(address: str) -> Iterator[None]:
    """Log that a cluster which is being joined has not answered yet; Ray itself says nothing for minutes."""
    message = (
        f"{address}: no answer yet; Ray gives up after some minutes. Is that the address of the head node (HOST:6379), "
        "and reachable from here?"
    )
    with acting_after(JOIN_NOTICE_SECONDS, lambda: log.warning(message)):
        yield


def _connect(ray: Any, address: str | None, options: Mapping[str, Any]) -> None:
    if address is not None:
        os.environ.setdefault(*RECONNECT)
    try:
        with (
            nullcontext() if address is None else telling_join(address),
            keeping_handler(signal.SIGTERM),  # Ray's handler would exit at once
        ):
            ray.init(address=address or "local", **options)
    except ray.exceptions.AuthenticationError as error:
        raise ValueError(f"{address or 'Ray'}: {' '.join(str(error).split())}") from None
    except Exception as error:
        if address is not None or isinstance(error, ValueError | OSError):
            raise
        reason = " ".join(str(error).split())[:300]  # Ray raises plain exceptions
        raise RunAborted(f"Ray could not be started on this machine ({reason})") from error


def short_folder() -> Path | None:
    """Return a folder for the files of a Ray that is started here if its usual one is too long for sockets, else None.

    Raises:
        ValueError: the usual one is too long, and there is no other.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), None)
    if name is None or len(os.fsencode(os.environ[name])) + len(SOCKET) <= MAX_SOCKET_BYTES:
        return None
    place, most = os.environ[name], MAX_SOCKET_BYTES - len(SOCKET)
    try:
        folder = private_folder(SHORT_PLACE / f"ray-{user_name()}", "wanted a folder that is yours")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name} = {place}: too long for the sockets of Ray, and {SHORT_PLACE} cannot be used ({error}); set "
            f"RAY_TMPDIR to a folder of at most {most} characters"
        ) from None
    log.warning("%s is too long for the sockets of Ray, whose files are put in %s", name, folder)
    return folder


def num_local_cpus(config: WorkersConfig) -> int:
    """Return the number of CPU cores that Ray schedules on, if it is started on this machine."""
    cores = os.cpu_count() or 1
    return max(cores, config.cpus * (config.num or 1))


def resolve_workers(ray: Any, config: WorkersConfig) -> tuple[int, float]:
    """Return the number of workers and the GPUs of each, for the cluster that ``ray`` is connected to."""
    gpus = resolve_gpus(ray, config)
    num = config.num or sum(node.capacity for node in list_nodes(ray, config, gpus))
    return max(num, 1), gpus


def resolve_gpus(ray: Any, config: WorkersConfig) -> float:
    """Return the GPUs of a worker: if not configured, one where any node has one, or will when the cluster grows."""
    if config.gpus is not None:
        return config.gpus
    groups = [resources for resources, _ in _autoscaler_groups(ray)]
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return 1.0 if any(resources.get("GPU", 0) >= 1 for resources in (*alive, *groups)) else 0.0


def list_nodes(ray: Any, config: WorkersConfig, gpus: float) -> list[Node]:
    """List the nodes that are alive, with the number of workers that fit on each."""
    draining = draining_nodes(ray)
    return [
        Node(
            node["NodeID"],
            f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
            node_capacity(node["Resources"], node.get("Labels") or {}, config, gpus),
            node["NodeID"] in draining,
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def node_capacity(resources: Mapping[str, float], labels: Mapping[str, str], config: WorkersConfig, gpus: float) -> int:
    """Return the number of workers that fit on a node; a share of a GPU is always on one GPU."""
    if not all(matches_label(labels.get(name), wanted) for name, wanted in config.labels.items()):
        return 0
    if config.accelerator is not None and f"accelerator_type:{config.accelerator}" not in resources:
        return 0
    limits = [resources.get("CPU", 0) // config.cpus]
    if 0 < gpus < 1:
        limits.append(int(resources.get("GPU", 0)) * int(1 / gpus + 1e-6))
    elif gpus >= 1:
        limits.append(resources.get("GPU", 0) // gpus)
    if config.memory_gb is not None:
        limits.append(resources.get("memory", 0) // (config.memory_gb * 1e9))
    return int(min(limits))


def matches_label(value: str | None, selector: str) -> bool:
    """Whether the label of a node has a value that a selector allows: ``a``, ``!a``, ``in(a, b)`` or ``!in(a, b)``."""
    positive = selector.removeprefix("!")
    several = re.fullmatch(r"in\((.*)\)", positive)
    values = [each.strip() for each in several.group(1).split(",")] if several else [positive]
    return (value in values) != selector.startswith("!")


def potential_workers(ray: Any, config: WorkersConfig, gpus: float) -> int:
    """Return the number of workers that fit on the cluster if its autoscaler starts all nodes that it may; 0 if none.

    Nodes with labels are not counted, since the autoscaler does not report the labels of those it may start.
    """
    if config.labels:
        return 0
    groups = _autoscaler_groups(ray)
    return sum(node_capacity(resources, {}, config, gpus) * num_nodes for resources, num_nodes in groups)


def worker_resources(config: WorkersConfig, gpus: float) -> dict[str, float]:
    """Return the resources of a worker by Ray's names, for a placement group."""
    resources = {"CPU": float(config.cpus), "GPU": float(gpus)}
    if config.memory_gb is not None:
        resources["memory"] = config.memory_gb * 1e9
    if config.accelerator is not None:
        resources[f"accelerator_type:{config.accelerator}"] = ACCELERATOR_SHARE
    return resources


def worker_options(config: WorkersConfig, gpus: float) -> dict[str, Any]:
    """Return the options of an actor: its resources, its threads, and whether it sees GPUs."""
    environment = {key: str(config.cpus) for key in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS")}
    environment["OMP_WAIT_POLICY"] = "PASSIVE"
    if gpus == 0:
        environment["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides the GPUs of others only from workers that have one
    options: dict[str, Any] = {
        "num_cpus": config.cpus,
        "num_gpus": gpus,
        "max_restarts": 0,
        "max_task_retries": 0,
        "runtime_env": {"env_vars": environment},
    }
    if config.memory_gb is not None:
        options["memory"] = int(config.memory_gb * 1e9)
    if config.accelerator is not None:
        options["accelerator_type"] = config.accelerator
    return options


def select_nodes(labels: Mapping[str, str], excluded: Iterable[str]) -> dict[str, str]:
    """Return the label selector of an actor that may run on nodes with these labels, except on those with these ids."""
    ids = ", ".join(sorted(excluded))
    return {**labels, NODE_LABEL: f"!in({ids})"} if ids else dict(labels)


def node_of_actor(ray: Any, handle: Any, error: BaseException | None = None) -> str | None:
    """Return the id of the node on which an actor runs or died; None if it is unknown or was never on one."""
    try:
        from ray._private.state import state

        table = state.actor_table(handle._actor_id.hex())
        if node := table.get("Address", {}).get("NodeID"):
            return str(node)
    except Exception as failure:  # not a public API
        log.debug("the table of actors cannot be read: %s", failure)
    address = re.search(r"^\s*ip: (\S+)$", str(error), re.MULTILINE)
    here = [node["NodeID"] for node in ray.nodes() if address and node["NodeManagerAddress"] == address.group(1)]
    return here[0] if len(here) == 1 else None


def current_node() -> str:
    """Return the id of the node of this process, which is connected to Ray."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def current_gpus() -> frozenset[str]:
    """Return the ids of the GPUs of this process, which is connected to Ray: those of its actor, whole or a share."""
    import ray

    return frozenset(map(str, ray.get_gpu_ids()))


def draining_nodes(ray: Any) -> set[str]:  # noqa: ARG001 - so that tests can replace it
    """Return the ids of the nodes that are about to go away."""
    try:
        from ray._private.state import state

        return set(state.get_draining_nodes())
    except Exception as failure:  # not a public API
        log.debug("draining nodes cannot be listed: %s", failure)
        return set()


def _autoscaler_groups(ray: Any) -> list[tuple[dict[str, float], int]]:  # noqa: ARG001 - as above
    """Return the resources and the largest number of the nodes of each group that the autoscaler may start."""
    try:
        from ray._private.state import state

        config = state.get_cluster_config()
        groups = [] if config is None else config.node_group_configs
        return [(dict(group.resources), UNLIMITED if group.max_count < 0 else int(group.max_count)) for group in groups]
    except Exception as failure:  # not a public API
        log.debug("the groups of the autoscaler cannot be read: %s", failure)
        return []
