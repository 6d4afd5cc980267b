"""The loss on CUDA: Triton's kernels interpreted on the CPU beside torch in float64, and compiled for a GPU."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

module = import_module("splatfix.rendering.ssim")  # the package has a function of this name
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


def run_module(name: str, **variables: str) -> str:
    """Run a module of these tests in a process with these environment variables; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.rendering.{name}"],
        cwd=Path(__file__).resolve().parents[2],
        env={key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"} | variables,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@needs_triton
def test_interpreted_kernels_agree_with_torch_in_value_and_gradient() -> None:
    rows = json.loads(run_module("interpreted_loss", TRITON_INTERPRET="1"))
    assert len(rows) == 36
    for setting, value_error, gradient_error, gradient_norm in rows:
        assert value_error < 1e-6, setting
        assert gradient_error < 1e-5 * gradient_norm + 1e-9, setting


@needs_triton
def test_kernels_compile_for_a_gpu_that_is_not_there(tmp_path) -> None:
    lines = run_module("compile_kernels", TRITON_CACHE_DIR=str(tmp_path)).splitlines()
    assert len(lines) == 4 and all(int(line.split()[1]) > 1000 for line in lines)


def test_one_place_chooses_and_says_where_triton_fails(monkeypatch, caplog) -> None:
    module.choose_loss.cache_clear()
    assert module.choose_loss(torch.device("meta")) is module.l1_and_ssim_with_torch
    assert module.choose_loss(torch.device("cpu")) is not module.l1_and_ssim_with_torch
    with monkeypatch.context() as patch:
        patch.setattr(module, "find_spec", lambda _: None)
        assert module.choose_loss(torch.device("cuda", 2)) is module.l1_and_ssim_with_torch
    assert not caplog.records
    if not torch.cuda.is_available() and find_spec("triton") is not None:
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                assert module.choose_loss(torch.device("cuda", 3)) is module.l1_and_ssim_with_torch
        assert [message.split(" (")[0] for message in caplog.messages] == [
            "the loss is computed with torch, since Triton fails"
        ]
    module.choose_loss.cache_clear()


class Kernels(TorchDispatchMode):
    """Counts what torch would launch: operations that compute; those of shapes and of new memory are free."""

    FREE = (
        "view",
        "detach",
        "permute",
        "transpose",
        "expand",
        "t.",
        "empty",
        "slice",
        "select",
        "unbind",
        "squeeze",
        "alias",
    )

    def __init__(self) -> None:
        super().__init__()
        self.num = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.num += not any(str(func).startswith(f"aten.{name}") for name in self.FREE)
        return func(*args, **(kwargs or {}))


def test_torch_needs_many_times_the_kernels() -> None:
    a, b = torch.rand(2, 16, 16, 3)
    a.requires_grad_()
    with Kernels() as kernels:
        module.l1_and_ssim_with_torch(a, b, 0.2).backward()
    assert kernels.num > 50  # Triton: 4, and a few for sums of blocks and the factor of the gradient
