"""Whether CUDA is ready, on machines that are only described: no GPU is needed."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from splatfix import cuda_setup, process
from splatfix.doctor import machine
from splatfix.process import choose_device


@pytest.fixture
def gpu(monkeypatch, tmp_path: Path) -> Path:
    """A machine with a GPU, and with all that compiles gsplat for it: the folder with CUDA's toolkit."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA L4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 9))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: SimpleNamespace(total_memory=24 * 2**30))
    toolkit, programs = tmp_path / "cuda", tmp_path / "programs"
    write_program(toolkit / "bin" / "nvcc", 'echo "Cuda compilation tools, release 13.0, V13.0.48"')
    (toolkit / "include").mkdir()
    (toolkit / "include" / "cuda_runtime.h").touch()
    for name in ("c++", "ninja"):
        write_program(programs / name)
    monkeypatch.setenv("CUDA_HOME", str(toolkit))
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(cuda_setup, "_own_ninja", lambda: tmp_path / "own" / "ninja")
    monkeypatch.setattr(cuda_setup.importlib, "import_module", lambda _: SimpleNamespace(_C=object()))
    for cached in (cuda_setup.find_obstacle, process._warn_once):
        cached.cache_clear()
    yield toolkit
    for cached in (cuda_setup.find_obstacle, process._warn_once):
        cached.cache_clear()


def write_program(path: Path, code: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{code}\n")
    path.chmod(0o755)


def fails_to_import(_: str) -> None:
    raise RuntimeError("Error building extension 'gsplat_cuda':\nnvcc fatal")


def remove(path: Path) -> None:
    path.unlink()


FAULTS = {
    "build": (
        lambda m, _: m.setattr(torch.version, "cuda", None),
        ", built without CUDA, sees no CUDA device; install a build with CUDA",
    ),
    "old": (
        lambda m, _: m.setattr(torch.cuda, "get_device_capability", lambda *_: (6, 1)),
        "NVIDIA L4 has compute capability 6.1; use a GPU with 7.0 or newer",
    ),
    "gsplat": (
        lambda m, _: m.setattr(cuda_setup, "find_spec", lambda _: None),
        "gsplat is not installed; pip install gsplat",
    ),
    "nvcc": (
        lambda _, toolkit: remove(toolkit / "bin" / "nvcc"),
        "there is no CUDA compiler (nvcc); install the CUDA toolkit 13.0, or use an image with compiled gsplat",
    ),
    "version": (
        lambda _, toolkit: write_program(toolkit / "bin" / "nvcc", "echo release 12.4, V12.4.131"),
        "is of CUDA 12.4, and torch is built for CUDA 13.0; set CUDA_HOME to a toolkit of CUDA 13",
    ),
    "headers": (
        lambda _, toolkit: remove(toolkit / "include" / "cuda_runtime.h"),
        "has no headers (cuda_runtime.h); install the whole CUDA toolkit",
    ),
    "c++": (lambda m, _: m.setenv("CXX", "no-such-c++"), "there is no C++ compiler (no-such-c++); install g++"),
    "ninja": (
        lambda _, toolkit: remove(toolkit.parent / "programs" / "ninja"),
        "gsplat cannot be compiled: there is no ninja; pip install ninja",
    ),
    "fails": (
        lambda m, _: m.setattr(cuda_setup.importlib, "import_module", fails_to_import),
        "gsplat does not compile (RuntimeError: Error building extension 'gsplat_cuda': nvcc fatal); VERBOSE=1",
    ),
    "empty": (
        lambda m, _: m.setattr(cuda_setup.importlib, "import_module", lambda _: SimpleNamespace(_C=None)),
        "gsplat has no compiled kernels; see its messages",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_auto_takes_the_cpu_and_cuda_is_refused_where_gsplat_cannot_run(gpu, fault, monkeypatch, caplog) -> None:
    apply, message = FAULTS[fault]
    apply(monkeypatch, gpu)
    for _ in range(2):
        assert choose_device("auto").type == "cpu"
    [warning] = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("the GPU is not used: ") and message in warning and "\n" not in warning
    with pytest.raises(ValueError, match=r"^device = 'cuda': .*; or use auto or cpu$"):
        choose_device("cuda")
    if fault != "build":  # restorers need torch alone
        assert choose_device("auto", renders=False) == choose_device("cuda", renders=False) == torch.device("cuda")
    finding = machine._cuda()
    if fault not in ("fails", "empty"):  # which only a build shows
        assert not finding.works and finding.seen in warning and finding.remedy.split("; until")[0] in warning


def test_cuda_is_taken_where_gsplat_is_or_can_be_compiled(gpu, caplog) -> None:
    caplog.set_level("INFO", "splatfix")
    assert choose_device("auto") == torch.device("cuda") and choose_device("cuda:1") == torch.device("cuda", 1)
    assert "compiling its kernels for the GPUs of this machine" in caplog.text
    finding = machine._cuda()
    assert finding.works and "2 x NVIDIA L4, 24 GB; gsplat compiles at the first fit" in finding.seen
    compiled = Path(os.environ["TORCH_EXTENSIONS_DIR"]) / "py311_cu130" / "gsplat_cuda"
    compiled.mkdir(parents=True)
    (compiled / "gsplat_cuda.so").touch()
    (gpu / "bin" / "nvcc").unlink()  # not needed any more
    cuda_setup.find_obstacle.cache_clear()
    assert choose_device("auto") == torch.device("cuda") and machine._cuda().works


def test_the_toolkit_of_a_wrapped_compiler_is_the_one_with_headers(gpu, monkeypatch, tmp_path) -> None:
    """Some machines have an nvcc in PATH that only calls the one in the toolkit."""
    write_program(tmp_path / "local" / "bin" / "nvcc", f'exec {gpu}/bin/nvcc "$@"')
    monkeypatch.delenv("CUDA_HOME")
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}/local/bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(cuda_setup, "USUAL_TOOLKIT", gpu)
    assert cuda_setup.find_toolkit() == gpu
    assert choose_device("auto") == torch.device("cuda")
    assert os.environ["CUDA_HOME"] == str(gpu)  # else torch compiles with the folder above the wrapper
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "local"))
    assert cuda_setup.find_toolkit() == tmp_path / "local"  # as was asked for


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda:2", r"device = 'cuda:2': this machine has 2 CUDA devices, the last is cuda:1"),
        ("mps", "device = 'mps': wanted auto, cpu, cuda or cuda:N"),
        ("meta", "device = 'meta': wanted auto, cpu, cuda or cuda:N"),
        ("cuda:-1", "device = 'cuda:-1': wanted auto, cpu, cuda or cuda:N"),
    ],
)
@pytest.mark.usefixtures("gpu")
def test_other_devices_are_refused(name, message) -> None:
    with pytest.raises(ValueError, match=message):
        choose_device(name)


@pytest.mark.usefixtures("gpu")
def test_ninja_of_an_environment_that_is_not_activated_is_found(tmp_path: Path) -> None:
    (tmp_path / "programs" / "ninja").unlink()
    write_program(tmp_path / "own" / "ninja")
    assert choose_device("auto") == torch.device("cuda")
    assert os.environ["PATH"].startswith(f"{tmp_path / 'own'}:")


def build(folder: str) -> None:
    """Compile as gsplat does: remove what another process has compiled so far, and take a while."""

    def compile_slowly(_: str) -> SimpleNamespace:
        built = Path(folder) / "py311_cu130" / "gsplat_cuda" / "gsplat_cuda.so"
        with (Path(folder) / "log").open("a") as log:
            log.write("start\n" if not built.exists() else "found\n")
        if not built.exists():
            built.parent.mkdir(parents=True)  # an error if another process has begun
            time.sleep(0.5)
            built.touch()
        return SimpleNamespace(_C=object())

    cuda_setup.importlib.import_module = compile_slowly  # type: ignore[assignment]
    sys.exit(0 if cuda_setup.load_gsplat() is None else 1)


@pytest.mark.usefixtures("gpu")
def test_processes_that_start_together_compile_once() -> None:
    folder = os.environ["TORCH_EXTENSIONS_DIR"]
    Path(folder).mkdir()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=build, args=(folder,)) for _ in range(4)]
    for each in processes:
        each.start()
    for each in processes:
        each.join(60)
    assert [each.exitcode for each in processes] == [0] * 4
    assert sorted((Path(folder) / "log").read_text().split()) == ["found"] * 3 + ["start"]
