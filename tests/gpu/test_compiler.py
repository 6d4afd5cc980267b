"""CUDA's compiler builds gsplat for sm_90 on a machine without a GPU.

One of its sources takes seconds. All of them, through the same code that a worker runs, take ten minutes of one core,
and are built where SPLATFIX_BUILD_GSPLAT=1 (``make gsplat-build``); what was built is kept in pytest's cache for the
same gsplat, torch and compiler. Nothing of it is run: that needs a GPU (``make gpu-check``).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from sysconfig import get_path

import pytest
import torch

from splatfix.cuda_setup import _nvcc_version, has_headers

ARCHITECTURE = "9.0"
BUILD_SECONDS = 3000
BUILD_ALL = "SPLATFIX_BUILD_GSPLAT"
SOURCE = "ProjectionEWA3DGSFused.cu"  # includes gsplat's own headers, those of glm and those of torch
FUNCTIONS = (
    "projection_ewa_3dgs_fused_fwd",
    "intersect_tile",
    "rasterize_to_pixels_3dgs_bwd",
    "spherical_harmonics_fwd",
)
BUILD = f"""
import json
from splatfix import cuda_setup
obstacle = cuda_setup.find_gsplat_obstacle() or cuda_setup.load_gsplat()
functions = []
if obstacle is None:
    from gsplat.cuda._backend import _C
    functions = [name for name in {FUNCTIONS!r} if hasattr(_C, name)]
print(json.dumps([obstacle, functions]))
"""


def find_toolkits() -> list[Path]:
    """Folders of CUDA toolkits with a compiler and headers: of CUDA_HOME, of nvcc in PATH, the usual one, pip's."""
    named = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    found = shutil.which("nvcc")
    on_path = [] if found is None else [Path(found).resolve().parent.parent]
    of_pip = sorted(Path(get_path("purelib"), "nvidia").glob("cu*"), reverse=True)
    places = [*named, *on_path, Path("/usr/local/cuda"), *of_pip]
    return [place for place in places if (place / "bin/nvcc").is_file() and has_headers(place)]


@pytest.fixture
def toolkit() -> Path:
    """A toolkit that can build gsplat for this torch; the test is skipped, with the reason, where there is none."""
    pytest.importorskip("gsplat")
    if torch.version.cuda is None:
        pytest.skip(f"torch {torch.__version__} is built without CUDA, and has no headers for it")
    for program in ("c++", "ninja"):
        if shutil.which(program) is None and not (Path(sys.executable).parent / program).is_file():
            pytest.skip(f"there is no {program}")
    versions = {place: _nvcc_version(place) or "?" for place in find_toolkits()}
    for place, release in versions.items():
        if release.split(".")[0] == torch.version.cuda.split(".")[0]:
            return place
    if not versions:
        pytest.skip("no CUDA compiler (nvcc) with headers in CUDA_HOME, PATH, /usr/local/cuda or site-packages/nvidia")
    pytest.skip(f"torch is built for CUDA {torch.version.cuda}; nvcc is of CUDA {', '.join(versions.values())}")


@pytest.fixture
def build_folder(toolkit: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Where the kernels are built: the same for the same versions, if pytest has a cache."""
    cache = getattr(request.config, "cache", None)
    names = (version("gsplat"), torch.__version__, _nvcc_version(toolkit))
    return tmp_path if cache is None else Path(cache.mkdir("gsplat-" + "-".join(map(str, names))))


@pytest.mark.slow
def test_a_source_of_gsplat_compiles_for_a_gpu_that_is_not_there(toolkit: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_HOME", str(toolkit))
    cpp_extension = pytest.importorskip("torch.utils.cpp_extension")
    [package] = find_spec("gsplat").submodule_search_locations
    cuda = Path(package) / "cuda"
    headers = (cuda / "include", cuda / "csrc/third_party/glm", *cpp_extension.include_paths("cuda"))
    done = subprocess.run(
        [
            *(toolkit / "bin/nvcc", "-c", cuda / "csrc" / SOURCE, "-o", tmp_path / "source.o"),
            *("-gencode=arch=compute_90,code=sm_90", "-std=c++20", "-O3", "-use_fast_math", "-w"),
            *("--compiler-options", "-fPIC", *cpp_extension.COMMON_NVCC_FLAGS),
            *(f"-I{place}" for place in (*headers, get_path("include"), toolkit / "include")),
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert b"sm_90" in (tmp_path / "source.o").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get(BUILD_ALL) != "1", reason=f"takes ten minutes: {BUILD_ALL}=1, make gsplat-build")
@pytest.mark.timeout(BUILD_SECONDS + 60)
def test_gsplat_builds_for_a_gpu_that_is_not_there(toolkit: Path, build_folder: Path, capsys) -> None:
    environment = {
        **os.environ,
        "CUDA_HOME": str(toolkit),
        "TORCH_CUDA_ARCH_LIST": ARCHITECTURE,
        "TORCH_EXTENSIONS_DIR": str(build_folder),
        "MAX_JOBS": os.environ.get("MAX_JOBS", "1"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", BUILD],
        cwd=Path(__file__).resolve().parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    obstacle, functions = json.loads(done.stdout.strip().splitlines()[-1])
    assert obstacle is None and functions == list(FUNCTIONS)
    [module] = build_folder.glob("**/gsplat_cuda.so")
    assert b"sm_90" in module.read_bytes()
    with capsys.disabled():
        print(f"gsplat for sm_90: {time.monotonic() - start:.0f} s ({toolkit})")
