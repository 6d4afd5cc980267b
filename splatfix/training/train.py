"""Training of the restorer: shards in, a checkpoint out. One of the two training loops of splatfix.

Runs on one CPU, one GPU or many (Accelerate; start several processes with ``torchrun`` or from Ray Train). Training
goes in segments of fixed length; at the end of each the state is saved, and a run that is started again goes on there,
seeing the batches that an unbroken run would have seen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, gather_object
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

import splatfix
from splatfix.conditioning import Guidance
from splatfix.config import require, to_tree
from splatfix.files import write_json
from splatfix.pairs import Pair
from splatfix.process import choose_device, log, progress, seed_everything
from splatfix.runs import Run, open_run, source_commit
from splatfix.tracking import Tracker, TrackingConfig, open_tracker
from splatfix.training.batches import Batch, NetworkInputs, jitter_colors
from splatfix.training.config import TrainConfig
from splatfix.training.data import Data, open_data
from splatfix.training.families import Family, family_of
from splatfix.training.preview import save_preview
from splatfix.training.state import Progress, read_state, restore_state, save_state
from splatfix.training.validation import measure_gains, summarize_gains

RESTORER, STATE, HISTORY = "restorer", "state.pt", "history.json"  # in the folder of a run
TRACKED_STEPS = 10  # between numbers of single steps in MLflow
MIXED_PRECISION = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
ADAMS = ("adam", "adamw", "nadam", "nadamw", "radam", "adamp", "lamb")  # with the betas that NAFNet was trained with


@dataclass(frozen=True, eq=False)
class Parts:
    """What is trained: the network, its wrapped form for several processes, averaged weights, optimizer.

    ``earlier`` is the provenance of the weights that it starts from; empty for fresh ones.
    """

    accelerator: Accelerator
    family: Family
    inputs: NetworkInputs
    network: nn.Module
    model: nn.Module
    ema: ModelEmaV3
    optimizer: torch.optim.Optimizer
    earlier: dict[str, Any]

    @property
    def kept(self) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
        """What a saved state holds."""
        return self.network, self.ema.module, self.optimizer

    def repair(self, guidance: Guidance) -> Tensor:
        """Repair a whole view with the averaged weights, which are validated and kept."""
        return self.family.repair(self.ema.module, guidance)


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
    device = parts.accelerator.device
    accelerator, main = parts.accelerator, parts.accelerator.is_main_process
    data = open_data(shards_url, config.data, parts.inputs, config.seed)
    _check_unseen(config, data, parts.earlier)
    if not data.validation:
        log.info("%s: no group is held out: nothing is validated, strength = %s", shards_url, config.strength)
    done = _resumed(parts, Path(out) / STATE, config, _tag(config, data))
    run = open_run(out, config) if main else Run(Path(out))  # the main process alone writes
    if main and done.history:  # the process before may have been killed between the state and this
        write_json(run.path / HISTORY, done.history)
    seconds_before = done.seconds
    batches = data.batches(
        done.segment,
        segment_steps=config.segment_steps,
        jitter=config.jitter,
        rank=accelerator.process_index,
        num_processes=accelerator.num_processes,
        pin_memory=device.type == "cuda",
    )

    tracking = config.tracking if main else TrackingConfig(enabled=False)
    with (
        open_tracker(out, tracking) as tracker,
        progress(total=done.planned, description="train", quiet=not main) as bar,
    ):
        _track_settings(tracker, config, data)
        bar.initial = bar.n = done.step
        while done.step < done.planned:
            num_steps = min(config.segment_steps, done.planned - done.step)
            seen = []
            for step, numbers in _segment(parts, islice(batches, num_steps), config, done):
                seen.append(numbers)
                bar.update()
                if step % TRACKED_STEPS == 0:
                    tracker.metrics({f"train.{name}": value for name, value in numbers.items()}, step)
                if on_step and main:
                    on_step(step, numbers)
            done.step, done.segment = done.step + num_steps, done.segment + 1
            done.seconds = seconds_before + time.perf_counter() - start
            if done.step < done.planned:
                done.planned = _planned(done, config)
            record: dict[str, Any] = {
                "step": done.step,
                "seconds": done.seconds,
                "loss": fmean(numbers["loss"] for numbers in seen),
                "step_seconds": median(numbers["seconds"] for numbers in seen),
                "data_wait": sum(n["data_seconds"] for n in seen) / sum(n["seconds"] for n in seen),
                "validation": None,
            }
            last = done.step >= done.planned
            if data.validation and (last or done.segment % config.validate_every == 0):
                record["validation"] = _validate(parts, data.validation)
            done.history.append(record)
            tracker.metrics(_tracked(record), done.step)
            if main:
                bar.total = done.planned
                bar.set_postfix(_shown(record))
                if _is_best(record, done, last):
                    validation = record["validation"]
                    strength = validation["strength"] if validation else config.strength
                    provenance = _provenance(config, data, record, parts.earlier)
                    parts.family.save(run.path / RESTORER, parts.ema.module, config, strength, provenance)
                if record["validation"] is not None:
                    picture = run.path / f"previews/step_{done.step:06d}.png"
                    save_preview(picture, parts.repair, data.validation)
                    tracker.artifact(picture, "previews")
                save_state(Path(out) / STATE, done, *parts.kept, _tag(config, data), accelerator.scaler)
                write_json(run.path / HISTORY, done.history)
            accelerator.wait_for_everyone()
            if on_segment:
                on_segment(done)
        if (Path(out) / RESTORER).exists():
            tracker.artifact(Path(out) / RESTORER, "")
    if main:
        run.seconds["train"] = done.seconds
        run.write_provenance(command="train", seed=config.seed, device=accelerator.device, steps=done.step)
    return done


def _segment(
    parts: Parts, batches: Iterable[Batch], config: TrainConfig, done: Progress
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train on these batches; yields each step's number (from 1), and its loss, learning rate, gradient norm and
    seconds, those spent waiting for data apart."""
    accelerator, model, optimizer = parts.accelerator, parts.model, parts.optimizer
    schedule = _schedule(optimizer, config, done.planned)
    start = time.perf_counter()
    for step, batch in enumerate(batches, start=done.step + 1):
        fetched = time.perf_counter()
        schedule.step_update(step - 1)
        loss = accelerator.reduce(_backward(parts, batch, config), "mean").item()
        if not math.isfinite(loss):  # on every process at once
            raise FloatingPointError(f"step {step}: loss = {loss}; try a lower learning_rate")
        norm = float(accelerator.clip_grad_norm_(model.parameters(), config.clip_norm))
        if accelerator.scaler is None and not math.isfinite(norm):  # a scaler leaves such a step out
            raise FloatingPointError(f"step {step}: gradient norm = {norm}; try a lower learning_rate")
        optimizer.step()
        optimizer.zero_grad()
        parts.ema.update(parts.network, step=step)
        now = time.perf_counter()
        yield (
            step,
            {
                "loss": loss,
                "learning_rate": optimizer.param_groups[0]["lr"],
                "gradient_norm": norm,
                "seconds": now - start,
                "data_seconds": fetched - start,
            },
        )
        start = time.perf_counter()


def _backward(parts: Parts, batch: Batch, config: TrainConfig) -> Tensor:
    """Gradients of a process's share of a batch, part by part, and its loss."""
    accelerator, total = parts.accelerator, torch.zeros((), device=parts.accelerator.device)
    chunks = list(batch.chunks(config.accumulate))
    for number, chunk in enumerate(chunks, start=1):
        with nullcontext() if number == len(chunks) else accelerator.no_sync(parts.model):
            jittered = jitter_colors(chunk.to(accelerator.device), parts.inputs)
            share = len(chunk.inputs) / len(batch.inputs)
            loss = share * parts.family.loss(parts.model(jittered.inputs), jittered, config)
            accelerator.backward(loss)
        total += loss.detach()
    return total


def _parts(config: TrainConfig) -> Parts:
    on_cpu = choose_device(config.device).type == "cpu"
    require(not (on_cpu and config.precision == "float16"), "precision", "float16", "float32 or bfloat16 on the CPU")
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=1))  # the others wait while one validates and saves
    accelerator = Accelerator(cpu=on_cpu, mixed_precision=MIXED_PRECISION[config.precision], kwargs_handlers=[patience])
    seed_everything(config.seed)
    family = family_of(config.network)
    network = family.build(config.network)
    earlier: dict[str, Any] = {}
    if config.start_from is not None:
        trained, network_config, earlier = family.load(config.start_from)
        if network_config != config.network:
            raise ValueError(
                f"start_from = {config.start_from!r}: its network is {network_config}, not {config.network}"
            )
        network.load_state_dict(trained.state_dict())
    network = network.to(accelerator.device)
    ema = ModelEmaV3(network, decay=config.ema_decay, use_warmup=True)
    family.use_patch_size(ema.module, config.data.patch_px)  # what is validated is what will repair
    betas: dict[str, Any] = {"betas": (0.9, 0.9)} if config.optimizer in ADAMS else {}
    optimizer = create_optimizer_v2(
        network.parameters(), config.optimizer, lr=config.learning_rate, weight_decay=config.weight_decay, **betas
    )
    model, optimizer = accelerator.prepare(torch.compile(network) if config.compile else network, optimizer)
    return Parts(accelerator, family, family.inputs(config.network), network, model, ema, optimizer, earlier)


def _resumed(parts: Parts, path: Path, config: TrainConfig, tag: dict[str, Any]) -> Progress:
    """The saved state, as the main process has it, in all processes; a fresh start where there is none."""
    accelerator = parts.accelerator
    found: list[Any] = [read_state(path, tag) if accelerator.is_main_process and path.exists() else None]
    (state,) = broadcast_object_list(found)
    limits = [config.steps, config.max_seconds]
    if state is None:
        return Progress(planned=config.steps, limits=limits)
    done = restore_state(state, *parts.kept, accelerator.scaler)
    if accelerator.is_main_process:
        log.info("%s: going on after step %d", path, done.step)
    if done.limits != limits:
        done.planned, done.limits = _planned(done, config), limits
    return done


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


def _validate(parts: Parts, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Measure each process's share of the pairs; all processes get the summary."""
    mine = pairs[parts.accelerator.process_index :: parts.accelerator.num_processes]
    rows = [row for pair in mine for row in measure_gains(parts.repair, pair)]
    return summarize_gains(gather_object(rows))


def _track_settings(tracker: Tracker, config: TrainConfig, data: Data) -> None:
    settings = {name: value for name, value in to_tree(config).items() if name not in ("launch", "tracking")}
    tracker.params(settings | {"shards": data.url, "shards_digest": data.digest, "version": splatfix.__version__})
    tracker.tags({"commit": source_commit() or "unknown", "command": "train"})


def _tracked(record: dict[str, Any]) -> dict[str, float]:
    """The numbers of a segment, and those of a validation at its best strength, as flat metrics."""
    flat = {name: record[name] for name in ("loss", "step_seconds", "data_wait")}
    if (validation := record["validation"]) is not None:
        chosen = validation["by_strength"][str(validation["strength"])]
        flat |= {f"validation.{name}": validation[name] for name in ("psnr_gain", "ssim_gain", "strength")}
        for kind in ("by_band", "by_scene"):
            for name, gains in chosen[kind].items():
                flat |= {f"validation.{kind}.{name}.{gain}": value for gain, value in gains.items()}
    return flat


def _shown(record: dict[str, Any]) -> dict[str, str]:
    gain = record["validation"] and record["validation"]["psnr_gain"]
    return {"loss": f"{record['loss']:.4f}", **({"gain": f"{gain:+.2f} dB"} if gain is not None else {})}


def _is_best(record: dict[str, Any], done: Progress, last: bool) -> bool:
    """Whether to keep these weights: the best validation so far, or without any validation the last."""
    if record["validation"] is None:
        return last
    if not math.isfinite(record["validation"]["psnr_gain"]):
        return False
    better = done.best is None or record["validation"]["psnr_gain"] > done.best
    if better:
        done.best = record["validation"]["psnr_gain"]
    return better


def _tag(config: TrainConfig, data: Data) -> dict[str, Any]:
    """What must not change when a run goes on."""
    tree = to_tree(config)
    for name in ("num_workers", "validation_pairs"):
        del tree["data"][name]
    free = (
        "steps",
        "max_seconds",
        "validate_every",
        "accumulate",
        "compile",
        "strength",
        "device",
        "launch",
        "tracking",
    )
    return {name: value for name, value in tree.items() if name not in free} | {"shards": data.digest}


def _check_unseen(config: TrainConfig, data: Data, earlier: dict[str, Any]) -> None:
    """ValueError where the weights that training starts from have seen what is validated on."""
    seen = {data.group_of(shard) for shard in data.held_out} & set(earlier.get("train_groups", []))
    if seen:
        raise ValueError(f"validation_groups: {min(seen)!r} was trained on by start_from = {config.start_from!r}")


def _provenance(config: TrainConfig, data: Data, record: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Where the weights come from, as the checkpoint says it."""
    seen = data.provenance()
    if config.start_from is not None:
        both = {name: sorted({*seen[name], *earlier.get(name, [])}) for name in ("train_groups", "train_scenes")}
        seen |= both | {"start_from": {name: earlier.get(name) for name in ("step", "seconds", "num_pairs")}}
    return {
        "version": splatfix.__version__,
        "commit": source_commit(),
        "step": record["step"],
        "seconds": round(record["seconds"]),
        "seed": config.seed,
        **seen,
        "validation": record["validation"],
    }
