"""One training in several processes that Ray Train starts, on this machine or a cluster.

Each process runs `train`; gradients are exchanged by gloo on CPUs and by NCCL on GPUs. If a process or a node dies, all
are restarted and resume from the last saved state: that in the run's folder, or, if the nodes share no disk, the last
one that the main process copied to ``workers.storage``.
"""

from __future__ import annotations

import hashlib
import shutil
import signal
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splatfix import storage
from splatfix.files import write_whole
from splatfix.process import keeping_handler, log
from splatfix.telemetry import Telemetry
from splatfix.training.config import TrainConfig
from splatfix.training.data import check_divides, open_data
from splatfix.training.families import family_of
from splatfix.training.run import STATE, open_training
from splatfix.training.state import read_state
from splatfix.training.train import train
from splatfix.workers import RunAborted, connect_ray

if TYPE_CHECKING:
    from splatfix.training.state import TrainingState

RAY_FOLDER = "ray"  # Ray's own files, in the run's folder
NOT_STORED = (RAY_FOLDER, "mlflow.db", "mlartifacts")  # not copied to the storage


def launch(shards_url: str | Path, out: Path, config: TrainConfig, *, fresh: bool = False) -> None:
    """Train in ``config.workers.num`` processes, or in this one. Resumes, starts over and raises as `train`.

    Raises:
        RunAborted: each of ``workers.attempts`` attempts ended with a dead process; the message has the last reason.
    """
    workers = config.workers
    if workers.num == 0:
        train(shards_url, out, config, fresh=fresh)
        return
    out, shards_url = Path(out).absolute(), storage.absolute(shards_url)  # processes work in folders of Ray's
    if config.start_from is not None and Path(config.start_from).is_dir():
        config = replace(config, start_from=str(Path(config.start_from).absolute()))
    check_divides(config.data.batch_size, workers.num)
    inputs = family_of(config.network).inputs(config.network)
    data = open_data(shards_url, config.data, inputs, config.seed)  # an error is raised here, once, before Ray starts
    place, name = out / RAY_FOLDER if workers.storage is None else workers.storage, run_name(out)
    if open_training(out, config, data, fresh=fresh).is_finished:
        return
    if fresh and workers.storage is not None:  # Ray would take over the earlier run from there
        for file in storage.list_tree(earlier := storage.join(workers.storage, name)):
            storage.delete(storage.join(earlier, file))
    with connect_ray(workers.address, num_cpus=workers.num * workers.cpus, log_to_driver=True) as ray:
        from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        gpus = _use_gpus(ray, config)
        if not gpus:
            config = replace(config, device="cpu")
        if workers.storage is None:
            shutil.rmtree(place, ignore_errors=True)  # resuming uses the state in the run's folder
            if sum(node["Alive"] for node in ray.nodes()) > 1:
                log.warning("workers.storage is not set: %s has to be on a disk that all nodes share", out)
        quiet: Any = {"logging_config": LoggingConfig(log_level="WARNING")}
        limits: Any = {"max_failures": workers.attempts - 1, "controller_failure_limit": 3}
        trainer = TorchTrainer(
            partial(_run_process, shards_url, out, config),
            torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=workers.num, use_gpu=gpus, resources_per_worker={"CPU": workers.cpus, "GPU": int(gpus)}
            ),
            run_config=RunConfig(
                name=name,
                storage_path=storage.absolute(place),
                failure_config=FailureConfig(**limits),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
                **quiet,
            ),
        )
        try:
            with keeping_handler(signal.SIGINT), Telemetry("launch", out) as telemetry:
                telemetry.set("splatfix_train_processes", workers.num)
                result = trainer.fit()
        except SystemExit:  # Ctrl-C: the trainer's own handler exits as if training were finished
            raise KeyboardInterrupt from None
        except ray.train.TrainingFailedError as error:
            raise _user_error(error) from None
        if workers.storage is None:
            shutil.rmtree(place, ignore_errors=True)
        elif result.checkpoint is not None:
            with result.checkpoint.as_directory() as folder:
                _copy_newer(Path(folder), out)


def run_name(out: Path) -> str:
    """The name by which Ray finds the run of a folder when it is resumed."""
    return f"splatfix-{hashlib.sha256(str(out).encode()).hexdigest()[:12]}"


def _use_gpus(ray: Any, config: TrainConfig) -> bool:
    """Whether each process gets a GPU. ValueError if the cluster has too few GPUs or cores."""
    workers, resources = config.workers, ray.cluster_resources()
    gpus = (resources.get("GPU", 0) >= workers.num) if workers.gpus is None else bool(workers.gpus)
    gpus = gpus and config.device != "cpu"
    if config.device == "cuda" and not gpus:
        raise ValueError(
            f"device = 'cuda': wants workers.num = {workers.num} GPUs, one for each process; the cluster has "
            f"{resources.get('GPU', 0):g}, and workers.gpus = {workers.gpus}"
        )
    for kind, each in (("CPU", workers.cpus), ("GPU", int(gpus))):
        if resources.get(kind, 0) < each * workers.num:
            raise ValueError(
                f"workers.num = {workers.num}: wants {each * workers.num} {kind}s, the cluster has "
                f"{resources.get(kind, 0):g}; take fewer processes"
            )
    return gpus


def _run_process(shards_url: str, out: Path, config: TrainConfig) -> None:
    """Train in one of the processes."""
    import ray.train

    main = ray.train.get_context().get_world_rank() == 0
    if main and (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            _copy_newer(Path(folder), out)

    def report(state: TrainingState) -> None:
        numbers = {"step": state.step, "loss": state.history[-1]["loss"]}
        if not main or config.workers.storage is None:
            ray.train.report(numbers)
            return
        with tempfile.TemporaryDirectory(prefix="splatfix-") as folder:
            shutil.copytree(out, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*NOT_STORED, ".*"))
            ray.train.report(numbers, checkpoint=ray.train.Checkpoint.from_directory(folder))

    train(shards_url, out, config, on_segment=report)


def _copy_newer(checkpoint: Path, out: Path) -> None:
    """Copy a run's folder from the storage if it has more steps: this process may be on another node than before."""
    step = _saved_step(checkpoint)
    if _saved_step(out) >= step:
        return
    log.info("%s: copying the state after step %d", out, step)
    shutil.copytree(checkpoint, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(STATE))
    with write_whole(out / STATE) as temporary:  # last: the state counts the steps that the other files hold
        shutil.copyfile(checkpoint / STATE, temporary)


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
        if isinstance(inner, ValueError):
            return ValueError(str(inner))
    return RunAborted(f"training failed: {' '.join(str(error).split())[:600]}")
