"""The sections of ``python -m tests.gpu.run --out DIR``: what is measured and checked on a borrowed GPU.

Each is run in a separate process with a limit of time. It gets a `Report` and saves it after each row, so that what was
measured stays if the process is stopped. Imports torch and numpy; more only where a section names it in ``needs``.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from tests.gpu.checks import CHECKS, Skip
from tests.gpu.fits import measure_fit, measure_loss, resume_fit, run_fits_side_by_side

SIZES_PX = (320, 960, 1600)
STEREO_PX = ((640, 480), (1600, 1200))
STRATEGIES = ("none", "default", "mcmc")
PACKAGES = ("torch", "gsplat", "numpy", "numba", "timm", "accelerate", "torchmetrics", "ninja")


@dataclass
class Report:
    """What a section has found so far: figures in rows, and checks by name (passed, failed or skipped, and why)."""

    path: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    checks: dict[str, str] = field(default_factory=dict)

    def row(self, **values: Any) -> None:
        """Add a row and save."""
        rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}
        print("  " + ", ".join(f"{name} {value}" for name, value in rounded.items()), flush=True)
        self.rows.append(rounded)
        self.save()

    def check(self, name: str, action: Callable[[], object]) -> None:
        """Run a check and save its outcome: an assertion or any other error is a failure, and the rest goes on."""
        try:
            action()
            outcome = "passed"
        except Skip as skip:
            outcome = f"skipped: {skip}"
        except Exception as error:
            outcome = f"failed: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        print(f"  {name}: {outcome}", flush=True)
        self.checks[name] = outcome
        self.save()

    def save(self) -> None:
        """Write rows and checks to the file of the section."""
        aside = self.path.with_suffix(".partial")
        aside.write_text(json.dumps({key: value for key, value in asdict(self).items() if key != "path"}))
        aside.replace(self.path)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section.

    Attributes:
        does: what it measures or checks, for people.
        needs: packages that it cannot do without.
        needs_cuda: whether it makes sense without a GPU.
        seconds: longest time.
        run: fills a report for a device.
    """

    does: str
    run: Callable[[Report, str], None]
    needs: tuple[str, ...] = ()
    needs_cuda: bool = True
    seconds: float = 60.0

    def find_lacks(self, device: str) -> list[str]:
        """List what the section needs and this machine lacks."""
        lacks = [name for name in self.needs if find_spec(name) is None]
        if self.needs_cuda and device == "cuda" and not torch.cuda.is_available():
            built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
            lacks.insert(0, f"a CUDA device (torch {torch.__version__}, built {built})")
        return lacks


def describe_environment(report: Report, device: str) -> None:  # noqa: ARG001 - as all sections
    from splatfix import cuda_setup

    for package in PACKAGES:
        try:
            report.row(what=package, value=version(package))
        except PackageNotFoundError:
            report.row(what=package, value="missing")
    report.row(what="Python", value=platform.python_version())
    report.row(what="CUDA of torch", value=torch.version.cuda or "none")
    report.row(what="nvcc", value=_first_line("nvcc", "--version") or "missing")
    report.row(what="driver", value=_first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"))
    report.row(what="CPU cores", value=os.cpu_count())
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        report.row(what="GPU", value=properties.name)
        report.row(what="GPU memory, GB", value=properties.total_memory / 1e9)
        report.row(what="capability", value=f"{properties.major}.{properties.minor}")
    report.row(what="obstacle", value=cuda_setup.find_obstacle() or "none")


def _first_line(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    lines = [line for line in done.stdout.splitlines() if "release" in line or command[0] != "nvcc"]
    return lines[0].strip() if lines else ""


def build_gsplat(report: Report, device: str) -> None:  # noqa: ARG001
    """Compile gsplat, and keep the module beside the results, so that it can be carried next time."""
    from splatfix import cuda_setup

    start = time.perf_counter()
    obstacle = cuda_setup.load_gsplat()
    report.row(what="build or load", seconds=time.perf_counter() - start, obstacle=obstacle or "none")
    from torch.utils.cpp_extension import _get_build_directory

    built = Path(_get_build_directory("gsplat_cuda", verbose=False))
    for module in built.glob("*.so"):
        kept = report.path.parent / "gsplat_build" / module.name
        kept.parent.mkdir(exist_ok=True)
        shutil.copyfile(module, kept)
        report.row(what=module.name, megabytes=kept.stat().st_size / 1e6)

    def check() -> None:
        assert obstacle is None, obstacle

    report.check("gsplat is built", check)


def check_parity(report: Report, device: str) -> None:
    for name, check in CHECKS.items():
        report.check(name, partial(check, device))


def measure_fits(report: Report, device: str) -> None:
    for size_px in SIZES_PX:
        report.row(**measure_loss(device, size_px))
    for size_px in SIZES_PX:
        for strategy in STRATEGIES:
            report.row(**measure_fit(device, size_px=size_px, strategy=strategy))


def measure_stereo(report: Report, device: str) -> None:
    """Where the start of a fit spends its time: a photo with three neighbors, and descriptors of two photos."""
    from tests.gpu.stereo import compare_matches, compare_stereo

    report.row(**compare_matches(device))
    for size in STEREO_PX:
        found = compare_stereo(device, *size)
        report.row(**found)

        def check(found: dict[str, Any] = found) -> None:
            assert max(found["masks_differ"], found["depths_differ"]) < 2e-3, found

        report.check(f"the same depths on both devices, {found['stereo']}", check)


def resume(report: Report, device: str) -> None:
    for strategy in STRATEGIES:
        found = resume_fit(device, strategy=strategy)
        report.row(**found)

        def check(found: dict[str, Any] = found) -> None:
            allowed = max(3 * found["spread_db"], 0.05)
            assert abs(found["resumed_db"] - found["whole_db"]) <= allowed, found

        report.check(f"a resumed fit is as good as a whole one, {strategy}", check)


def compare_metrics(report: Report, device: str) -> None:
    """Metrics of a render of 1600 x 1200 px on the device and on the CPU."""
    from splatfix.metrics import compute_metrics

    generator = torch.Generator().manual_seed(0)
    photo = F.interpolate(torch.rand(1, 3, 60, 80, generator=generator), size=(1200, 1600), mode="bilinear")
    photo = photo[0].permute(1, 2, 0)
    render = (photo + 0.05 * torch.randn(photo.shape, generator=generator)).clamp(0, 1)
    found = {}
    for place in dict.fromkeys((device, "cpu")):
        images = render.to(place), photo.to(place)
        compute_metrics(*images)
        start = time.perf_counter()
        found[place] = compute_metrics(*images)[0]
        report.row(place=place, seconds=time.perf_counter() - start, **{k: v for k, v in found[place].items() if v})

    def check() -> None:
        for name, value in found["cpu"].items():
            assert value is None or abs(found[device][name] - value) < 1e-6, (name, found)

    report.check("the same metrics on both devices", check)


def time_training(report: Report, device: str) -> None:
    """Steps a second of a NAFNet of width 32 on 8 crops of 128 px: precision, layout, and with torch.compile."""
    from splatfix.restoration.nafnet.network import GuidedNet, NetworkConfig, use_layout

    config = NetworkConfig(width=32, enc_blocks=(1, 1, 1, 2), mid_blocks=2)
    inputs = torch.rand(8, config.in_channels, 128, 128, device=device)
    clean = torch.rand(8, 3, 128, 128, device=device)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for layout in (torch.contiguous_format, torch.channels_last):
            for compiled in (False, True):
                torch.manual_seed(0)
                network = GuidedNet(config).to(device)
                use_layout(network, layout)
                forward = torch.compile(network) if compiled else network
                optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

                def step(forward: Any = forward, optimizer: Any = optimizer, dtype: Any = dtype) -> None:
                    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                        rgb = forward(inputs).rgb
                    optimizer.zero_grad()
                    (rgb.float() - clean).abs().mean().backward()
                    optimizer.step()

                case = {"dtype": str(dtype)[6:], "layout": str(layout)[6:], "compile": compiled}
                try:
                    report.row(**case, steps_per_second=1 / time_call(step, device))
                except Exception as error:
                    report.row(**case, error=f"{type(error).__name__}: {str(error).strip().splitlines()[0][:100]}")


def time_restorer(report: Report, device: str) -> None:
    """The shipped network (with random weights) on a view of 1600 x 1200 px."""
    from splatfix.restoration.nafnet.network import GuidedNet, NetworkConfig

    config = NetworkConfig()
    network = GuidedNet(config).to(device).eval()
    inputs = torch.rand(1, config.in_channels, 1200, 1600, device=device)
    for dtype in (torch.float32, torch.bfloat16):
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        with torch.inference_mode(), torch.autocast(device, dtype, enabled=dtype != torch.float32):
            seconds = time_call(lambda: network(inputs), device, repeats=5)
        peak = torch.cuda.max_memory_allocated() / 1e9 if device != "cpu" else None
        report.row(dtype=str(dtype)[6:], seconds=seconds, peak_gb=peak)


def share_device(report: Report, device: str) -> None:
    """Steps a second of 1, 2, 4 and 8 processes that fit at 320 px on one device."""
    for num in (1, 2, 4, 8):
        report.row(processes=num, steps_per_second=run_fits_side_by_side(num, device))


BREAK = """
import torch
from splatfix.workers.cuda_errors import breaks_cuda
try:
    torch.zeros(1, device="cuda")[torch.tensor([10 ** 6], device="cuda")].cpu()
except RuntimeError as error:
    assert breaks_cuda(error), f"not recognized: {error}"
    print("recognized")
"""
FILL = """
import torch
from splatfix.workers.cuda_errors import breaks_cuda, is_out_of_memory, retry_with_free_memory
torch.cuda.set_per_process_memory_fraction(0.1)
kept = [torch.empty(torch.cuda.get_device_properties(0).total_memory // 16, dtype=torch.uint8, device="cuda")]
def task():
    return torch.empty(torch.cuda.get_device_properties(0).total_memory // 16, dtype=torch.uint8, device="cuda")
def first_try():
    try:
        return task()
    except Exception as error:
        assert is_out_of_memory(error) and not breaks_cuda(error), error
        kept.clear()
        raise
retry_with_free_memory(first_try)
print("recovered")
"""


def check_faults(report: Report, device: str) -> None:  # noqa: ARG001
    """In separate processes, since CUDA is broken afterwards in the first one."""

    def run(code: str, wanted: str) -> None:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
        assert wanted in done.stdout, (done.stdout + done.stderr)[-300:]

    report.check("an illegal access breaks the process", partial(run, BREAK, "recognized"))
    report.check("a full GPU is freed and the call repeated", partial(run, FILL, "recovered"))


def time_call(call: Callable[[], object], device: str, repeats: int = 10) -> float:
    """Time a call on a device in seconds: the median after two calls to warm up."""
    seconds = []
    for index in range(repeats + 2):
        start = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        if index >= 2:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


SECTIONS: dict[str, Section] = {  # in order of worth
    "environment": Section(
        does="versions of packages, compiler and driver, and what keeps gsplat from running",
        run=describe_environment,
        needs_cuda=False,
        seconds=60,
    ),
    "build": Section(does="gsplat compiled, timed and kept", run=build_gsplat, needs=("gsplat",), seconds=300),
    "parity": Section(
        does="images, gradients, fits and networks against the CPU", run=check_parity, needs=("gsplat",), seconds=120
    ),
    "fits": Section(
        does="steps a second at 320, 960 and 1600 px for each strategy: host against GPU, memory, slowest kernels, "
        "PSNR and its spread over runs, beside gsplat alone",
        run=measure_fits,
        needs=("gsplat",),
        seconds=180,
    ),
    "stereo": Section(
        does="depths of a photo of 640 and 1600 px and matches of 4096 descriptors: seconds and memory beside the CPU "
        "kernels, and how they differ",
        run=measure_stereo,
        needs=("numba",),
        seconds=120,
    ),
    "resume": Section(
        does="a fit saved half way and resumed, beside a whole one", run=resume, needs=("gsplat",), seconds=60
    ),
    "metrics": Section(
        does="metrics of a 1600 x 1200 px render on the device and on the CPU",
        run=compare_metrics,
        needs_cuda=False,
        seconds=60,
    ),
    "training": Section(
        does="NAFNet's training steps a second for each precision, layout and torch.compile",
        run=time_training,
        seconds=150,
    ),
    "workers": Section(
        does="1, 2, 4 and 8 processes that fit on one GPU", run=share_device, needs=("gsplat",), seconds=120
    ),
    "restorer": Section(does="the shipped network on a 1600 x 1200 px view, time and memory", run=time_restorer),
    "faults": Section(
        does="an illegal access is recognized, and a full GPU recovered from",
        run=check_faults,
        needs=("tqdm",),
        seconds=90,
    ),
}


def run_section(name: str, path: Path, device: str) -> None:
    """Run a section in this process; what it finds is in a file from the first row on."""
    report = Report(path)
    report.save()
    SECTIONS[name].run(report, device)
