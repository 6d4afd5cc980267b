"""The kernels on two threads: the tests of this folder once more, in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_all_tests_of_the_kernels_pass_on_two_threads() -> None:
    """The other tests run with ``OMP_NUM_THREADS=1``, where no kernel can race with itself."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2"}
    folder, this = Path(__file__).parent, Path(__file__).name
    command = [*(sys.executable, "-m", "pytest", "-p", "no:xdist", folder, "--ignore", folder / this)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"OMP_NUM_THREADS": "1"}, "1"),
        ({"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}, "2"),
        ({"OMP_NUM_THREADS": "2,1"}, "None"),
        ({}, "None"),
    ],
)
def test_kernels_get_no_more_threads_than_openmp(given, wanted) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")} | given
    code = "import os, splatfix; print(os.environ.get('NUMBA_NUM_THREADS'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == wanted, done.stderr
