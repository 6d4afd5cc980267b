"""Errors of CUDA in a worker's process: memory that may be freed, and a context that no longer works."""

from __future__ import annotations

import gc
import logging
import re
import sys
from collections.abc import Callable
from typing import TypeVar

log = logging.getLogger(__name__)

CUDA_IS_BROKEN = "CUDA no longer works in this process; finished work is kept, and the same command resumes"
_BROKEN = re.compile(r"CUDA (driver )?error|CUBLAS_STATUS|CUDNN_STATUS|NCCL error|device-side assert", re.IGNORECASE)
_NO_MEMORY = re.compile(r"out of memory|ALLOC_FAILED", re.IGNORECASE)
Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of a GPU is full. That breaks nothing."""
    return any(
        type(each).__name__ == "OutOfMemoryError" or (_BROKEN.search(str(each)) and _NO_MEMORY.search(str(each)))
        for each in _chain(error)
    )


def breaks_cuda(error: BaseException) -> bool:
    """Whether CUDA no longer works in this process after an error.

    After an illegal memory access and most other errors, each later call of CUDA in the same process fails at once
    (CUDA Runtime API, "sticky" errors). CUDA is also asked itself, if this process uses it.
    """
    if is_out_of_memory(error):
        return False
    return any(_BROKEN.search(str(each)) for each in _chain(error)) or not _cuda_works()


def retry_with_free_memory(call: Callable[[], Result]) -> Result:
    """Call a function; if the memory of the GPU is full, free what torch has cached, and call it once more."""
    try:
        return call()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        log.warning("out of GPU memory (%s); freeing what is cached, and trying again", str(error).split("\n")[0])
    free_cached_memory()  # the exception and its frames are gone here
    return call()


def free_cached_memory() -> None:
    """Free the memory of the GPU that this process no longer uses, but has kept for later."""
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _cuda_works() -> bool:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error and its causes."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
