"""What this machine can run, and why not the rest."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

import splatfix
from splatfix import cuda_setup
from splatfix.extras import EXTRAS, install_line, missing_packages
from splatfix.lpips_weights import COMMAND, weights_path
from splatfix.restoration.nafnet import SHIPPED_WEIGHTS


@dataclass(frozen=True)
class Finding:
    """One line of the report: what, whether it works, what was seen, and the remedy where it does not."""

    what: str
    works: bool
    seen: str
    remedy: str = ""


def findings() -> list[Finding]:
    """Look at this machine; each check is cheap and changes nothing."""
    return [
        Finding("Python", sys.version_info >= (3, 11), platform.python_version(), "use Python 3.11 or newer"),
        _processor(),
        _cpu_kernels(),
        _cuda(),
        *_packages(),
        _weights(),
        _lpips(),
        _disk(),
        *map(_extra, EXTRAS),
    ]


def print_report() -> None:
    """Print the findings, a line each."""
    print(f"splatfix {splatfix.__version__} on {platform.platform()}")
    for finding in findings():
        mark = "ok " if finding.works else "-- "
        print(f"  {mark} {finding.what:<22} {finding.seen}")
        if not finding.works and finding.remedy:
            print(f"      {'':<22} -> {finding.remedy}")


def _processor() -> Finding:
    cores = os.cpu_count() or 1
    return Finding("processor", True, f"{cores} cores, {torch.get_num_threads()} torch threads")


def _cpu_kernels() -> Finding:
    remedy = "pip install 'numba>=0.61' (needed for fits on the CPU)"
    try:
        import numba
    except ImportError as error:
        return Finding("fits on the CPU", False, f"numba cannot be imported ({error})", remedy)
    vector = torch.backends.cpu.get_cpu_capability()
    note = "" if vector in ("AVX512", "AVX2") else ": expect fits to be several times slower than with AVX2"
    layer = f"numba {numba.__version__}, {numba.get_num_threads()} threads, {vector}{note}"
    return Finding("fits on the CPU", True, layer)


def _cuda() -> Finding:
    obstacle = cuda_setup.find_device_obstacle() or cuda_setup.find_gsplat_obstacle()
    if obstacle is not None:
        seen, _, remedy = obstacle.partition("; ")
        return Finding("fits on CUDA", False, seen, f"{remedy}; until then the CPU is used")
    name = torch.cuda.get_device_name(0)
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    compiled = "gsplat is compiled" if cuda_setup.is_gsplat_compiled() else "gsplat compiles at the first fit"
    return Finding("fits on CUDA", True, f"{torch.cuda.device_count()} x {name}, {memory:.0f} GB; {compiled}")


def _packages() -> list[Finding]:
    wanted = {
        "gsplat": ("gsplat", "pip install gsplat (growth strategies, and CUDA)"),
        "COLMAP captures": ("pycolmap", "pip install pycolmap"),
    }
    lines = []
    for what, (package, remedy) in wanted.items():
        version = _version(package)
        seen = f"{package} is not installed" if version is None else f"{package} {version}"
        lines.append(Finding(what, version is not None, seen, remedy))
    return lines


def _extra(name: str) -> Finding:
    """Whether an extra is installed; nothing of it is imported."""
    extra, missing = EXTRAS[name], missing_packages(name)
    versions = [f"{package} {_version(package)}" for package in extra.packages.values() if package not in missing]
    seen = f"not installed: {', '.join(missing)}" if missing else ", ".join(versions)
    return Finding(f"extra {name}", not missing, seen, f"{install_line(name)} ({extra.serves})")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _weights() -> Finding:
    folder = SHIPPED_WEIGHTS
    if not folder.is_dir():
        return Finding("restorer nafnet", False, "no weights shipped", "train some: splatfix train --help")
    size = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
    return Finding("restorer nafnet", True, f"shipped weights, {size:.1f} MB")


def _lpips() -> Finding:
    """Whether evaluation can measure LPIPS; the weights are not read."""
    path = weights_path()
    if path.is_file():
        return Finding("LPIPS", True, f"{path}, {path.stat().st_size / 2**20:.0f} MB")
    return Finding("LPIPS", False, "no weights of VGG-16: PSNR and SSIM are measured alone", f"{COMMAND} (528 MB)")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return Finding("disk", free > 1, f"{free:.0f} GB free here", "free some: a run takes up to 100 MB")
