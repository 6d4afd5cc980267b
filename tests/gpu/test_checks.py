"""The GPU checks: on CUDA where there is one, themselves on the CPU, and alone in an interpreter with little else."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tests.gpu.checks import CHECKS, Skip

# all that splatfix and its tests depend on but torch, numpy, numba and gsplat, by the names that are imported
OTHERS = (
    *("PIL", "accelerate", "beartype", "imageio", "jaxtyping", "jinja2", "matplotlib", "obstore", "plyfile"),
    *("pycolmap", "pydantic", "pytest", "ray", "safetensors", "scipy", "timm", "torchmetrics", "torchvision", "tqdm"),
    *("tyro", "viser", "webdataset", "yaml"),
)
LIGHT = "splatfix.rendering.cpu, splatfix.rendering.cuda, splatfix.splats.train, splatfix.splats.initialization"


def run_without(names: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code where these packages cannot be imported."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({names}))\n{code}"
    return subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, check=False, timeout=300)


def run(check: str, device: str) -> None:
    try:
        CHECKS[check](device)
    except Skip as skip:
        pytest.skip(str(skip))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("check", CHECKS)
def test_on_cuda(check: str) -> None:
    run(check, "cuda")


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(name, marks=pytest.mark.slow) if "bfloat16" in name else name  # slow without kernels for it
        for name in CHECKS
        if "crowded" not in name and "antialiased" not in name
    ],
)
def test_the_checks_hold_on_the_cpu(check: str) -> None:
    run(check, "cpu")


def test_kernels_fits_and_networks_import_with_torch_numpy_and_numba_alone() -> None:
    done = run_without((*OTHERS, "gsplat"), f"import {LIGHT}, splatfix.restoration.nafnet.network")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="the checks run in full with make gpu-check")
def test_the_runner_skips_with_a_reason_without_cuda_and_needs_nothing_else() -> None:
    blocked = (*OTHERS, "numba", "gsplat")
    done = run_without(blocked, "import runpy; runpy.run_module('tests.gpu.run', run_name='__main__')")
    assert done.returncode == 0, done.stderr
    first, *lines, last = done.stdout.splitlines()
    assert "without gsplat, without numba" in first
    assert len(lines) == len(CHECKS)
    assert all("skipped: no CUDA device" in line for line in lines)
    assert last == f"0 passed, 0 failed, {len(CHECKS)} skipped"
