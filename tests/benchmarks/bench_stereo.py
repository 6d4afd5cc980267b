"""Dense stereo of a photo with three neighbors on the CPU with one thread: the CPU kernels beside torch.

Part of ``make bench``; for other sizes ``python -m tests.benchmarks.bench_stereo 640 480``. The kernels run in separate
processes in turn: other work on the machine slows both, and the peak of memory is that of one. A GPU runs the functions
of torch; how long they take there is a section of ``make gpu-run``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import splatfix  # noqa: F401  (first: it sets how OpenMP waits)

import numba  # isort: skip
import torch  # isort: skip

from tests.gpu.stereo import make_scene, match_first_photo

KERNELS = {"numba": "cpu", "torch": "torch_sweep"}


def stereo(width_px: int, height_px: int, repeats: int) -> list[dict]:
    """The rows of both kernels: milliseconds, and the peak memory beyond that of the process before."""
    spawn = multiprocessing.get_context("spawn")
    pools = {name: ProcessPoolExecutor(1, mp_context=spawn) for name in KERNELS}
    for name, pool in pools.items():
        pool.submit(_match, name, 64, 48).result(timeout=600)  # compiles
    found: dict[str, list[tuple[float, float | None]]] = {name: [] for name in KERNELS}
    for _ in range(repeats):
        for name, pool in pools.items():
            found[name].append(pool.submit(_match, name, width_px, height_px).result(timeout=3600))
    for pool in pools.values():
        pool.shutdown()
    rows = []
    for name, runs in found.items():
        times, peaks = zip(*runs, strict=True)
        peak = None if None in peaks else max(peaks)
        times_ms = {"median_ms": statistics.median(times), "min_ms": min(times)}
        rows.append({"scene": f"{width_px} x {height_px}", "work": f"stereo, {name}", **times_ms, "peak_gb": peak})
    return rows


def _match(name: str, width_px: int, height_px: int) -> tuple[float, float | None]:
    """Match a photo in this process: milliseconds and GB."""
    numba.set_num_threads(1)
    torch.set_num_threads(1)
    kernels = import_module(f"splatfix.splats.stereo.{KERNELS[name]}")
    scene = make_scene(width_px, height_px)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _read_status("VmRSS")
    start = time.perf_counter()
    match_first_photo(scene, kernels, torch.device("cpu"))
    milliseconds, peak = 1000 * (time.perf_counter() - start), _read_status("VmHWM")
    return milliseconds, None if before is None or peak is None else peak - before


def _read_status(field: str) -> float | None:
    """A field of the status of this process in GB; None where there is no such file."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024 / 1e9
    return None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", type=int, nargs=2, metavar="PX", help="width and height of the photo")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    for row in stereo(*arguments.size, arguments.repeats):
        print(", ".join(f"{key} {value:.2f}" if isinstance(value, float) else str(value) for key, value in row.items()))
