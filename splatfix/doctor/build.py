"""Compile ahead of time what splatfix compiles on first use, for images and for nodes that were just started."""

from __future__ import annotations

import logging
import os
import time

import torch

from splatfix.cuda_setup import find_gsplat_obstacle, find_toolkit, is_gsplat_compiled, load_gsplat
from splatfix.errors import RunAborted
from splatfix.files import scratch_folder
from splatfix.process import hidden_bars, quiet


def build_kernels() -> None:
    """Compile the CPU kernels, and gsplat where there is a CUDA toolkit; prints how long each took.

    The GPU architectures are those of TORCH_CUDA_ARCH_LIST, or of this machine's GPUs. The results are kept in
    NUMBA_CACHE_DIR and TORCH_EXTENSIONS_DIR, or in the default folders of numba and torch.
    """
    start = time.monotonic()
    _run_kernels()
    print(f"kernels for CPUs: {time.monotonic() - start:.0f} s")
    if find_toolkit() is None and not is_gsplat_compiled():
        print("gsplat for CUDA: left out, there is no nvcc (needed on machines with GPUs: install the CUDA toolkit)")
        return
    if not torch.cuda.is_available() and not os.environ.get("TORCH_CUDA_ARCH_LIST"):
        print(
            "gsplat for CUDA: left out, there is no GPU; TORCH_CUDA_ARCH_LIST='8.9;9.0' names those of other machines"
        )
        return
    start = time.monotonic()
    obstacle = find_gsplat_obstacle() or load_gsplat()
    if obstacle is not None:
        raise RunAborted(obstacle)
    print(f"gsplat for CUDA: {time.monotonic() - start:.0f} s")


def _run_kernels() -> None:
    """Run each CPU kernel once: a tiny generation of pairs from the sample capture."""
    from splatfix.pairs.config import GenerateConfig
    from splatfix.pairs.generate import generate
    from splatfix.pairs.recipes import Recipe
    from splatfix.sample import sample_path
    from splatfix.workers import WorkersConfig

    recipe = Recipe(size_px=32, steps=5, num_train=(3, 3), max_views=2)
    config = GenerateConfig(fits_per_capture=1, device="cpu", recipes={"photos": recipe}, workers=WorkersConfig(num=0))
    with scratch_folder("build") as folder, quiet("splatfix", level=logging.ERROR), hidden_bars():
        generate([str(sample_path())], str(folder), config)
