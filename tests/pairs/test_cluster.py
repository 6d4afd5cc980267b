"""Generation while nodes, workers and drivers of a cluster die: in the end, each pair exists exactly once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from splatfix.pairs import read_pairs
from splatfix.pairs.config import GenerateConfig
from splatfix.pairs.generate import generate
from splatfix.pairs.index import list_committed_stems, open_index
from splatfix.pairs.verify import verify
from splatfix.workers import WorkersConfig
from tests.pairs.folders import make_empty_captures
from tests.pairs.stub import StubWorker
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.starts_ray]
ROOT = Path(__file__).resolve().parents[2]
NAMES = [f"scene{number}" for number in range(8)]
STEMS = {f"{name}-f{index:03d}" for name in NAMES for index in range(3)}


def check_complete(out: Path) -> None:
    """Check that the output holds each pair of each fit once, and no other files of pairs."""
    assert list_committed_stems(out) == STEMS
    keys = sorted(pair.key for pair in read_pairs(out))
    assert keys == sorted(f"{stem}-view{k}" for stem in STEMS for k in range(2))
    verification = verify(out)
    assert (verification.num_samples, verification.problems) == (len(keys), ())


@pytest.fixture
def cluster(monkeypatch) -> Iterator:
    """Three nodes on this machine, of which the second has two cores and the others one."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.second = nodes.add_node(num_cpus=2)
    nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def test_a_worker_and_a_node_die_during_a_run(tmp_path: Path, cluster) -> None:
    out, pids = tmp_path / "out", tmp_path / "pids"
    pids.mkdir()
    config = GenerateConfig(fits_per_capture=3, device="cpu", workers=WorkersConfig(num=4))
    num_committed = []  # when the worker and the node were killed

    def kill() -> None:
        wait_for(lambda: len(list_committed_stems(out)) >= 3)
        victim = int(min(path.name for path in pids.iterdir()))
        os.kill(victim, signal.SIGKILL)
        num_committed.append(len(list_committed_stems(out)))
        wait_for(lambda: len(list_committed_stems(out)) >= 6)
        cluster.remove_node(cluster.second, allow_graceful=False)
        num_committed.append(len(list_committed_stems(out)))

    killer = threading.Thread(target=kill)
    killer.start()
    summary = generate(
        make_empty_captures(tmp_path / "in", *NAMES),
        str(out),
        config,
        make_worker=partial(StubWorker, seconds=2.0, pids=pids),
    )
    killer.join()
    assert len(num_committed) == 2 and num_committed[1] < len(STEMS)
    assert len(list(pids.iterdir())) > 4  # other workers were started
    assert (summary.failed, summary.pairs) == (0, 48) and summary.retried >= 2
    check_complete(out)


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


def start_driver(folder: Path) -> subprocess.Popen[str]:
    (folder / "driver.py").write_text(DRIVER)
    command = [sys.executable, str(folder / "driver.py"), str(folder / "in"), str(folder / "out"), str(folder / "pids")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def list_running(pids: Path) -> list[int]:
    """List the workers that are running."""
    running = []
    for path in pids.iterdir():
        with contextlib.suppress(OSError, IndexError):
            state = Path(f"/proc/{path.name}/stat").read_text().rsplit(")", 1)[1].split()[0]
            if state != "Z":
                running.append(int(path.name))
    return running


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_driver_resumes(tmp_path: Path, number: signal.Signals) -> None:
    make_empty_captures(tmp_path / "in", *NAMES)
    out, pids = tmp_path / "out", tmp_path / "pids"
    pids.mkdir()
    first = start_driver(tmp_path)
    wait_for(lambda: len(list_committed_stems(out)) >= 4)
    first.send_signal(number)
    first.communicate(timeout=60)
    assert first.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    wait_for(lambda: not list_running(pids), 30)
    done = len(list_committed_stems(out))
    assert 4 <= done < len(STEMS)
    if number != signal.SIGKILL:  # the driver had time to write the index
        assert len(open_index(out).shards()) == done == len(list(read_pairs(out))) / 2
    second = start_driver(tmp_path)
    output, errors = second.communicate(timeout=120)
    assert second.returncode == 0, errors
    assert f"made {len(STEMS) - done} found {done}" in output
    check_complete(out)
