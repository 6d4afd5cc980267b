"""Whether Gaussians can be rendered on the GPUs of this machine, or why not: torch, gsplat, and what compiles gsplat.

gsplat ships sources. It compiles itself when ``gsplat.cuda._backend`` is imported for the first time, which takes
minutes, and deletes what another process has compiled so far. So it is imported here alone, under a lock.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from splatfix.files import hold_lock
from splatfix.programs import run_program

log = logging.getLogger(__name__)

BACKEND = "gsplat.cuda._backend"
LEAST_CAPABILITY = (7, 0)  # of gsplat's kernels, which reduce gradients over labeled groups of threads
USUAL_TOOLKIT = Path("/usr/local/cuda")
BUILD_SECONDS = 2700.0  # to wait for another process that compiles


@functools.cache
def find_obstacle() -> str | None:
    """Why this process cannot render on CUDA; None if it can. Compiles gsplat if needed.

    The text is one line, with the remedy behind a semicolon.
    """
    return find_device_obstacle() or find_gsplat_obstacle() or load_gsplat()


def find_device_obstacle() -> str | None:
    """Why torch cannot compute on a GPU of this machine; None if it can."""
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__}, built without CUDA, sees no CUDA device; install a build with CUDA"
    if not torch.cuda.is_available():
        return (
            f"torch {torch.__version__}, built for CUDA {torch.version.cuda}, sees no CUDA device; check the driver "
            "(nvidia-smi) and CUDA_VISIBLE_DEVICES"
        )
    return None


def find_gsplat_obstacle() -> str | None:
    """Why gsplat cannot run, or be compiled, on this machine; None if it can."""
    import torch

    if find_spec("gsplat") is None:
        return "gsplat is not installed; pip install gsplat"
    if torch.cuda.is_available() and (capability := torch.cuda.get_device_capability(0)) < LEAST_CAPABILITY:
        has, least = (".".join(map(str, each)) for each in (capability, LEAST_CAPABILITY))
        return f"{torch.cuda.get_device_name(0)} has compute capability {has}; use a GPU with {least} or newer"
    if is_gsplat_compiled():
        return None
    wanted = torch.version.cuda or "?"
    toolkit = find_toolkit()
    if toolkit is None:
        return (
            f"gsplat is not compiled, and there is no CUDA compiler (nvcc); install the CUDA toolkit {wanted}, or use "
            "an image with compiled gsplat (cluster/Dockerfile)"
        )
    version = _nvcc_version(toolkit)
    if version is not None and version.split(".")[0] != wanted.split(".")[0]:
        return (
            f"gsplat cannot be compiled: {toolkit} is of CUDA {version}, and torch is built for CUDA {wanted}; set "
            f"CUDA_HOME to a toolkit of CUDA {wanted.split('.')[0]}"
        )
    if not has_headers(toolkit):
        return f"gsplat cannot be compiled: {toolkit} has no headers (cuda_runtime.h); install the whole CUDA toolkit"
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        return f"gsplat cannot be compiled: there is no C++ compiler ({compiler}); install g++, or set CXX"
    if shutil.which("ninja") is None and not _own_ninja().is_file():
        return "gsplat cannot be compiled: there is no ninja; pip install ninja"
    return None


def load_gsplat() -> str | None:
    """Import gsplat's kernels, and compile them if that was not done yet; returns why that failed, else None."""
    if shutil.which("ninja") is None and _own_ninja().is_file():  # torch looks for it in PATH alone
        os.environ["PATH"] = f"{_own_ninja().parent}{os.pathsep}{os.environ.get('PATH', '')}"
    folder = _extensions_folder()
    folder.mkdir(parents=True, exist_ok=True)
    waiting = "gsplat: waiting for another process that compiles it"
    with hold_lock(folder / "gsplat.lock", seconds=BUILD_SECONDS, waiting=waiting):
        if not is_gsplat_compiled():
            log.info("gsplat: compiling its kernels for the GPUs of this machine, once; this takes minutes")
            _tell_torch(find_toolkit())
        try:
            backend = importlib.import_module(BACKEND)
        except Exception as error:  # of the compiler, of torch or of gsplat
            sys.modules.pop(BACKEND, None)
            reason = " ".join(str(error).split())[-300:]
            return f"gsplat does not compile ({type(error).__name__}: {reason}); VERBOSE=1 shows more"
    if backend._C is None:
        return "gsplat has no compiled kernels; see its messages above (VERBOSE=1 shows those of the compiler)"
    return None


def find_toolkit() -> Path | None:
    """The folder of the CUDA toolkit; None if there is none with nvcc.

    That of CUDA_HOME or CUDA_PATH, else that of nvcc in PATH, else /usr/local/cuda. An nvcc in PATH may be a wrapper
    outside its toolkit: the first of these folders that has headers, too, is taken.
    """
    given = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if given:
        places = [Path(given)]
    else:
        found = shutil.which("nvcc")
        on_path = [] if found is None else [Path(found).parent.parent, Path(found).resolve().parent.parent]
        places = [*on_path, USUAL_TOOLKIT]
    toolkits = [place for place in places if (place / "bin/nvcc").is_file()]
    return next(filter(has_headers, toolkits), toolkits[0] if toolkits else None)


def _tell_torch(toolkit: Path | None) -> None:
    """Have torch compile with this toolkit, unless the environment names one; torch takes the folder above nvcc."""
    if toolkit is None or os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"):
        return
    os.environ["CUDA_HOME"] = str(toolkit)
    loaded = sys.modules.get("torch.utils.cpp_extension")
    if loaded is not None:  # it has read the environment already
        loaded.CUDA_HOME = str(toolkit)  # type: ignore[attr-defined]


def has_headers(toolkit: Path) -> bool:
    """Whether a CUDA toolkit has the headers that gsplat is compiled with."""
    return any([*toolkit.glob("include/cuda_runtime.h"), *toolkit.glob("targets/*/include/cuda_runtime.h")])


def is_gsplat_compiled() -> bool:
    """Whether gsplat's CUDA kernels are compiled here: in its package, or in the folder of torch's extensions."""
    spec = find_spec("gsplat")
    packages = [Path(place) for place in (spec.submodule_search_locations or ())] if spec is not None else []
    if any(found for package in packages for found in package.glob("csrc*.so")):
        return True
    return any(_extensions_folder().glob("**/gsplat_cuda/gsplat_cuda.so"))


def _extensions_folder() -> Path:
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "torch_extensions"
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR", default))


def _own_ninja() -> Path:
    """The ninja of the environment that runs this process, which need not be activated."""
    return Path(sys.executable).parent / "ninja"


def _nvcc_version(toolkit: Path) -> str | None:
    try:
        done = run_program([toolkit / "bin/nvcc", "--version"], timeout_seconds=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"release (\d+\.\d+)", done.output)
    return found[1] if found else None
