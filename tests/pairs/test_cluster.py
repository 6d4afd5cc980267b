"""Generation while parts of a cluster die: every pair is there exactly once in the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from splatfix.pairs import read_pairs
from splatfix.pairs.config import GenerateConfig
from splatfix.pairs.generate import generate
from splatfix.pairs.index import list_committed_stems, open_index
from splatfix.pairs.verify import verify
from splatfix.workers import WorkersConfig
from tests.pairs.stub import StubWorker
from tests.pairs.test_generate import mark

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
NAMES = [f"scene{number}" for number in range(8)]
STEMS = {f"{name}-f{index:03d}" for name in NAMES for index in range(3)}


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def check(out: Path) -> None:
    """Every fit and every pair of it, once, and nothing that does not belong there."""
    assert list_committed_stems(out) == STEMS
    keys = sorted(pair.key for pair in read_pairs(out))
    assert keys == sorted(f"{stem}-view{k}" for stem in STEMS for k in range(2))
    found = verify(out)
    assert (found.num_samples, found.problems) == (len(keys), ())


@pytest.fixture
def cluster(monkeypatch) -> Iterator:
    """Three nodes on this machine, one core each but for the second with two."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.second = made.add_node(num_cpus=2)
    made.add_node(num_cpus=1)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_node_and_a_worker_die_in_mid_run(tmp_path: Path, cluster) -> None:
    out, pids = tmp_path / "out", tmp_path / "pids"
    pids.mkdir()
    config = GenerateConfig(fits_per_capture=3, device="cpu", workers=WorkersConfig(num=4))
    struck: list[int] = []

    def strike() -> None:
        wait_for(lambda: len(list_committed_stems(out)) >= 3)
        victim = int(min(path.name for path in pids.iterdir()))
        os.kill(victim, signal.SIGKILL)
        struck.append(victim)
        wait_for(lambda: len(list_committed_stems(out)) >= 6)
        cluster.remove_node(cluster.second, allow_graceful=False)
        struck.append(len(list_committed_stems(out)))

    striker = threading.Thread(target=strike)
    striker.start()
    summary = generate(
        mark(tmp_path / "in", *NAMES),
        str(out),
        config,
        make_worker=partial(StubWorker, seconds=2.0, pids=pids),
    )
    striker.join()
    assert len(struck) == 2 and struck[1] < len(STEMS)
    assert len(list(pids.iterdir())) > 4  # others took their places
    assert (summary.failed, summary.pairs) == (0, 48) and summary.retried >= 2
    check(out)


DRIVER = """
import sys
from functools import partial
from pathlib import Path
from splatfix.pairs.config import GenerateConfig
from splatfix.pairs.generate import generate
from splatfix.command_line import EXIT_CODES
from splatfix.process import stop_on_signals, stop_requested
from splatfix.workers import WorkersConfig
from tests.pairs.stub import StubWorker

if __name__ == "__main__":
    stop_on_signals()
    config = GenerateConfig(fits_per_capture=3, device="cpu", workers=WorkersConfig(num=2))
    captures = sorted(str(path) for path in Path(sys.argv[1]).iterdir())
    make_worker = partial(StubWorker, seconds=0.4, pids=Path(sys.argv[3]))
    try:
        summary = generate(captures, sys.argv[2], config, make_worker=make_worker)
    except KeyboardInterrupt:
        sys.exit(EXIT_CODES[stop_requested()])
    print("made", summary.made, "found", summary.found)
"""


def drive(folder: Path) -> subprocess.Popen[str]:
    (folder / "driver.py").write_text(DRIVER)
    command = [sys.executable, str(folder / "driver.py"), str(folder / "in"), str(folder / "out"), str(folder / "pids")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def running(pids: Path) -> list[int]:
    found = []
    for path in pids.iterdir():
        with contextlib.suppress(OSError, IndexError):
            state = Path(f"/proc/{path.name}/stat").read_text().rsplit(")", 1)[1].split()[0]
            if state != "Z":
                found.append(int(path.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_driver_that_is_stopped_goes_on_where_it_was(tmp_path: Path, number: signal.Signals) -> None:
    mark(tmp_path / "in", *NAMES)
    out, pids = tmp_path / "out", tmp_path / "pids"
    pids.mkdir()
    first = drive(tmp_path)
    wait_for(lambda: len(list_committed_stems(out)) >= 4)
    first.send_signal(number)
    first.communicate(timeout=60)
    assert first.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    wait_for(lambda: not running(pids), 30)  # no worker is left behind
    done = len(list_committed_stems(out))
    assert 4 <= done < len(STEMS)
    if number != signal.SIGKILL:  # there was time to gather
        assert len(open_index(out).shards()) == done == len(list(read_pairs(out))) / 2
    second = drive(tmp_path)
    output, errors = second.communicate(timeout=120)
    assert second.returncode == 0, errors
    assert f"made {len(STEMS) - done} found {done}" in output
    check(out)
