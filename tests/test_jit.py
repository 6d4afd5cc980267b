"""The kernels' decorator, its cache, and the number of threads that kernels get."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import pytest

from splatfix.jit import _digest_files, cache_folder, kernel, limit_threads
from splatfix.rendering.cpu import compositing
from splatfix.splats.stereo import cpu as sweep


def test_compiles_where_nothing_can_be_cached() -> None:
    """A function without a file: as in an install and a home that are read-only."""
    names: dict = {}
    exec(compile("def double(x):\n    return 2 * x\n", "<nowhere>", "exec"), names)
    assert kernel()(names["double"])(21) == 42


def test_a_change_of_any_source_recompiles(tmp_path: Path) -> None:
    """numba looks at the kernel's own file alone, but kernels inline functions of other files."""
    kernels: Any = compositing.composite, compositing.composite_backward, sweep.sweep_planes
    folders = [Path(each._cache.cache_path) for each in kernels]
    assert folders[0] == folders[1]  # of one file
    assert folders[2].name.startswith("splatfix.splats.stereo.cpu-")
    (tmp_path / "one.py").write_text("1")
    (tmp_path / "two.py").write_text("2")
    sources = [tmp_path / "one.py", tmp_path / "two.py"]
    before = _digest_files(sources)
    os.utime(sources[1], (5, 5))
    assert _digest_files(sources) == before
    sources[0].write_text("3")
    assert _digest_files(sources) != before


DOUBLE = """
from splatfix.jit import kernel

@kernel()
def double(x):
    return 2 * x
"""


def call_double(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str = DOUBLE) -> dict:
    """Write a module with a kernel into a new folder, call the kernel, and count where its code came from."""
    folder.mkdir()
    (folder / "doubling.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "doubling", raising=False)
    double = importlib.import_module("doubling").double
    assert double(21) == 42
    monkeypatch.delitem(sys.modules, "doubling")
    return {"loaded": sum(double.stats.cache_hits.values()), "compiled": sum(double.stats.cache_misses.values())}


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kernels"))
    cache_folder.cache_clear()
    yield tmp_path / "kernels"
    cache_folder.cache_clear()


def test_copies_of_a_source_share_compiled_kernels(tmp_path: Path, empty_cache: Path, monkeypatch) -> None:
    """Two Ray jobs with the same kernels compile them once on each machine, although Ray unpacks each elsewhere."""
    assert call_double(tmp_path / "one", monkeypatch) == {"loaded": 0, "compiled": 1}
    assert call_double(tmp_path / "two", monkeypatch) == {"loaded": 1, "compiled": 0}
    assert call_double(tmp_path / "three", monkeypatch, DOUBLE + "#") == {"loaded": 0, "compiled": 1}
    assert len(list(empty_cache.iterdir())) == 2


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, empty_cache: Path, monkeypatch, suffix: str) -> None:
    """As after a power cut: numba does not synchronize its files."""
    call_double(tmp_path / "one", monkeypatch)
    [file] = empty_cache.rglob(f"*{suffix}")
    file.write_bytes(file.read_bytes()[:100])
    assert call_double(tmp_path / "two", monkeypatch)["compiled"] == 1
    assert call_double(tmp_path / "three", monkeypatch) == {"loaded": 1, "compiled": 0}


@pytest.mark.usefixtures("empty_cache")
def test_a_cache_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch) -> None:
    """As in an image whose kernels were compiled when it was built."""
    call_double(tmp_path / "one", monkeypatch)

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.save", refuse)
    assert call_double(tmp_path / "two", monkeypatch)["loaded"] == 1
    assert call_double(tmp_path / "three", monkeypatch, DOUBLE + "#")["compiled"] == 1


def test_kernels_are_cached_beside_the_source_without_a_home(monkeypatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", "/proc/nowhere")
    cache_folder.cache_clear()
    assert cache_folder().name == "__pycache__"
    cache_folder.cache_clear()


@pytest.mark.parametrize(("work", "wanted"), [(0, 1), (99, 1), (200, 2), (400, 4)])
def test_small_work_wakes_no_thread(work: int, wanted: int) -> None:
    available = numba.get_num_threads()
    wanted = min(wanted, available)
    with limit_threads(work, 100) as num:
        assert num == wanted
        assert numba.get_num_threads() == wanted
    assert numba.get_num_threads() == available
    with pytest.raises(KeyError), limit_threads(0, 100):
        raise KeyError
    assert numba.get_num_threads() == available


@pytest.mark.slow
def test_whether_a_kernel_is_compiled_is_read_from_its_cache(tmp_path):
    code = (
        "from splatfix.jit import is_compiled; from splatfix.rendering.cpu.harmonics import _direction as kernel; "
        "import numpy as np; before = is_compiled(kernel); a = np.ones((1, 3), np.float32); kernel(a, 0, a[0]); "
        "print(before, is_compiled(kernel))"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    said = [
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert said == ["False True\n", "True True\n"]
