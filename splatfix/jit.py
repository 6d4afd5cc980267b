"""Compile the CPU kernels: the decorator, thread counts, and a bit cast that numba lacks.

Compiled kernels are cached beside the source (``__pycache__``), or in the user's cache directory if the installation is
read-only (``NUMBA_CACHE_DIR`` overrides both). If neither is writable, every process compiles them again. A change of
the file of a kernel or of any file in ``splatfix.rendering`` recompiles it, because kernels inline functions of those.
Constants of other modules (`metrics`, `gaussians`) are compiled in: they are published definitions and do not change.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

# ``parallel=True`` is for ``prange`` only. numba would also run every ``np.zeros`` and ``array[:] = 0`` on threads,
# which takes seconds to compile. (So expressions of whole arrays are not possible inside ``prange``.)
NOT_PARALLEL = ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion")


def _stamp_files(files: Iterable[Path]) -> tuple[float, int]:
    """Return the newest modification time and the total size of source files."""
    stats = [file.stat() for file in files]
    return max((stat.st_mtime for stat in stats), default=0.0), sum(stat.st_size for stat in stats)


SOURCES_STAMP = _stamp_files([Path(__file__), *sorted((Path(__file__).parent / "rendering").rglob("*.py"))])


def kernel(*, parallel: bool = False, fastmath: bool = False) -> Callable[[Callable], Callable]:
    """Decorate a kernel: ``numba.njit`` with numpy's division (no exceptions), cached on disk if possible."""

    def decorate(function: Callable) -> Callable:
        function = inspect.unwrap(function)  # the tests' type checks wrap every function; numba needs the original
        loops = dict.fromkeys(NOT_PARALLEL, False) if parallel else False
        options: dict[str, Any] = {"parallel": loops, "fastmath": fastmath, "error_model": "numpy"}
        try:
            dispatcher = njit(cache=True, **options)(function)
        except RuntimeError as error:  # "cannot cache function: no locator available": no folder is writable
            if "cannot cache" not in str(error):
                raise
            return njit(**options)(function)
        # numba itself compares only the stamp of the file that the kernel is in
        file = dispatcher._cache._cache_file
        file._source_stamp = (file._source_stamp, SOURCES_STAMP)
        return dispatcher

    return decorate


@contextmanager
def limit_threads(work: int, min_work: int) -> Iterator[int]:
    """Limit kernels to as many threads as get at least ``min_work`` of the ``work`` each; yields their number.

    Waking a thread takes 0.1 ms, so small work finishes sooner on fewer threads.
    """
    available = numba.get_num_threads()
    num = max(1, min(available, work // min_work))
    numba.set_num_threads(num)
    try:
        yield num
    finally:
        numba.set_num_threads(available)


@intrinsic
def bits_from_float(_typing_context, _value):
    """Reinterpret the bits of a float32 as uint32."""

    def generate(_context, builder, _signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), generate
