"""Run long tasks of unequal length on workers: Ray actors on one machine or a cluster, or this process.

A task is leased to an actor that has reported that it is ready. The death of an actor (a lost node, the out-of-memory
killer, preemption) costs its task one attempt; the task is leased again, and another actor is started. A task fails
when its attempts are used up, or at once with a ``ValueError``; the other tasks continue. Ray's own restarts and
retries are disabled, since they hang or lose tasks when nodes die.
"""

from splatfix.errors import DiskFull, MachineError, RunAborted
from splatfix.workers.cluster import connect_ray, num_local_cpus, resolve_workers
from splatfix.workers.config import WorkersConfig, joins_cluster, runs_in_process, workers_for_device
from splatfix.workers.failures import Failure, classify_failure
from splatfix.workers.run import run_tasks
from splatfix.workers.tasks import Outcome, Worker

__all__ = [
    "DiskFull",
    "Failure",
    "MachineError",
    "Outcome",
    "RunAborted",
    "Worker",
    "WorkersConfig",
    "classify_failure",
    "connect_ray",
    "joins_cluster",
    "num_local_cpus",
    "resolve_workers",
    "run_tasks",
    "runs_in_process",
    "workers_for_device",
]
