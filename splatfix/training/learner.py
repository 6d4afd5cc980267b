"""What a run trains: the network, its averaged weights and the optimizer, in one process or in several."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import nn

from splatfix.conditioning import Conditioning
from splatfix.config import require
from splatfix.process import choose_device, log, seed_everything
from splatfix.restoration import RestorerChoice, pin_choice
from splatfix.training.batches import NetworkInputs
from splatfix.training.config import TrainConfig
from splatfix.training.families import Family, family_of
from splatfix.training.layout import use_fastest_layout
from splatfix.training.state import TrainingState, read_state, restore_state
from splatfix.training.trackers import require_trackers
from splatfix.training.validation import WholeRepair

MIXED_PRECISION = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
ADAMS = ("adam", "adamw", "nadam", "nadamw", "radam", "adamp", "lamb")  # with the betas that NAFNet was trained with


@dataclass(frozen=True, eq=False)
class Learner:
    """A network in training.

    Attributes:
        accelerator: this process among those that train together.
        family: the network's family.
        inputs: the network's input planes.
        network: the network itself.
        model: the network as it is called in training: compiled, and wrapped for several processes.
        ema: averaged weights, which are validated and saved.
        optimizer: of the network.
        start_from: the checkpoint that training started from, on the Hub with its commit; None for random weights.
        earlier: provenance of the weights that training started from; empty for random ones.
    """

    accelerator: Accelerator
    family: Family
    inputs: NetworkInputs
    network: nn.Module
    model: nn.Module
    ema: ModelEmaV3
    optimizer: torch.optim.Optimizer
    start_from: str | None
    earlier: dict[str, Any]

    @property
    def stateful(self) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
        """The parts that a saved state holds."""
        return self.network, self.ema.module, self.optimizer

    def repair(self, conditioning: Conditioning) -> WholeRepair:
        """Repair a whole view with the averaged weights."""
        return self.family.repair(self.ema.module, conditioning)


def build_learner(config: TrainConfig) -> Learner:
    """Set up processes, network and optimizer.

    Raises:
        ValueError: a setting that does not fit the device, a tracker that is not installed, or a checkpoint of another
            network in ``start_from``.
    """
    on_cpu = choose_device(config.device, renders=False).type == "cpu"
    require(not (on_cpu and config.precision == "float16"), "precision", "float16", "float32 or bfloat16 on the CPU")
    timeout = InitProcessGroupKwargs(timeout=timedelta(hours=1))  # the others wait while one validates and saves
    accelerator = Accelerator(cpu=on_cpu, mixed_precision=MIXED_PRECISION[config.precision], kwargs_handlers=[timeout])
    if accelerator.is_main_process:
        require_trackers(config.tracking)
    seed_everything(config.seed)
    family = family_of(config.network)
    network = family.build(config.network)
    earlier: dict[str, Any] = {}
    start_from = config.start_from
    if start_from is not None:
        # the main process asks the Hub for the commit, so that all processes start from the same
        [start_from] = broadcast_object_list([pin_start(start_from) if accelerator.is_main_process else None])
        trained, network_config, earlier = family.load(start_from)
        if network_config != config.network:
            widened = None if family.widen is None else family.widen(trained, config.network)
            if widened is None:
                wanted = f"{network_config}, not {config.network} nor one with fewer inputs"
                raise ValueError(f"start_from = {start_from!r}: its network is {wanted}")
            trained = widened
        network.load_state_dict(trained.state_dict())
    network = network.to(accelerator.device)
    use_fastest_layout(network, family, config, accelerator)
    ema = ModelEmaV3(network, decay=config.ema_decay, use_warmup=True)
    family.use_patch_size(ema.module, config.data.patch_px)  # validated as it will repair
    betas: dict[str, Any] = {"betas": (0.9, 0.9)} if config.optimizer in ADAMS else {}
    optimizer = create_optimizer_v2(
        network.parameters(), config.optimizer, lr=config.learning_rate, weight_decay=config.weight_decay, **betas
    )
    # with weights in channels-last order, torch says once in each process that exchanging gradients copies them
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    model, optimizer = accelerator.prepare(torch.compile(network) if config.compile else network, optimizer)
    inputs = family.inputs(config.network)
    return Learner(accelerator, family, inputs, network, model, ema, optimizer, start_from, earlier)


def pin_start(start_from: str) -> str:
    """The checkpoint to start from, of one on the Hub with its commit; ValueError as `restoration.pin_choice`."""
    return RestorerChoice.of(pin_choice(start_from)).name


def restore_learner(learner: Learner, path: Path, config: TrainConfig, tag: dict[str, Any]) -> TrainingState:
    """Restore the saved state that the main process reads, in all processes; start anew if it does not exist.

    Raises:
        ValueError: the file is damaged, or belongs to another network or other settings than ``tag``.
    """
    accelerator = learner.accelerator
    message: list[Any] = [read_state(path, tag) if accelerator.is_main_process and path.exists() else None]
    (saved,) = broadcast_object_list(message)
    limits = [config.steps, config.max_seconds]
    if saved is None:
        return TrainingState(planned=config.steps, limits=limits)
    state = restore_state(path, saved, *learner.stateful, accelerator.scaler)
    if accelerator.is_main_process:
        log.info("%s: resuming after step %d", path, state.step)
    if state.limits != limits:
        state.planned, state.limits = plan_steps(state, config), limits
    return state


def plan_steps(state: TrainingState, config: TrainConfig) -> int:
    """The steps that fit into ``max_seconds`` at the speed so far, at most ``steps``; as the main process sees it."""
    if config.max_seconds is None:
        return config.steps
    remaining = max(0.0, config.max_seconds - state.seconds)
    planned = [min(config.steps, state.step + int(remaining * state.step / state.seconds))]
    return broadcast_object_list(planned)[0]


def make_schedule(optimizer: torch.optim.Optimizer, config: TrainConfig, planned: int) -> CosineLRScheduler:
    """Warm-up and cosine over the planned steps."""
    for group in optimizer.param_groups:  # the schedule reads its highest rate from here
        group["lr"] = config.learning_rate
    return CosineLRScheduler(
        optimizer,
        t_initial=planned,
        lr_min=config.least_learning_rate,
        warmup_t=min(config.warmup_steps, planned // 10),
        warmup_lr_init=config.least_learning_rate,
        t_in_epochs=False,
    )
