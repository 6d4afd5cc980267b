"""One training in several processes that Ray Train starts, on this machine or a cluster.

Each process runs `train` as it stands; gradients go over gloo on CPUs, over NCCL on GPUs. After each saved state the
main process hands it to Ray Train as a checkpoint. Where a process or a node dies, all are started again and go on at
the last state, on whatever nodes there are then.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splatfix.restoration.train import HISTORY, RESTORER, STATE, train
from splatfix.restoration.training_config import TrainConfig
from splatfix.restoration.training_data import open_data
from splatfix.runs import log
from splatfix.workers import connected

if TYPE_CHECKING:
    from splatfix.restoration.training_state import Progress


def launch(shards_url: str | Path, out: Path, config: TrainConfig) -> None:
    """Train in ``config.launch.num`` processes, or in this one. Errors as `train`.

    Raises:
        RuntimeError: processes died more often than ``launch.max_failures``; the message has the last reason.
    """
    wanted = config.launch
    if wanted.num == 0:
        train(shards_url, out, config)
        return
    out = Path(out).absolute()
    data = open_data(shards_url, config.data, config.network, config.seed)  # what is wrong shows here, once
    data.batches(0, segment_steps=1, jitter=config.jitter, num_processes=wanted.num)
    with connected(wanted.address, num_cpus=wanted.num * wanted.cpus, log_to_driver=True) as ray:
        from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        there = ray.cluster_resources()
        gpus = (there.get("GPU", 0) >= wanted.num) if wanted.gpus is None else bool(wanted.gpus)
        gpus = gpus and config.device != "cpu"
        for kind, each in (("CPU", wanted.cpus), ("GPU", int(gpus))):
            if there.get(kind, 0) < each * wanted.num:
                raise ValueError(
                    f"launch.num = {wanted.num}: wants {each * wanted.num} {kind}s, the cluster has "
                    f"{there.get(kind, 0):g}; take fewer processes"
                )
        storage = wanted.storage or str(out / "ray")
        trainer = TorchTrainer(
            partial(_process, str(shards_url), out, config),
            torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=wanted.num, use_gpu=gpus, resources_per_worker={"CPU": wanted.cpus, "GPU": int(gpus)}
            ),
            run_config=RunConfig(
                name="train",
                storage_path=storage,
                failure_config=FailureConfig(max_failures=wanted.max_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
                logging_config=LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg] # the second API's
            ),
        )
        try:
            result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise _plain(error) from None
        if result.checkpoint is not None:
            with result.checkpoint.as_directory() as folder:
                _take_over(Path(folder), out)
        if wanted.storage is None:  # all of it is in the run's folder now
            shutil.rmtree(storage, ignore_errors=True)


def _process(shards_url: str, out: Path, config: TrainConfig) -> None:
    """What each process does."""
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            _take_over(Path(folder), out)
    rank = ray.train.get_context().get_world_rank()

    def report(done: Progress) -> None:
        numbers = {"step": done.step, "loss": done.history[-1]["loss"]}
        if rank != 0:
            ray.train.report(numbers)
            return
        with tempfile.TemporaryDirectory(prefix="splatfix-") as folder:
            for name in (STATE, HISTORY):
                shutil.copy2(out / name, folder)
            if (out / RESTORER).exists():
                shutil.copytree(out / RESTORER, Path(folder) / RESTORER)
            ray.train.report(numbers, checkpoint=ray.train.Checkpoint.from_directory(folder))

    train(shards_url, out, config, on_segment=report)


def _take_over(checkpoint: Path, out: Path) -> None:
    """Copy a checkpoint into the run's folder, if that is not as far: it may be on another node than before."""
    if _step(out) >= _step(checkpoint):
        return
    out.mkdir(parents=True, exist_ok=True)
    log.info("%s: takes over the state after step %d", out, _step(checkpoint))
    shutil.copytree(checkpoint, out, dirs_exist_ok=True)


def _step(folder: Path) -> int:
    try:
        history = json.loads((folder / HISTORY).read_text())
        return int(history[-1]["step"]) if (folder / STATE).exists() else -1
    except (OSError, ValueError, IndexError, KeyError):
        return -1


def _plain(error: Any) -> Exception:
    """What went wrong in the processes, as the error that it was where that is one for the user."""
    causes = getattr(error, "worker_failures", None) or {}
    for cause in causes.values():
        inner = getattr(cause, "cause", None) or cause
        if isinstance(inner, ValueError | FloatingPointError):
            return type(inner)(str(inner))
    return RuntimeError(f"training failed: {' '.join(str(error).split())[:600]}")
