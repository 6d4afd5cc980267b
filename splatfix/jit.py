"""How the CPU kernels are compiled: one decorator, and a bit cast that numba lacks.

Compiled kernels are kept beside the source (``__pycache__``), or in the user's cache directory where the install is
read-only (``NUMBA_CACHE_DIR`` overrides both). Where neither can be written, kernels are compiled in every process.
A kernel compiles anew when its own file or one of ``splatfix.rendering`` changes: it may inline functions of those.
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

# Of ``parallel=True`` only ``prange``: numba would also make threads' work, and seconds of compilation, of every
# ``np.zeros`` and ``array[:] = 0``. (The price: no expressions of whole arrays inside ``prange``.)
NOT_PARALLEL = ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion")


def _stamp(files: Iterable[Path]) -> tuple[float, int]:
    """Newest time and total size of source files."""
    stats = [file.stat() for file in files]
    return max((stat.st_mtime for stat in stats), default=0.0), sum(stat.st_size for stat in stats)


SOURCES = _stamp([Path(__file__), *sorted((Path(__file__).parent / "rendering").rglob("*.py"))])


def kernel(*, parallel: bool = False, fastmath: bool = False) -> Callable[[Callable], Callable]:
    """``numba.njit`` with numpy's division (no exceptions) and an on-disk cache where there is a place for one."""

    def compiled(function: Callable) -> Callable:
        function = inspect.unwrap(function)  # tests check types by wrapping every function; numba needs the bare one
        loops = dict.fromkeys(NOT_PARALLEL, False) if parallel else False
        options: dict[str, Any] = {"parallel": loops, "fastmath": fastmath, "error_model": "numpy"}
        try:
            dispatcher = njit(cache=True, **options)(function)
        except RuntimeError as error:  # "cannot cache function: no locator available": nowhere is writable
            if "cannot cache" not in str(error):
                raise
            return njit(**options)(function)
        # numba knows a kernel that is out of date by the stamp of its own file alone
        file = dispatcher._cache._cache_file
        file._source_stamp = (file._source_stamp, SOURCES)
        return dispatcher

    return compiled


@contextmanager
def threads_for(work: int, least: int) -> Iterator[int]:
    """Run kernels on as many threads as find ``least`` of the work each; gives their number.

    A sleeping thread takes 0.1 ms to wake, so that small work is done sooner without it.
    """
    available = numba.get_num_threads()
    num = max(1, min(available, work // least))
    numba.set_num_threads(num)
    try:
        yield num
    finally:
        numba.set_num_threads(available)


@intrinsic
def bits_from_float(_typing_context, _value):
    """The bit pattern of a float32, as uint32."""

    def generate(_context, builder, _signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), generate
