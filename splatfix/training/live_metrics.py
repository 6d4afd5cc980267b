"""What a training sends to Ray while it runs (`splatfix.telemetry`), from its main process."""

from __future__ import annotations

from functools import partial

import torch
from tqdm import tqdm

from splatfix.process import seconds_left
from splatfix.telemetry import Telemetry
from splatfix.training.state import TrainingState


def send_start(telemetry: Telemetry, state: TrainingState, device: torch.device, bar: tqdm) -> None:
    """Send what is known before the first step: the remaining steps, and the best validation of an earlier process."""
    telemetry.set("splatfix_train_steps_left", state.planned - state.step)
    telemetry.set("splatfix_seconds_left", partial(seconds_left, bar))
    if state.best is not None:
        telemetry.set("splatfix_train_best_gain_db", state.best)
    if device.type == "cuda":
        telemetry.set("splatfix_train_gpu_memory_bytes", partial(torch.cuda.memory_reserved, device))


def send_step(telemetry: Telemetry, numbers: dict[str, float], *, num_crops: int, steps_left: int) -> None:
    """Send the numbers of a step."""
    telemetry.count("splatfix_train_steps_total")
    telemetry.count("splatfix_train_crops_total", num_crops)
    telemetry.count("splatfix_train_seconds_total", numbers["data_seconds"], part="wait for data")
    telemetry.count("splatfix_train_seconds_total", numbers["seconds"] - numbers["data_seconds"], part="step")
    telemetry.set("splatfix_train_steps_left", steps_left)
    telemetry.set("splatfix_train_loss", numbers["loss"])
    telemetry.set("splatfix_train_learning_rate", numbers["learning_rate"])


def send_segment(telemetry: Telemetry, state: TrainingState, seconds: float) -> None:
    """Send the last validation of a segment, and the ``seconds`` that validating and saving took."""
    telemetry.count("splatfix_train_seconds_total", seconds, part="validate and save")
    telemetry.set("splatfix_train_steps_left", state.planned - state.step)
    if (validation := state.history[-1]["validation"]) is not None:
        telemetry.set("splatfix_train_gain_db", validation["psnr_gain"])
    if state.best is not None:
        telemetry.set("splatfix_train_best_gain_db", state.best)
