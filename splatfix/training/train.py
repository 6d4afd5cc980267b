"""Train a restorer: shards in, a checkpoint out. One of the two training loops of splatfix.

Trains any family of restorers (`families`) on one CPU, one GPU or many (Accelerate; ``torchrun`` or Ray Train starts
several processes). Training is divided into segments of fixed length. The state is saved at the end of each; a resumed
run continues there and sees the batches that an uninterrupted run would have seen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from splatfix.files import write_json
from splatfix.process import log, progress, stopping_at_progress
from splatfix.runs import Run
from splatfix.telemetry import Telemetry
from splatfix.training.batches import ByteBatch, decode_batch, jitter_colors
from splatfix.training.config import TrainConfig
from splatfix.training.data import Data, open_data
from splatfix.training.learner import Learner, build_learner, make_schedule, plan_steps, restore_learner
from splatfix.training.live_metrics import send_segment, send_start, send_step
from splatfix.training.preview import save_preview
from splatfix.training.records import (
    flatten_record,
    format_record,
    segment_record,
    update_best,
)
from splatfix.training.run import HISTORY, RESTORER, STATE, fixed_settings, open_training
from splatfix.training.saved_restorer import complete_restorer, save_restorer
from splatfix.training.stalls import watching_progress
from splatfix.training.state import TrainingState, save_state
from splatfix.training.trackers import TrainTrackers, open_trackers
from splatfix.training.validation import measure_pair, summarize

TRACKED_STEPS = 10  # between numbers of single steps in MLflow
# Steps between fetches of their losses and gradient norms, by type of the device: at each the host waits for a GPU, and
# then the GPU for the host. Steps may follow one that is not finite, but nothing is saved or validated before a fetch.
FETCH_EVERY = {"cpu": 1, "cuda": 10}


def train(
    shards_url: str | Path,
    out: Path,
    config: TrainConfig,
    *,
    on_start: Callable[[], object] = lambda: None,
    on_step: Callable[[int, dict[str, float]], object] = lambda _step, _numbers: None,
    on_segment: Callable[[TrainingState], object] = lambda _state: None,
    fresh: bool = False,
    place: str | Path | None = None,
) -> TrainingState:
    """Train a restorer into ``out/restorer``: the weights of the best validation.

    An interrupted run is resumed, of a finished one the state is returned; ``fresh`` starts over.

    ``on_start`` is called on the main process when the run in ``out`` has been opened and is not finished, ``on_step``
    there for each step (after every `FETCH_EVERY` of them), and ``on_segment`` on every process after each saved state.
    ``place`` is where the run is kept, for messages, if ``out`` is only a copy.

    Raises:
        ValueError: shards or settings that cannot be used, or a saved state of other settings.
        FloatingPointError: the loss or a gradient is not finite; the message names the step.
    """
    learner = build_learner(config)
    config = replace(config, start_from=learner.start_from)
    accelerator, is_main = learner.accelerator, learner.accelerator.is_main_process
    data = open_data(shards_url, config.data, learner.inputs, config.seed)
    _check_held_out(config, data, learner.earlier)
    run = open_training(out, config, data, fresh=fresh) if is_main else Run(Path(out))  # only the main process writes
    state = restore_learner(learner, Path(out) / STATE, config, fixed_settings(config, data))
    if is_main:
        complete_restorer(learner, config, data, state, run)
    if broadcast_object_list([run.is_finished])[0]:
        return state
    if is_main:
        on_start()
        if state.history:  # an earlier process may have been killed between writing the state and this
            write_json(run.path / HISTORY, state.history)
    start = time.perf_counter() - state.seconds
    batches = _remaining_batches(data, config, state, accelerator)
    with (
        Telemetry("train", place or out, enabled=is_main) as telemetry,
        open_trackers(accelerator, config, data, Path(out), state.step) as tracker,
        progress(total=state.planned, initial=state.step, description="train", quiet=not is_main) as bar,
        stopping_at_progress() if accelerator.num_processes == 1 else nullcontext(),
        watching_progress() as note_progress,
    ):

        def report(figures: dict[int, dict[str, float]]) -> None:
            note_progress()
            for step, numbers in figures.items():
                send_step(telemetry, numbers, num_crops=config.data.batch_size, steps_left=state.planned - step)
                if step % TRACKED_STEPS == 0:
                    tracker.metrics({f"train.{name}": value for name, value in numbers.items()}, step)
                if is_main:
                    on_step(step, numbers)
            bar.update(len(figures))  # last: a stop signal acts here

        send_start(telemetry, state, accelerator.device, bar)
        while state.step < state.planned:
            try:
                steps = _finish_segment(learner, batches, config, state, report)
            except KeyboardInterrupt:
                state.seconds = time.perf_counter() - start
                _save_unfinished(learner, config, data, state, run)
                raise
            trained = time.perf_counter()
            state.seconds = trained - start
            if state.step < state.planned:
                state.planned = plan_steps(state, config)
            is_due = state.step >= state.planned or state.segment % config.validate_every == 0
            validation = _validate(learner, data, note_progress) if data.validation and is_due else None
            state.history.append(segment_record(state, steps, validation))
            tracker.metrics(flatten_record(state.history[-1]), state.step)
            if is_main:
                bar.total = state.planned
                bar.set_postfix(format_record(state.history[-1]))
                _save_segment(learner, config, data, state, run, tracker)
                send_segment(telemetry, state, time.perf_counter() - trained)
            accelerator.wait_for_everyone()
            note_progress()
            on_segment(state)
        if (Path(out) / RESTORER).exists():
            tracker.artifact(Path(out) / RESTORER, "")
    if is_main:
        _conclude(run, config, state, accelerator.device)
    return state


def _remaining_batches(
    data: Data, config: TrainConfig, state: TrainingState, accelerator: Accelerator
) -> Iterator[ByteBatch]:
    """This process's share of all batches that have not been trained on."""
    batches = data.batches(
        state.segment,
        segment_steps=config.segment_steps,
        jitter=config.jitter,
        rank=accelerator.process_index,
        num_processes=accelerator.num_processes,
        pin_memory=accelerator.device.type == "cuda",
    )
    return islice(batches, len(state.unfinished), None)


def _conclude(run: Run, config: TrainConfig, state: TrainingState, device: torch.device) -> None:
    """Record that the run is finished."""
    run.seconds["train"] = state.seconds
    run.write_provenance(seed=config.seed, device=device, steps=state.step)


def _save_segment(
    learner: Learner, config: TrainConfig, data: Data, state: TrainingState, run: Run, tracker: TrainTrackers
) -> None:
    """Save the weights if they are the best so far, a preview of a validation, the state, and last the history."""
    record = state.history[-1]
    validation = record["validation"]
    if update_best(state, record):
        save_restorer(learner, config, data, record, run)
    if validation is not None:
        picture = run.path / f"previews/step_{state.step:06d}.png"
        save_preview(picture, learner.repair, data.validation)
        tracker.artifact(picture, "previews")
    save_state(run.path / STATE, state, *learner.stateful, fixed_settings(config, data), learner.accelerator.scaler)
    write_json(run.path / HISTORY, state.history)


def _save_unfinished(learner: Learner, config: TrainConfig, data: Data, state: TrainingState, run: Run) -> None:
    """Save the state within a segment after an interruption; of several processes, each may be at another step."""
    if learner.accelerator.num_processes > 1:
        saved = state.step - len(state.unfinished)
        log.info("interrupted; %s", f"the state after step {saved} is saved" if saved else "no state was saved yet")
        return
    save_state(run.path / STATE, state, *learner.stateful, fixed_settings(config, data), learner.accelerator.scaler)
    log.info("interrupted; the state after step %d is saved", state.step)


def _finish_segment(
    learner: Learner,
    batches: Iterable[ByteBatch],
    config: TrainConfig,
    state: TrainingState,
    report: Callable[[dict[int, dict[str, float]]], object],
) -> list[dict[str, float]]:
    """Train to the end of a segment, counting the steps in the state; returns the figures of all steps of the segment.

    ``report`` is called with the figures of the latest steps, by their numbers; it may raise KeyboardInterrupt.
    """
    num_steps = min(config.segment_steps - len(state.unfinished), state.planned - state.step)
    figures = list(state.unfinished)
    try:
        for latest in _train_segment(learner, islice(batches, num_steps), num_steps, config, state):
            figures += latest.values()
            report(latest)
    except KeyboardInterrupt:
        state.step += len(figures) - len(state.unfinished)
        state.unfinished = figures
        raise
    state.step, state.segment, state.unfinished = state.step + num_steps, state.segment + 1, []
    return figures


def _train_segment(
    learner: Learner, batches: Iterable[ByteBatch], num_steps: int, config: TrainConfig, state: TrainingState
) -> Iterator[dict[int, dict[str, float]]]:
    """Train on these ``num_steps`` batches; yields figures of steps by their numbers (from 1) when they are fetched.

    The figures: loss, learning rate, gradient norm, seconds, and those of the seconds spent waiting for data. Seconds
    are means over the steps that are fetched together.
    """
    accelerator, model, optimizer = learner.accelerator, learner.model, learner.optimizer
    schedule = make_schedule(optimizer, config, state.planned)
    pending: dict[int, _Pending] = {}
    start, waited = time.perf_counter(), 0.0
    before, interruption = start, None
    iterator = iter(batches)
    for step in range(state.step + 1, state.step + num_steps + 1):
        try:
            batch = next(iterator)
        except KeyboardInterrupt as error:  # no batch comes: the steps before are done, and count
            interruption = error
            break
        waited += time.perf_counter() - before
        schedule.step_update(step - 1)
        loss = _backward(learner, batch, config)
        norm = accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
        pending[step] = _Pending(loss, norm, optimizer.param_groups[0]["lr"])
        is_due = len(pending) == FETCH_EVERY[accelerator.device.type] or step == state.step + num_steps
        if is_due:  # before the weights change
            figures = _fetch_figures(accelerator, pending)
        optimizer.step()
        optimizer.zero_grad()
        learner.ema.update(learner.network, step=step)
        before = time.perf_counter()
        if is_due:
            yield _add_seconds(figures, before - start, waited)
            pending = {}
            start, waited = time.perf_counter(), 0.0
            before = start
    if interruption is not None:
        if pending:
            yield _add_seconds(_fetch_figures(accelerator, pending), before - start, waited)
        raise interruption


def _add_seconds(
    figures: dict[int, dict[str, float]], seconds: float, data_seconds: float
) -> dict[int, dict[str, float]]:
    """Add the mean seconds of a step, and of its wait for data, to the figures of steps."""
    means = {"seconds": seconds / len(figures), "data_seconds": data_seconds / len(figures)}
    return {step: numbers | means for step, numbers in figures.items()}


class _Pending(NamedTuple):
    """Figures of a step that have not been fetched from the device."""

    loss: Tensor
    norm: Tensor
    learning_rate: float


def _fetch_figures(accelerator: Accelerator, pending: dict[int, _Pending]) -> dict[int, dict[str, float]]:
    """Fetch the losses, averaged over the processes, and gradient norms of steps, waiting for the device once.

    Raises:
        FloatingPointError: one is not finite; on every process at once.
    """
    losses = accelerator.reduce(torch.stack([one.loss for one in pending.values()]), "mean")
    norms = torch.stack([one.norm for one in pending.values()])
    figures = {}
    for (step, one), loss, norm in zip(pending.items(), *torch.stack([losses, norms]).cpu().tolist(), strict=True):
        if not math.isfinite(loss):
            raise FloatingPointError(f"step {step}: loss = {loss}; try a lower learning_rate")
        if accelerator.scaler is None and not math.isfinite(norm):  # a scaler skips such a step
            raise FloatingPointError(f"step {step}: gradient norm = {norm}; try a lower learning_rate")
        figures[step] = {"loss": loss, "learning_rate": one.learning_rate, "gradient_norm": norm}
    return figures


def _backward(learner: Learner, batch: ByteBatch, config: TrainConfig) -> Tensor:
    """Add up the gradients of a process's share of a batch, chunk by chunk; returns its loss.

    Gradients and losses are averaged over the processes, so each is weighted by its number of crops.
    """
    accelerator, total = learner.accelerator, torch.zeros((), device=learner.accelerator.device)
    chunks = list(batch.to(accelerator.device).chunks(config.accumulate))
    for number, chunk in enumerate(chunks, start=1):
        with nullcontext() if number == len(chunks) else accelerator.no_sync(learner.model):
            jittered = jitter_colors(decode_batch(chunk, learner.inputs), learner.inputs)
            share = len(chunk.inputs) * accelerator.num_processes / config.data.batch_size
            loss = share * learner.family.loss(learner.model(jittered.inputs), jittered, config)
            accelerator.backward(loss)
        total += loss.detach()
    return total


def _validate(learner: Learner, data: Data, on_pair: Callable[[], object]) -> dict[str, Any]:
    """Measure each process's share of the held-out pairs; all processes get the summary."""
    mine = data.validation[learner.accelerator.process_index :: learner.accelerator.num_processes]
    measured = []
    for pair in mine:
        measured.append(measure_pair(learner.repair, pair))
        on_pair()
    return summarize(gather_object(measured), {shard.scene: data.group_of(shard) for shard in data.held_out})


def _check_held_out(config: TrainConfig, data: Data, earlier: dict[str, Any]) -> None:
    """Refuse weights to start from that were trained on a group to validate on; report that no group is held out.

    Raises:
        ValueError: the weights were trained on a group to validate on.
    """
    seen = {data.group_of(shard) for shard in data.held_out} & set(earlier.get("train_groups", []))
    if seen:
        raise ValueError(f"validation_groups: {min(seen)!r} was trained on by start_from = {config.start_from!r}")
    if not data.validation:
        log.info(
            "no group of captures is held out of %s: the restorer is not validated, and applies %g of each correction "
            "(strength)",
            data.url,
            config.strength,
        )
