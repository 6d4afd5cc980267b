"""What this machine can do at most: multiply-adds and bytes per second, measured."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import numba
import numpy as np
from numba import prange, uint64

from splatfix.jit import kernel
from splatfix.rendering.cpu.lanes import LANES, allocate_aligned, broadcast, load, store

CHAINS = 12  # independent multiply-adds in flight


@kernel(parallel=True)
def _multiply_add(num, num_threads, out):
    for thread in prange(num_threads):
        numbers = allocate_aligned(2 * LANES)
        numbers[:LANES] = 0.5
        numbers[LANES:] = 1
        a, b = load(numbers, uint64(0)), load(numbers, uint64(LANES))
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = s10 = s11 = broadcast(numbers[0])
        for _ in range(num):
            s0, s1, s2, s3 = s0 * a + b, s1 * a + b, s2 * a + b, s3 * a + b
            s4, s5, s6, s7 = s4 * a + b, s5 * a + b, s6 * a + b, s7 * a + b
            s8, s9, s10, s11 = s8 * a + b, s9 * a + b, s10 * a + b, s11 * a + b
        store(numbers, uint64(0), s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7 + s8 + s9 + s10 + s11)
        out[thread] = numbers[0]


@kernel(parallel=True)
def _copy(source, target, num_threads):
    n = len(source)
    for thread in prange(num_threads):
        low, high = n * thread // num_threads, n * (thread + 1) // num_threads
        target[low:high] = source[low:high]


def _best(action, repeats: int = 7) -> float:
    action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def peaks() -> dict:
    """Threads, processor, multiply-adds (1e9 float32 per second) and memory copied (1e9 bytes read per second)."""
    threads = numba.get_num_threads()
    num, out = 400_000, np.zeros(threads)
    seconds = _best(lambda: _multiply_add(num, threads, out))
    source = np.ones(16 << 20, np.float32)
    target = np.empty_like(source)
    copied = _best(lambda: _copy(source, target, threads))
    return {
        "threads": threads,
        "processor": _processor(),
        "compiled_for": os.environ.get("NUMBA_CPU_NAME", "this processor"),
        "multiply_adds_per_ns": num * CHAINS * LANES * threads / seconds / 1e9,
        "copied_bytes_per_ns": source.nbytes / copied / 1e9,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
