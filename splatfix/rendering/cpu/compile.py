"""How the CPU kernels are compiled: one decorator, and bit casts that numba lacks.

Compiled kernels are kept beside the source (``__pycache__``), or in the user's cache directory where the install is
read-only (``NUMBA_CACHE_DIR`` overrides both). Where neither can be written, kernels are compiled in every process.
numba notices a change of the file that defines a kernel, not of the files that it calls into: after editing a function
that kernels of another file inline, delete ``splatfix/rendering/cpu/__pycache__``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

# What the inner loops may assume: sums in any order (vector reductions), fused multiply-add. NaN and infinity are kept.
REORDERED = {"reassoc", "contract", "nsz", "arcp"}


def kernel(*, parallel: bool = False, fastmath: set[str] | bool = False) -> Callable[[Callable], Callable]:
    """``numba.njit`` with numpy's division (no exceptions) and an on-disk cache where there is a place for one."""

    def compiled(function: Callable) -> Callable:
        function = inspect.unwrap(function)  # tests check types by wrapping every function; numba needs the bare one
        options: dict[str, Any] = {"parallel": parallel, "fastmath": fastmath, "error_model": "numpy"}
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError as error:  # "cannot cache function: no locator available": nowhere is writable
            if "cannot cache" not in str(error):
                raise
            return njit(**options)(function)

    return compiled


@intrinsic
def float_from_bits(_typing_context, _bits):
    """The float32 with the bit pattern of an int32."""

    def generate(_context, builder, _signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def bits_from_float(_typing_context, _value):
    """The bit pattern of a float32, as uint32."""

    def generate(_context, builder, _signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), generate
