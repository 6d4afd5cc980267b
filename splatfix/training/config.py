"""Settings of the training of a restorer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from splatfix.config import require
from splatfix.restoration.nafnet.network import NetworkConfig
from splatfix.tracking import TrackingConfig
from splatfix.training.batches import JitterConfig
from splatfix.training.data import DataConfig

OPTIMIZER = "adamw"
TENSORBOARD = "tensorboard"  # folder of its event files, in that of the run


@dataclass(frozen=True, kw_only=True)
class TrainWorkersConfig:
    """Worker processes that train one network together.

    Attributes:
        num: number of workers that Ray Train starts, here or on a cluster; 0 trains in this process, or in those that
            ``torchrun`` or ``accelerate launch`` started.
        min_num: number of workers with which training continues after nodes were lost, and starts if there are no
            more; it takes in others, up to ``num``, when there are nodes for them. None: always ``num``.
        cpus: CPU cores of a worker.
        gpus: GPUs of a worker, 0 or 1; None takes one if the cluster has any.
        accelerator: type of the GPUs, as Ray calls it (A100, H100, L4); None takes any.
        labels: labels that the nodes of workers have, such as ``ray.io/market-type: on-demand``.
        placement: PACK puts workers on as few nodes as possible, SPREAD on many; STRICT_PACK and STRICT_SPREAD insist.
        address: address of a Ray cluster; None joins the one that this process is in (RAY_ADDRESS, a Ray job), else
            starts Ray on this machine.
        storage: folder or URL that every node can access, for the states that a restart needs; None: the run's
            folder, which then must be on a disk that all nodes share.
        attempts: how often training is tried before it is given up: after a worker or node died, all workers are
            started again and resume from the last saved state. A node that was preempted costs no attempt.
        wait_minutes: how long training waits for nodes where a cluster has too few, or for room that other jobs hold,
            at its start and after a loss.
    """

    num: int = 0
    min_num: int | None = None
    cpus: int = 1
    gpus: int | None = None
    accelerator: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    address: str | None = None
    storage: str | None = None
    attempts: int = 4
    wait_minutes: float = 15.0

    RETIRED: ClassVar[Mapping[str, str]] = {
        "max_failures": "it is called workers.attempts now, which counts the first attempt as well: add one"
    }

    def __post_init__(self) -> None:
        require(self.num >= 0, "workers.num", self.num, "0 or more")
        enough = self.min_num is None or 1 <= self.min_num <= self.num
        require(enough, "workers.min_num", self.min_num, f"1 to workers.num = {self.num}, or null")
        require(self.wait_minutes >= 0, "workers.wait_minutes", self.wait_minutes, "0 or more")
        require(self.cpus >= 1, "workers.cpus", self.cpus, "at least 1")
        require(self.gpus in (None, 0, 1), "workers.gpus", self.gpus, "0, 1 or null")
        require(self.attempts >= 1, "workers.attempts", self.attempts, "at least 1")


@dataclass(frozen=True, kw_only=True)
class TrainTrackingConfig(TrackingConfig):
    """Where a training is tracked.

    Attributes:
        enabled: False tracks nothing and writes nothing.
        uri: of MLflow: ``http://HOST:PORT`` or ``sqlite:///FILE``; null takes MLFLOW_TRACKING_URI, else ``mlflow.db``
            in the run's folder. Files of a run go beside an SQLite file.
        experiment: of MLflow that holds the run; the project of wandb.
        name: of the run; null takes the folder's name.
        also: beside MLflow: tensorboard (event files in the run's folder) or wandb, which have to be installed.
    """

    also: tuple[Literal["tensorboard", "wandb"], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(set(self.also)) == len(self.also), "tracking.also", list(self.also), "each once")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Training of a restorer.

    Attributes:
        network: inputs, outputs and size of the network; its type selects the family of restorers.
        start_from: a checkpoint (folder, URL or hf:USER/NAME) of the same network, or of one with fewer inputs, to
            start from, with a new schedule; None starts with random weights. The groups it was trained on count as
            training groups.
        data: batches, and groups to hold out.
        jitter: color changes.
        steps: optimizer steps.
        max_seconds: limit of the training time, in seconds; the schedule is shortened to the steps that fit. None: no
            limit. (Only runs without a limit are exactly repeatable on the CPU.)
        segment_steps: steps between saved states; the content of batches depends on it, too.
        validate_every: segments between validations; the last segment is always validated.
        accumulate: number of chunks in which a process's share of a batch passes through the network, one by one.
        optimizer: name of one of timm's optimizers.
        learning_rate: highest learning rate of the cosine schedule, after warm-up.
        least_learning_rate: learning rate at the start of the warm-up and at the end of the cosine.
        warmup_steps: steps of linear warm-up.
        weight_decay: weight decay of the optimizer.
        clip_norm: norm to which larger gradients are clipped.
        ema_decay: decay of the averaged weights, which are validated and saved.
        loss: loss of the image.
        edge_weight: factor of the loss on finite differences.
        error_weight: factor of the loss of the predicted error.
        strength: share of the correction that the restorer applies if nothing is validated.
        precision: ``float32``, or ``bfloat16`` or (on CUDA) ``float16`` for mixed precision.
        compile: whether torch compiles the network (on the CPU this needs a C++ compiler).
        seed: seed of all random choices.
        device: auto, cpu or cuda (the launcher chooses which GPU).
        workers: number of worker processes, and the resources of each.
        tracking: where MLflow stores measurements; without a URI, beside the weights.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    start_from: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    jitter: JitterConfig = field(default_factory=JitterConfig)
    steps: int = 6000
    max_seconds: float | None = None
    segment_steps: int = 250
    validate_every: int = 4
    accumulate: int = 1
    optimizer: str = OPTIMIZER
    learning_rate: float = 1e-3
    least_learning_rate: float = 1e-6
    warmup_steps: int = 100
    weight_decay: float = 1e-3
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    loss: Literal["charbonnier", "l1", "psnr"] = "charbonnier"
    edge_weight: float = 0.1
    error_weight: float = 0.01
    strength: float = 0.5
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    compile: bool = False
    seed: int = 0
    device: str = "auto"
    workers: TrainWorkersConfig = field(default_factory=TrainWorkersConfig)
    tracking: TrainTrackingConfig = field(default_factory=TrainTrackingConfig)

    RETIRED: ClassVar[Mapping[str, str]] = {
        "launch": "it is called workers now (launch.max_failures is workers.attempts, which counts one more)"
    }

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "at least 1 step")
        require(self.segment_steps >= 1, "segment_steps", self.segment_steps, "at least 1 step")
        require(self.validate_every >= 1, "validate_every", self.validate_every, "at least 1 segment")
        require(self.accumulate >= 1, "accumulate", self.accumulate, "at least 1 part")
        require(_is_optimizer(self.optimizer), "optimizer", self.optimizer, f"one that timm knows, such as {OPTIMIZER}")
        require(self.max_seconds is None or self.max_seconds > 0, "max_seconds", self.max_seconds, "above 0, or null")
        require(self.clip_norm > 0, "clip_norm", self.clip_norm, "a number above 0")
        require(0 <= self.strength <= 1, "strength", self.strength, "0 to 1")
        require(self.device in ("auto", "cpu", "cuda"), "device", self.device, "auto, cpu or cuda")
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "a number above 0")
        require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "0 to below 1")


def _is_optimizer(name: str) -> bool:
    """Whether timm has an optimizer of this name; the default is known without timm, which help does without."""
    if name == OPTIMIZER:
        return True
    from timm.optim import list_optimizers

    return name in list_optimizers()
