"""Compile the CPU kernels: the decorator, their cache on disk, thread counts, and a bit cast that numba lacks.

Compiled kernels are cached in ``$NUMBA_CACHE_DIR``, by default ``~/.cache/splatfix/kernels``, or beside this file if
the home folder cannot be written to. They are found by the content of their sources, the versions of the compiler and
the processor, not by path and time as in numba's own cache. So all copies of the same sources share them: another
checkout, another Ray job, an image whose kernels were compiled when it was built.

A change of any file in the folder of a kernel or in ``splatfix.rendering`` recompiles it, because kernels inline
functions of those. Constants of other modules (`metrics`, `gaussians`) are compiled in: they are published definitions
and do not change.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from llvmlite import binding as llvm
from llvmlite import ir
from numba import njit, types
from numba.core import caching
from numba.extending import intrinsic

# ``parallel=True`` is for ``prange`` only. numba would also run every ``np.zeros`` and ``array[:] = 0`` on threads,
# which takes seconds to compile. (So expressions of whole arrays are not possible inside ``prange``.)
NOT_PARALLEL = ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion")


def _digest_files(files: Iterable[Path]) -> str:
    """Return a digest of the contents of source files, in their order."""
    contents = (hashlib.sha256(file.read_bytes()).digest() for file in files)
    return hashlib.sha256(b"".join(contents)).hexdigest()


def _digest_package(file: str) -> str:
    """Return a digest of a file and of the Python files beside it."""
    return _digest_files([Path(file), *sorted(Path(file).parent.glob("*.py"))])


# A folder for each processor: numba's index of a folder is not safe with machines that write different code.
TARGET = f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"
COMPILER = f"{numba.__version__} {llvmlite.__version__} {np.__version__} {TARGET}"
SOURCES_DIGEST = _digest_files([Path(__file__), *sorted((Path(__file__).parent / "rendering").rglob("*.py"))])


class _ContentLocator(caching._CacheLocator):
    """Locates the compiled kernels of a file by the content of their sources."""

    def __init__(self, py_func: Callable, py_file: str) -> None:
        self._line = py_func.__code__.co_firstlineno
        self._digest = hashlib.sha256(f"{COMPILER} {SOURCES_DIGEST} {_digest_package(py_file)}".encode())
        self._folder = cache_folder() / f"{py_func.__module__}-{self._digest.hexdigest()[:16]}"

    @classmethod
    def from_function(cls, py_func: Callable, py_file: str) -> _ContentLocator | None:
        return cls(py_func, py_file) if os.path.isfile(py_file) else None

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return self._digest.hexdigest()

    def get_disambiguator(self) -> str:
        return str(self._line)


class _Impl(caching.CompileResultCacheImpl):
    _locator_classes = [_ContentLocator]  # noqa: RUF012 (as in numba)


class _ContentCache(caching.FunctionCache):
    """numba's cache with `_ContentLocator`; where nothing can be written, it is read alone.

    A damaged file of it (a power cut) is deleted, and the kernel compiled again.
    """

    _impl_class = _Impl

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # of many kinds, from unpickling and from LLVM
            with contextlib.suppress(OSError):
                os.unlink(self._cache_file._index_path)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)


@functools.cache
def cache_folder() -> Path:
    """Return the folder of the compiled kernels."""
    if "NUMBA_CACHE_DIR" in os.environ:
        return Path(os.environ["NUMBA_CACHE_DIR"])
    folder = Path("~/.cache/splatfix/kernels").expanduser()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder if os.access(folder, os.W_OK) else Path(__file__).parent / "__pycache__"


def kernel(*, parallel: bool = False, fastmath: bool = False) -> Callable[[Callable], Callable]:
    """Decorate a kernel: ``numba.njit`` with numpy's division (no exceptions), cached on disk if possible."""

    def decorate(function: Callable) -> Callable:
        function = inspect.unwrap(function)  # the tests' type checks wrap every function; numba needs the original
        loops = dict.fromkeys(NOT_PARALLEL, False) if parallel else False
        options: dict[str, Any] = {"parallel": loops, "fastmath": fastmath, "error_model": "numpy"}
        dispatcher = njit(**options)(function)
        with contextlib.suppress(RuntimeError):  # "cannot cache function": it is in no file
            dispatcher._cache = _ContentCache(function)
        return dispatcher

    return decorate


def is_compiled(dispatcher: Any) -> bool:
    """Whether any variant of a kernel is in the cache on disk, or compiled in this process."""
    if dispatcher.signatures:
        return True
    cache = dispatcher._cache
    return isinstance(cache, _ContentCache) and any(Path(cache.cache_path).glob(f"*{dispatcher.__name__}*.nbi"))


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
