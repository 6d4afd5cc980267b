"""The memory layout of a network in training: channels-last or contiguous, whichever is faster on its device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from splatfix.process import log
from splatfix.training.config import TrainConfig
from splatfix.training.families import Family
from splatfix.workers.cuda_errors import free_cached_memory, is_out_of_memory

LAYOUTS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}
USUAL = "channels-last"  # on the CPU 1.2 to 1.4 times as fast as contiguous
WARM_STEPS, TIMED_STEPS = 3, 5


def use_fastest_layout(
    network: nn.Module,
    family: Family,
    config: TrainConfig,
    accelerator: Accelerator,
    *,
    time_call: Callable[[Callable[[], object], torch.device], float] | None = None,
) -> str:
    """Give a network the layout in which a step of its training is fastest; returns its name.

    On the CPU that is known. On a GPU, some steps of the run's batch size are timed in each layout, without random
    numbers and without changing weights. All processes take what the main process has measured, since they exchange
    gradients in the order in which these lie in memory. Where the GPU's memory is full, the layout stays channels-last.

    Args:
        network: on the device of the accelerator.
        family: of the network.
        config: of the training.
        accelerator: this process among those that train together.
        time_call: measures the seconds of a call on a device.
    """
    use_layout, example_inputs = family.use_layout, family.example_inputs
    if use_layout is None or example_inputs is None or (accelerator.device.type == "cpu" and time_call is None):
        return USUAL
    chosen = USUAL
    if accelerator.is_main_process:
        num = max(1, config.data.batch_size // (accelerator.num_processes * config.accumulate))
        inputs = example_inputs(config.network, num, config.data.patch_px).to(accelerator.device)
        chosen = _measure(network, use_layout, inputs, accelerator, time_call or time_steps)
    [chosen] = broadcast_object_list([chosen])
    use_layout(network, LAYOUTS[chosen])
    return chosen


def time_steps(step: Callable[[], object], device: torch.device) -> float:
    """Measure the seconds of a step on a device: the mean of some, after others that compile and warm up."""
    for _ in range(WARM_STEPS):
        step()
    _wait(device)
    start = time.perf_counter()
    for _ in range(TIMED_STEPS):
        step()
    _wait(device)
    return (time.perf_counter() - start) / TIMED_STEPS


def _measure(
    network: nn.Module,
    use_layout: Callable[[nn.Module, torch.memory_format], None],
    inputs: Tensor,
    accelerator: Accelerator,
    time_call: Callable[[Callable[[], object], torch.device], float],
) -> str:
    """Time a step in each layout; returns the name of the fastest."""

    def step() -> None:
        with accelerator.autocast():
            output: Any = network(inputs)
        output.rgb.mean().backward()

    seconds: dict[str, float] = {}
    try:
        for name, layout in LAYOUTS.items():
            use_layout(network, layout)
            seconds[name] = time_call(step, accelerator.device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        seconds = {USUAL: 0.0}
    finally:
        network.zero_grad(set_to_none=True)
    free_cached_memory()
    chosen = min(seconds, key=lambda name: seconds[name])
    if len(seconds) > 1:
        figures = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in seconds.items())
        log.info("memory layout of the network: %s (a step: %s)", chosen, figures)
    return chosen


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
