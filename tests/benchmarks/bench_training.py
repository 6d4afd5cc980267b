"""Benchmarks of training: ``make bench-training``.

``step``: training steps of our network and of a plain implementation of the published one in float32 NCHW, in turn.
``loader``: crops per second of the loader alone. ``processes``: steps per second of one process and of two.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import splatfix  # noqa: F401  (first: it sets how OpenMP waits)

import torch  # isort: skip
from torch import Tensor, nn  # isort: skip

from splatfix.restoration.nafnet.architecture import NAFBlock, NAFNet
from splatfix.restoration.nafnet.network import GuidedNet, NetworkConfig
from splatfix.training.batches import JitterConfig, decode_batch
from splatfix.training.data import DataConfig, open_data
from splatfix.training.losses import charbonnier
from splatfix.training.nafnet import NafnetInputs

Step = Callable[[Tensor, Tensor, Tensor], None]


class PlainLayerNorm2d(nn.Module):
    """Layer norm over channels as published: mean and variance over dimension 1 of NCHW."""

    def __init__(self, channels: int, eps: float = 1e-6):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        y = (x - mean) / (variance + self.eps).sqrt()
        return self.weight.view(1, -1, 1, 1) * y + self.bias.view(1, -1, 1, 1)


class PlainNAFNet(NAFNet):
    """The same network in NCHW throughout, with the plain layer norm."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        for block in [module for module in self.modules() if isinstance(module, NAFBlock)]:
            channels = block.norm1.weight.numel()
            block.norm1, block.norm2 = PlainLayerNorm2d(channels), PlainLayerNorm2d(channels)

    def forward(self, image: Tensor) -> Tensor:
        return self.unet(image)


def network_of(config: NetworkConfig, kind: type[NAFNet]) -> GuidedNet:
    """A network of either implementation, with the same weights."""
    torch.manual_seed(0)
    network = GuidedNet(config)
    for name, parameter in network.named_parameters():  # fresh blocks do nothing
        if name.endswith(("beta", "gamma")):
            nn.init.normal_(parameter, std=0.1)
    inner = network.network
    if kind is not NAFNet:
        sizes = {"width": config.width, "enc_blocks": config.enc_blocks, "dec_blocks": config.dec_blocks}
        other = kind(config.in_channels, config.out_channels, mid_blocks=config.mid_blocks, residual=False, **sizes)
        other.load_state_dict(inner.state_dict())
        network.network = other
    return network


def make_step(network: GuidedNet, *, bfloat16: bool, channels_last: bool) -> Step:
    """A training step: forward, loss, backward, optimizer."""
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def step(inputs: Tensor, clean: Tensor, weight: Tensor) -> None:
        inputs = inputs.contiguous(memory_format=layout)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            output = network(inputs)
        charbonnier(output.rgb, clean, weight).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def bench_step(batch_size: int, patch_px: int, rounds: int, shape: str) -> None:
    """Time our step and the plain one, each in float32 and in bfloat16, in turn."""
    config = NetworkConfig(shape=shape)
    inputs = torch.rand(batch_size, config.in_channels, patch_px, patch_px)
    clean, weight = torch.rand(batch_size, 3, patch_px, patch_px), torch.ones(batch_size, 1, patch_px, patch_px)
    ours, plain = network_of(config, NAFNet), network_of(config, PlainNAFNet)
    with torch.no_grad():
        torch.testing.assert_close(ours(inputs).rgb, plain(inputs).rgb, atol=1e-4, rtol=1e-4)
    steps = {
        "plain, float32 NCHW": make_step(plain, bfloat16=False, channels_last=False),
        "ours, float32 NHWC": make_step(ours, bfloat16=False, channels_last=True),
        "plain, bfloat16 NCHW": make_step(network_of(config, PlainNAFNet), bfloat16=True, channels_last=False),
        "ours, bfloat16 NHWC": make_step(network_of(config, NAFNet), bfloat16=True, channels_last=True),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step(inputs, clean, weight)
            if turn >= 2:
                times[name].append(time.perf_counter() - start)
    base = statistics.median(times["plain, float32 NCHW"])
    num = sum(parameter.numel() for parameter in ours.parameters())
    print(
        f"{shape}: {num / 1e6:.1f} million parameters, {batch_size} crops of {patch_px} px, "
        f"{torch.get_num_threads()} threads, medians of {rounds}:"
    )
    for name, seen in times.items():
        median = statistics.median(seen)
        print(f"  {name:24s}{1000 * median:8.0f} ms   {base / median:.2f} times plain")


def bench_loader(url: str, num: int) -> None:
    """Measure crops per second, as floats on the CPU, without training."""
    network = NetworkConfig()
    for references in (network.num_references, 0):
        for workers in (0, 1, 2):
            config = DataConfig(num_workers=workers, validation_share=0.0)
            inputs = NafnetInputs(NetworkConfig(num_references=references))
            data = open_data(url, config, inputs, 0)
            batches = data.batches(0, segment_steps=250, jitter=JitterConfig())
            next(batches)
            start = time.perf_counter()
            seen = sum(len(decode_batch(b, inputs).inputs) for b in islice(batches, num // config.batch_size))
            rate = seen / (time.perf_counter() - start)
            print(f"  {references} warps, {workers} workers: {rate:6.0f} crops of {config.patch_px} px per second")
            del batches


def bench_processes(url: str, steps: int) -> None:
    """Measure steps per second on the same batches: one process of two threads, and two of one by each launcher."""
    train = ["-m", "splatfix", "train", "--shards", url, "--steps", str(steps), "--segment-steps", str(steps)]
    train += ["--data.validation-share", "0", "--precision", "bfloat16"]
    two = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    kinds = {
        "one process of two threads": ([sys.executable, *train], "2"),
        "torchrun, two processes": ([*two, *train], "1"),
        "Ray Train, two processes": ([sys.executable, *train, "--workers.num", "2"], "1"),
    }
    root = Path(tempfile.mkdtemp(prefix="splatfix-bench-"))
    path = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    found: dict[str, list[dict]] = {}
    for turn in range(2):
        for name, (command, threads) in kinds.items():
            out = root / f"{name}-{turn}"
            subprocess.run(
                [*command, "--out", str(out)],
                env=os.environ | path | {"OMP_NUM_THREADS": threads},
                capture_output=True,
                check=True,
            )
            found.setdefault(name, []).append(json.loads((out / "history.json").read_text())[-1])
    for name, records in found.items():
        rate = statistics.median(1 / record["step_seconds"] for record in records)
        wait = statistics.median(record["data_wait"] for record in records)
        print(f"  {name:28s}{rate:6.2f} steps per second, loss {records[0]['loss']:.7f}, waits for data {wait:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    step = kinds.add_parser("step", help="a step beside a plain implementation")
    step.add_argument("--batch-size", type=int, default=8)
    step.add_argument("--patch-px", type=int, default=128)
    step.add_argument("--rounds", type=int, default=15)
    step.add_argument("--shape", default="small")
    loader = kinds.add_parser("loader", help="the loader alone")
    loader.add_argument("url", help="a folder of pairs")
    loader.add_argument("--crops", type=int, default=800)
    processes = kinds.add_parser("processes", help="one process and two")
    processes.add_argument("url", help="a folder of pairs")
    processes.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    if arguments.kind == "step":
        bench_step(arguments.batch_size, arguments.patch_px, arguments.rounds, arguments.shape)
    elif arguments.kind == "loader":
        bench_loader(arguments.url, arguments.crops)
    else:
        bench_processes(arguments.url, arguments.steps)


if __name__ == "__main__":
    main()
