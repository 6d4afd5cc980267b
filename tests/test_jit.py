"""The kernels' decorator, its cache, and the number of threads that kernels get."""

from __future__ import annotations

import os
from pathlib import Path

import numba
import pytest

from splatfix.jit import SOURCES_STAMP, _stamp_files, kernel, limit_threads
from splatfix.rendering.cpu import compositing
from splatfix.splats.stereo import cpu as sweep


def test_compiles_where_nothing_can_be_cached() -> None:
    """A function without a file: as in an install and a home that are read-only."""
    names: dict = {}
    exec(compile("def double(x):\n    return 2 * x\n", "<nowhere>", "exec"), names)
    assert kernel()(names["double"])(21) == 42


def test_a_change_of_any_source_makes_kernels_stale(tmp_path: Path) -> None:
    """numba looks at the kernel's own file alone, but kernels inline functions of other files."""
    kernels = compositing.composite, compositing.composite_backward, sweep.sweep_planes
    stamps = [each._cache._cache_file._source_stamp for each in kernels]
    assert [shared for _, shared in stamps] == [SOURCES_STAMP] * 3
    assert stamps[0] == stamps[1]  # of one file
    assert stamps[0] != stamps[2]  # of two
    (tmp_path / "cpu").mkdir()
    (tmp_path / "one.py").write_text("1")
    (tmp_path / "cpu" / "two.py").write_text("2")
    sources = [tmp_path / "one.py", tmp_path / "cpu" / "two.py"]
    before = _stamp_files(sources)
    assert _stamp_files(sources) == before
    os.utime(sources[1], (before[0] + 5, before[0] + 5))
    touched = _stamp_files(sources)
    assert touched != before
    sources[0].write_text("12")
    assert _stamp_files(sources) != touched


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
