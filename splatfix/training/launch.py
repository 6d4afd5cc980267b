"""One training in several processes that Ray Train starts, on this machine or a cluster.

Each process runs `train`; gradients are exchanged by gloo on CPUs and by NCCL on GPUs. If a process or a node dies, all
are restarted and resume from the last saved state: that in the run's folder, or, if the nodes share no disk, the last
one that the main process copied to ``workers.storage``. With ``workers.min_num`` fewer processes continue, with the
same batches: they do not depend on the number of processes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splatfix import storage
from splatfix.errors import MachineError
from splatfix.files import scratch_folder, write_whole
from splatfix.lease import hold_lease
from splatfix.mirror import Mirror, open_mirror
from splatfix.process import abort_command, is_aborting, keeping_handler, log, setting_environment
from splatfix.shared_folder import check_token, refuse_relative_output, shared_token
from splatfix.telemetry import Telemetry
from splatfix.training.cluster import Groups, choose_gpus, longest_wait_seconds, wait_for_room, watching_room
from splatfix.training.config import TrainConfig, TrainWorkersConfig
from splatfix.training.data import check_divides, open_data
from splatfix.training.families import family_of
from splatfix.training.learner import pin_start
from splatfix.training.run import STATE, is_first_process, open_training
from splatfix.training.saved_restorer import has_restorer
from splatfix.training.state import read_state
from splatfix.training.train import train
from splatfix.workers import RunAborted, connect_ray, joins_cluster
from splatfix.workers.cluster import ACCELERATOR_SHARE
from splatfix.workers.host import require_cuda

if TYPE_CHECKING:
    from splatfix.training.state import TrainingState

RAY_FOLDER = "ray"  # Ray's own files, in the run's folder
NOT_STORED = (RAY_FOLDER, "mlflow.db", "mlartifacts", "wandb")  # not copied to the storage
RESIZE_SECONDS = 60.0  # between two looks for nodes that could take in more workers (workers.min_num)
START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"  # of Ray Train, which then asks for room anew, thrice
POLL_INTERVAL = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"  # of Ray Train; a process that reports waits for the next look
POLL_SECONDS = 0.5
ABORT_SECONDS = 5.0  # that Ray Train may take to end its workers; it answers nothing while it waits for room
END_SECONDS = 10.0  # in all, until the connection to Ray is closed, which ends them as well
COLLECTIVE_SECONDS = 3600  # that processes wait for the one that validates and saves; Ray's default is half of it
URI = "MLFLOW_TRACKING_URI"


def launch(shards_url: str | Path, out: Path | str, config: TrainConfig, *, fresh: bool = False) -> None:
    """Train in ``config.workers.num`` processes, or in this one. Resumes, starts over and raises as `train`.

    ``out`` may be the URL of an object store (`mirror`): then each saved state is pushed there.

    Raises:
        ValueError: also where the cluster has no room for the workers, or another driver is at work in ``out``.
        RunAborted: each of ``workers.attempts`` attempts ended with a dead process; the message has the last reason.
            Or there was no room for the workers within ``workers.wait_minutes``.
    """
    workers = config.workers
    refuse_relative_output(out)
    mirror = open_mirror(out)
    if workers.num == 0:
        _train_here(shards_url, mirror, config, fresh=fresh)
        return
    out, shards_url = mirror.path, storage.absolute(shards_url)  # processes work in folders of Ray's
    if config.start_from is not None:
        is_folder = Path(config.start_from).is_dir()
        start_from = str(Path(config.start_from).absolute()) if is_folder else pin_start(config.start_from)
        config = replace(config, start_from=start_from)
    check_divides(config.data.batch_size, workers.num)
    inputs = family_of(config.network).inputs(config.network)
    data = open_data(shards_url, config.data, inputs, config.seed)  # an error is raised here, once, before Ray starts
    with hold_lease(mirror.place, "splatfix train"), mirror.drive():
        mirror.pull()
        if open_training(out, config, data, fresh=fresh).is_finished and has_restorer(out, config):
            return
        mirror.begin()
        if fresh and workers.storage is not None:  # Ray would take over the earlier run from there
            for file in storage.list_tree(earlier := storage.join(workers.storage, run_name(out))):
                storage.delete(storage.join(earlier, file))
        num_cpus = workers.num * workers.cpus
        # Ray Train asks the dashboard for the state of its actors, and logs an error each second without it
        with connect_ray(workers.address, num_cpus=num_cpus, log_to_driver=True, has_dashboard=True) as ray:
            _train_on_ray(ray, shards_url, mirror, config)


def _train_here(shards_url: str | Path, mirror: Mirror, config: TrainConfig, *, fresh: bool) -> None:
    """Train in this process, or in this one of those that torchrun has started; the first of them writes."""
    if not is_first_process():
        train(shards_url, mirror.path, config, fresh=fresh, place=mirror.place)
        return

    def push(_: TrainingState) -> None:
        mirror.push()

    with hold_lease(mirror.place, "splatfix train"), mirror.drive():
        mirror.pull(discard=True)
        train(
            shards_url,
            mirror.path,
            config,
            on_start=mirror.begin,
            on_segment=push,
            fresh=fresh,
            place=mirror.place,
        )


def _train_on_ray(ray: Any, shards_url: str, mirror: Mirror, config: TrainConfig) -> None:
    """Train in workers of Ray Train, when the cluster has room for them."""
    workers, out = config.workers, mirror.path
    gpus = choose_gpus(config, ray.nodes())
    config = replace(config, device="cuda" if gpus else "cpu")
    joins = joins_cluster(workers.address)
    wait_for_room(workers, gpus, find_nodes=ray.nodes, ask=partial(_ask_for_nodes, workers, gpus) if joins else None)
    if sum(node["Alive"] for node in ray.nodes()) > 1:
        _warn_of_lone_disks(mirror, config)
    place = out / RAY_FOLDER if workers.storage is None else workers.storage
    if workers.storage is None:
        shutil.rmtree(place, ignore_errors=True)  # resuming uses the state in the run's folder
    with shared_token(mirror.place) as token:
        work = _Work(shards_url, mirror, config, tracking_environment(), token if workers.storage is None else None)
        result = _fit(ray, work, gpus, storage.absolute(place))
    if workers.storage is None:
        shutil.rmtree(place, ignore_errors=True)
    elif result.checkpoint is not None:
        with result.checkpoint.as_directory() as folder:
            _copy_newer(Path(folder), out)


def _fit(ray: Any, work: _Work, gpus: bool, place: str) -> Any:
    """Run Ray Train; returns its result. Raises the error of a process that is meant for the user."""
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    workers = work.config.workers
    more: Any = {"logging_config": LoggingConfig(log_level="WARNING")}
    # an elastic training asks again for fewer workers, which counts; `watching_room` limits the wait in all
    num_asked = 3 if workers.min_num is None else 20
    limits: Any = {"max_failures": workers.attempts - 1, "controller_failure_limit": num_asked}

    class Trainer(TorchTrainer):
        """Leaves Ctrl-C to our handler: Ray's waits for the controller, which waits for room without answering."""

        controller: Any = None

        def _register_sigint_handler(self, controller: Any) -> None:
            self.controller = controller

    trainer = Trainer(
        partial(_run_process, work),
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo", timeout_s=COLLECTIVE_SECONDS),
        scaling_config=_scaling(workers, gpus),
        run_config=RunConfig(
            name=run_name(work.mirror.path),
            storage_path=place,
            failure_config=FailureConfig(**limits),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            **more,
        ),
    )
    reasons: list[str] = []
    find_groups = partial(_find_groups, ray, frozenset(_find_groups(ray)))

    def give_up(reason: str) -> None:
        reasons.append(reason)
        if trainer.controller is None:  # Ray does not answer the request for it
            abort_command(reason)
            return
        with suppress(Exception):  # Ray is away: at the next look
            ray.kill(trainer.controller)

    # with workers.min_num, asking anew may ask for fewer workers; else it would only begin the wait again
    wait_seconds = longest_wait_seconds(workers)
    timeout = wait_seconds + 60 if workers.min_num is None else max(60.0, wait_seconds / 2)
    switches = {START_TIMEOUT: f"{timeout:g}", POLL_INTERVAL: f"{POLL_SECONDS:g}"}
    try:
        with (
            keeping_handler(signal.SIGINT),
            setting_environment(switches),
            watching_room(workers, gpus, find_nodes=ray.nodes, find_groups=find_groups, give_up=give_up),
            Telemetry("launch", work.mirror.place) as telemetry,
            _ending_controller(ray, trainer, find_groups),
        ):
            telemetry.set("splatfix_train_processes", workers.num)
            return trainer.fit()
    except SystemExit:  # Ctrl-C: the trainer's own handler exits as if training were finished
        raise KeyboardInterrupt from None
    except ray.train.TrainingFailedError as error:
        raise (RunAborted(reasons[0]) if reasons else _user_error(error)) from None
    except ray.exceptions.RayActorError as error:  # of the process that leads the others
        if reasons:
            raise RunAborted(reasons[0]) from None
        reason = str(error).split("Worker exit detail: ")[-1].strip()
        raise RunAborted(
            f"Ray's controller of the training died ({reason}); the last saved state is kept; the same command resumes"
        ) from None


def _find_groups(ray: Any, earlier: Collection[str] = ()) -> Groups:
    """The placement groups of this driver, whose job is the end of their ids, without earlier ones."""
    job, groups = ray.get_runtime_context().get_job_id(), ray.util.placement_group_table()
    return {name: group for name, group in groups.items() if name.endswith(job) and name not in earlier}


@contextmanager
def _ending_controller(ray: Any, trainer: Any, find_groups: Callable[[], Groups]) -> Iterator[None]:
    """End Ray Train's controller and remove its placement groups where the block raises, within `END_SECONDS`.

    Closing the connection does the same; where the caller has opened it, it stays open.
    """
    try:
        yield
    except BaseException:
        if not is_aborting():  # nothing of Ray would answer
            thread = threading.Thread(target=_end_controller, args=(ray, trainer.controller, find_groups), daemon=True)
            thread.start()
            thread.join(END_SECONDS)
        raise


def _end_controller(ray: Any, controller: Any, find_groups: Callable[[], Groups]) -> None:
    from ray.util.placement_group import PlacementGroup

    with suppress(Exception):  # Ray is away
        waiting = any(group["state"] == "PENDING" for group in find_groups().values())
        if controller is not None:
            if not waiting:
                ray.wait([controller.abort.remote()], timeout=ABORT_SECONDS)
            ray.kill(controller)
        for name, group in find_groups().items():
            if group["state"] != "REMOVED":
                ray.util.remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))


def _scaling(workers: TrainWorkersConfig, gpus: bool) -> Any:
    """The number of workers, what each needs and where, as Ray Train takes it."""
    from ray.train import ScalingConfig

    more: dict[str, Any] = {"elastic_resize_monitor_interval_s": RESIZE_SECONDS}
    if workers.labels:
        more["label_selector"] = dict(workers.labels)
    return ScalingConfig(
        num_workers=workers.num if workers.min_num is None else (workers.min_num, workers.num),  # type: ignore[arg-type]
        use_gpu=gpus,
        resources_per_worker={"CPU": workers.cpus, "GPU": int(gpus)},
        accelerator_type=workers.accelerator,
        placement_strategy=workers.placement,
        **more,
    )


def _ask_for_nodes(workers: TrainWorkersConfig, gpus: bool) -> None:
    """Ask the autoscaler, if there is one, for nodes; the requests of Ray Train replace this one."""
    from ray.autoscaler.sdk import request_resources

    bundle: dict[str, float] = {"CPU": workers.cpus, **({"GPU": 1} if gpus else {})}
    if workers.accelerator is not None:
        bundle[f"accelerator_type:{workers.accelerator}"] = ACCELERATOR_SHARE
    more: dict[str, Any] = {"bundle_label_selectors": [dict(workers.labels)] * workers.num} if workers.labels else {}
    request_resources(bundles=[bundle] * workers.num, **more)


def _warn_of_lone_disks(mirror: Mirror, config: TrainConfig) -> None:
    """Warn of what is written to the disk of one node, where there are several."""
    shared, out = config.workers.storage is None and mirror.url is None, mirror.place
    if shared:
        log.warning("workers.storage is not set: %s has to be on a disk that all nodes share", out)
    if config.tracking.enabled and (config.tracking.uri or tracking_environment().get(URI)) is None:
        where = "on that disk, whose locks may fail" if shared else "on the disk of one node, and lost with it"
        log.warning(
            "tracking: neither tracking.uri nor %s is set: MLflow's database mlflow.db is %s; set the address of a "
            "server, or send the records later with `splatfix sync %s`",
            *(URI, where, out),
        )


def tracking_environment() -> dict[str, str]:
    """The driver's settings of MLflow, which its workers need: address, user and certificates of the server."""
    return {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_TRACKING_") and value}


def run_name(out: Path) -> str:
    """The name by which Ray finds the run of a folder when it is resumed."""
    return f"splatfix-{hashlib.sha256(str(out).encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class _Work:
    """What a process needs.

    Attributes:
        shards_url, config: as of `train`.
        mirror: the run's folder.
        environment: the driver's settings of MLflow.
        token: in the run's folder, which every node must see; None if the states are kept in ``workers.storage``.
    """

    shards_url: str
    mirror: Mirror
    config: TrainConfig
    environment: dict[str, str]
    token: str | None


def _run_process(work: _Work) -> None:
    """Train in one of the processes.

    Raises:
        MachineError: this node does not see the run's folder, or has a GPU that torch cannot use.
    """
    mirror, out, config = work.mirror, work.mirror.path, work.config
    os.environ.update(work.environment)
    if work.token is not None:
        check_token(mirror.place, work.token)
    if config.device == "cuda":
        require_cuda("a GPU", "train on CPUs with --workers.gpus 0", renders=False)
    import ray.train

    main = ray.train.get_context().get_world_rank() == 0
    if main:
        mirror.pull(discard=True)
    if main and (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            _copy_newer(Path(folder), out)

    def report(state: TrainingState) -> None:
        numbers = {"step": state.step, "loss": state.history[-1]["loss"]}
        if main:
            mirror.push()
        if not main or config.workers.storage is None:
            ray.train.report(numbers)
            return
        with scratch_folder("train") as folder:
            shutil.copytree(out, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*NOT_STORED, ".*"))
            ray.train.report(numbers, checkpoint=ray.train.Checkpoint.from_directory(str(folder)))

    for handler in logging.getLogger().handlers:
        handler.addFilter(_is_wanted)
    train(work.shards_url, out, config, on_segment=report, place=mirror.place)
    if main:
        mirror.push()


def _is_wanted(record: logging.LogRecord) -> bool:
    """Whether to log a message: not the one of Ray Train about each report, whose logger has a path as its name."""
    return record.levelno >= logging.WARNING or "/ray/train/" not in record.pathname.replace("\\", "/")


def _copy_newer(checkpoint: Path, out: Path) -> None:
    """Copy a run's folder from the storage if it has more steps: this process may be on another node than before."""
    step = _saved_step(checkpoint)
    if _saved_step(out) >= step:
        return
    log.info("%s: copying the state after step %d", out, step)
    shutil.copytree(
        checkpoint, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(STATE), copy_function=_copy_whole
    )
    _copy_whole(checkpoint / STATE, out / STATE)  # last: the state counts the steps that the other files hold


def _copy_whole(source: str | Path, target: str | Path) -> None:
    with write_whole(Path(target)) as temporary:
        shutil.copyfile(source, temporary)


def _saved_step(folder: Path) -> int:
    if not (folder / STATE).exists():
        return -1
    try:
        return int(read_state(folder / STATE)["progress"]["step"])
    except ValueError:
        return -1


def _user_error(error: Any) -> Exception:
    """The first error of the processes that is meant for the user, else that training failed."""
    for cause in (getattr(error, "worker_failures", None) or {}).values():
        inner = getattr(cause, "cause", None) or cause
        if isinstance(inner, FloatingPointError):
            return FloatingPointError(str(inner))
        if isinstance(inner, MachineError):
            return RunAborted(str(inner))
        if isinstance(inner, ValueError):
            return ValueError(str(inner))
    return RunAborted(f"training failed: {' '.join(str(error).split())[:600]}")
