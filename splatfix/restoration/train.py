"""Training of the restorer: shards in, a checkpoint out. One of the two training loops of splatfix.

Runs on one CPU, one GPU or many (Accelerate; start several processes with ``torchrun`` or from Ray Train). Training
goes in segments of fixed length; at the end of each the state is saved, and a run that is started again goes on there,
seeing the batches that an unbroken run would have seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

import splatfix
from splatfix.config import to_tree
from splatfix.pairs import Pair
from splatfix.restoration.batches import Batch, JitterConfig, jittered
from splatfix.restoration.checkpoint import RestorerConfig, load_checkpoint, save_checkpoint
from splatfix.restoration.guided import GuidedNet, NetworkConfig, Output
from splatfix.restoration.losses import LOSSES, edge_loss, error_loss
from splatfix.restoration.nafnet import use_local_pooling
from splatfix.restoration.training_data import Data, DataConfig, open_data
from splatfix.restoration.training_state import Progress, load_state, save_state
from splatfix.restoration.validation import measure, summary
from splatfix.runs import Run, choose_device, log, open_run, progress, seed_everything, source_commit, write_json


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Training of the restorer.

    Attributes:
        network: inputs, outputs and size of the network.
        start_from: a checkpoint (folder or Hub id) of the same network to go on from, with a new schedule; None starts
            afresh. What it was trained on counts as trained on.
        data: batches, and groups that are held out.
        jitter: colour changes.
        steps: optimizer steps.
        max_seconds: training time after which it stops, in seconds; the schedule is shortened to what fits. None: no
            limit. (Runs without a limit are exactly repeatable.)
        segment_steps: steps between saved states.
        validate_every: segments between validations; the last segment is always validated.
        learning_rate: at the top of the cosine, after warm-up.
        least_learning_rate: at the end of the cosine.
        warmup_steps: steps of linear warm-up.
        weight_decay: of AdamW.
        clip_norm: largest norm of the gradient.
        ema_decay: of the averaged weights, which are what is validated and kept.
        loss: ``charbonnier``, ``l1`` or ``psnr``.
        edge_weight: factor of the loss on finite differences.
        error_weight: factor of the loss of the predicted error.
        strength: share of the correction that the restorer applies if nothing is validated.
        precision: ``float32``, or ``bfloat16`` for mixed precision.
        seed: everything random follows it.
        device: auto, cpu or cuda.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    start_from: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    jitter: JitterConfig = field(default_factory=JitterConfig)
    steps: int = 6000
    max_seconds: float | None = None
    segment_steps: int = 250
    validate_every: int = 4
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
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class Parts:
    """What is trained: the network, its wrapped form for several processes, averaged weights, optimizer."""

    accelerator: Accelerator
    network: GuidedNet
    model: nn.Module
    ema: ModelEmaV3
    optimizer: torch.optim.Optimizer


def train(
    shards_url: str | Path,
    out: Path,
    config: TrainConfig,
    *,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    on_segment: Callable[[Progress], None] | None = None,
) -> Progress:
    """Train a restorer into ``out/restorer``: the weights of the best validation. A run that was stopped goes on.

    ``on_step`` gets the step and its numbers on the main process, for tracking; ``on_segment`` is called on every
    process after each saved state, for reporting to a launcher.

    Raises:
        ValueError: shards or settings that cannot be used, or a saved state of other settings.
        FloatingPointError: the loss is no number any more; the message names the step.
    """
    start = time.perf_counter()
    parts = _parts(config)
    accelerator, main = parts.accelerator, parts.accelerator.is_main_process
    run = open_run(out, config) if main else Run(Path(out))  # the main process alone writes
    data = open_data(shards_url, config.data, config.network, config.seed)
    _check_start(config, data)
    if not data.validation:
        log.info("%s: no group is held out: nothing is validated, strength = %s", shards_url, config.strength)
    done = Progress(planned=config.steps)
    state_path = Path(out) / "state.pt"
    if state_path.exists():
        done = load_state(state_path, parts.network, parts.ema.module, parts.optimizer, _tag(config, data))
        log.info("%s: going on after step %d", state_path, done.step)
    seconds_before = done.seconds

    with progress(total=done.planned, description="train", quiet=not main) as bar:
        bar.initial = bar.n = done.step
        while done.step < done.planned:
            num_steps = min(config.segment_steps, done.planned - done.step)
            batches = islice(data.batches(done.segment, accelerator.process_index), num_steps)
            losses = []
            for step, numbers in _segment(parts, batches, config, done):
                losses.append(numbers["loss"])
                bar.update()
                if on_step and main:
                    on_step(step, numbers)
            done.step, done.segment = done.step + num_steps, done.segment + 1
            done.seconds = seconds_before + time.perf_counter() - start
            done.planned = _planned(done, config)
            record: dict[str, Any] = {
                "step": done.step,
                "seconds": done.seconds,
                "loss": fmean(losses),
                "validation": None,
            }
            last = done.step >= done.planned
            if data.validation and (last or done.segment % config.validate_every == 0):
                record["validation"] = _validate(accelerator, parts.ema.module, data.validation)
            done.history.append(record)
            if main:
                bar.total = done.planned
                bar.set_postfix(_shown(record))
                if _is_best(record, done, last):
                    save_checkpoint(run.path / "restorer", parts.ema.module, _restorer(config, data, record))
                write_json(run.path / "history.json", done.history)
                save_state(state_path, done, parts.network, parts.ema.module, parts.optimizer, _tag(config, data))
            accelerator.wait_for_everyone()
            if on_segment:
                on_segment(done)
    if main:
        run.seconds["train"] = done.seconds
        run.write_provenance(command="train", seed=config.seed, device=accelerator.device, steps=done.step)
    return done


def _segment(
    parts: Parts, batches: Iterable[Batch], config: TrainConfig, done: Progress
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train on these batches; yields each step's number (from 1) and its loss, learning rate and gradient norm."""
    accelerator, model, optimizer = parts.accelerator, parts.model, parts.optimizer
    schedule = _schedule(optimizer, config, done.planned)
    seed = np.random.default_rng([config.seed, done.segment, accelerator.process_index]).integers(2**63)
    generator = torch.Generator().manual_seed(int(seed))
    for step, batch in enumerate(batches, start=done.step + 1):
        schedule.step_update(step - 1)
        batch = jittered(batch.to(accelerator.device), config.network, config.jitter, generator)
        loss = _loss(model(batch.inputs), batch, config)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"step {step}: loss = {loss.item()}; try a lower learning_rate")
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        parts.ema.update(parts.network, step=step)
        rate = optimizer.param_groups[0]["lr"]
        yield step, {"loss": loss.item(), "learning_rate": rate, "gradient_norm": float(norm)}


def _parts(config: TrainConfig) -> Parts:
    on_cpu = choose_device(config.device).type == "cpu"
    accelerator = Accelerator(cpu=on_cpu, mixed_precision="bf16" if config.precision == "bfloat16" else "no")
    seed_everything(config.seed)
    network = GuidedNet(config.network)
    if config.start_from is not None:
        given, its = load_checkpoint(config.start_from)
        if its.network != config.network:
            raise ValueError(f"start_from = {config.start_from!r}: its network is {its.network}, not {config.network}")
        network.load_state_dict(given.state_dict())
    network = network.to(accelerator.device)
    ema = ModelEmaV3(network, decay=config.ema_decay, use_warmup=True)
    use_local_pooling(ema.module.network, config.data.patch_px)  # what is validated is what will repair
    optimizer = torch.optim.AdamW(
        network.parameters(), config.learning_rate, betas=(0.9, 0.9), weight_decay=config.weight_decay
    )
    model, optimizer = accelerator.prepare(network, optimizer)
    return Parts(accelerator, network, model, ema, optimizer)


def _loss(output: Output, batch: Batch, config: TrainConfig) -> Tensor:
    loss = LOSSES[config.loss](output.rgb, batch.clean, batch.weight)
    if config.edge_weight:
        loss = loss + config.edge_weight * edge_loss(output.rgb, batch.clean, batch.weight)
    if config.network.predict_error:
        loss = loss + config.error_weight * error_loss(output, batch.clean, batch.weight)
    return loss


def _schedule(optimizer: torch.optim.Optimizer, config: TrainConfig, planned: int) -> CosineLRScheduler:
    for group in optimizer.param_groups:  # where the schedule takes its top from
        group["lr"] = config.learning_rate
    return CosineLRScheduler(
        optimizer,
        t_initial=planned,
        lr_min=config.least_learning_rate,
        warmup_t=min(config.warmup_steps, planned // 10),
        warmup_lr_init=config.least_learning_rate,
        t_in_epochs=False,
    )


def _planned(done: Progress, config: TrainConfig) -> int:
    """Steps that fit into ``max_seconds`` at the speed so far, at most ``steps``; as the main process sees it."""
    if config.max_seconds is None:
        return config.steps
    left = max(0.0, config.max_seconds - done.seconds)
    planned = [min(config.steps, done.step + int(left * done.step / done.seconds))]
    return broadcast_object_list(planned)[0]


def _validate(accelerator: Accelerator, network: GuidedNet, pairs: Sequence[Pair]) -> dict[str, Any]:
    mine = pairs[accelerator.process_index :: accelerator.num_processes]
    rows = [row for pair in mine for row in measure(network, pair, accelerator.device)]
    return summary(gather_object(rows))


def _shown(record: dict[str, Any]) -> dict[str, str]:
    gain = record["validation"] and record["validation"]["psnr_gain"]
    return {"loss": f"{record['loss']:.4f}", **({"gain": f"{gain:+.2f} dB"} if gain is not None else {})}


def _is_best(record: dict[str, Any], done: Progress, last: bool) -> bool:
    """Whether to keep these weights: the best validation so far, or without any validation the last."""
    if record["validation"] is None:
        return last
    better = done.best is None or record["validation"]["psnr_gain"] > done.best
    if better:
        done.best = record["validation"]["psnr_gain"]
    return better


def _tag(config: TrainConfig, data: Data) -> dict[str, Any]:
    """What must not change when a run goes on."""
    tree = to_tree(config)
    free = ("steps", "max_seconds", "validate_every", "strength", "device")
    return {name: value for name, value in tree.items() if name not in free} | {"shards": data.digest}


def _check_start(config: TrainConfig, data: Data) -> None:
    """What is validated on must be new to the weights that training starts from, too."""
    if config.start_from is None:
        return
    seen = load_checkpoint(config.start_from)[1].provenance.get("train_groups", [])
    known = sorted({data.group_of(shard) for shard in data.held_out} & set(seen))
    if known:
        raise ValueError(f"validation_groups: {known[0]!r} was trained on by start_from = {config.start_from!r}")


def _restorer(config: TrainConfig, data: Data, record: dict[str, Any]) -> RestorerConfig:
    validation, seen = record["validation"], data.provenance()
    if config.start_from is not None:
        earlier = load_checkpoint(config.start_from)[1].provenance
        both = {name: sorted({*seen[name], *earlier.get(name, [])}) for name in ("train_groups", "train_scenes")}
        seen |= both | {"start_from": {name: earlier.get(name) for name in ("step", "seconds", "num_pairs")}}
    return RestorerConfig(
        network=config.network,
        strength=validation["strength"] if validation else config.strength,
        train_patch_px=config.data.patch_px,
        provenance={
            "version": splatfix.__version__,
            "commit": source_commit(),
            "step": record["step"],
            "seconds": round(record["seconds"]),
            "seed": config.seed,
            **seen,
            "validation": validation,
        },
    )
