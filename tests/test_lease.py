"""One driver per output: others are refused while it is alive, and take over when it is dead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from splatfix import lease, storage
from splatfix.errors import RunAborted
from splatfix.lease import LEASE, find_driver, hold_lease
from tests.waiting import wait_for


@pytest.fixture(params=["folder", "store"])
def out(request, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "folder" else f"memory://{tmp_path.name}-{request.param}"


@pytest.fixture
def quick(monkeypatch) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.02)
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.3)


def write_lease(out: str, **changes: object) -> None:
    """Write the lease of a driver; by default this process's, from another machine."""
    holder = {"id": "x", "command": "splatfix generate", "host": "node7", "pid": os.getpid(), "machine": "other"}
    more = {"start": lease._find_start(os.getpid()), "renewed_at": time.time() - 3}
    storage.write_bytes(f"{out}/{LEASE}", json.dumps(holder | more | changes).encode())


def test_a_second_driver_is_refused_and_the_lease_is_released(out: str) -> None:
    wanted = rf"{out}: splatfix sweep \(process {os.getpid()} on .*\) is at work here, .* 0 s ago; wait for it, stop it"
    with hold_lease(out, "splatfix sweep"), pytest.raises(ValueError, match=wanted), hold_lease(out, "splatfix sweep"):
        pass
    assert not storage.exists(f"{out}/{LEASE}") and not Path(out).exists()
    with pytest.raises(KeyError), hold_lease(out, "splatfix sweep"):
        raise KeyError
    assert not storage.exists(f"{out}/{LEASE}")


def test_a_killed_driver_of_this_machine_is_replaced_at_once(out: str, caplog) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    start = lease._find_start(child.pid)
    child.wait()
    write_lease(out, machine=lease.process_space(), pid=child.pid, start=start)
    before = time.monotonic()
    with hold_lease(out, "splatfix generate"):
        assert time.monotonic() - before < 1
        assert f"taking over from splatfix generate (process {child.pid} on node7), which was killed" in caplog.text
    write_lease(out, machine=lease.process_space(), start="1")  # the process id belongs to another process now
    with hold_lease(out, "splatfix generate"):
        pass


@pytest.mark.usefixtures("quick")
def test_a_driver_of_another_machine_is_replaced_when_its_lease_no_longer_changes(out: str, caplog) -> None:
    caplog.set_level("INFO")
    write_lease(out)
    before = time.monotonic()
    with hold_lease(out, "splatfix generate"):
        assert time.monotonic() - before >= 0.3
    assert "was at work here; waiting for up to 0 s to see whether it still is" in caplog.text
    storage.write_bytes(f"{out}/{LEASE}", b'{"id": "from another ver')
    with hold_lease(out, "splatfix generate"):
        pass


@pytest.mark.usefixtures("quick")
def test_a_living_driver_of_another_machine_is_not_replaced(out: str, monkeypatch) -> None:
    machines = iter(["first", "second"])
    monkeypatch.setattr(lease, "process_space", lambda: next(machines))
    wanted = "is at work here, its last sign of life was 0 s ago"
    with hold_lease(out, "splatfix generate"), pytest.raises(ValueError, match=wanted), hold_lease(out, "x"):
        pass


@pytest.mark.usefixtures("quick")
def test_a_driver_that_lost_its_lease_is_aborted(out: str) -> None:
    def work() -> None:
        with hold_lease(out, "splatfix generate"):
            for _ in range(1000):
                write_lease(out)
                time.sleep(0.03)

    with pytest.raises(RunAborted, match="another driver took over while this one was suspended"):
        work()
    assert json.loads(storage.read_bytes(f"{out}/{LEASE}"))["id"] == "x"  # it is left to the other driver


@pytest.mark.usefixtures("quick")
def test_a_deleted_lease_is_written_again_and_a_failing_store_is_no_error(out: str, monkeypatch, caplog) -> None:
    with hold_lease(out, "splatfix generate"):
        storage.delete(f"{out}/{LEASE}")
        wait_for(lambda: storage.exists(f"{out}/{LEASE}"), 10)
        with monkeypatch.context() as broken:

            def fail(*_: object) -> bytes:
                raise OSError("no answer")

            broken.setattr(storage, "read_bytes", fail)
            wait_for(lambda: "cannot be renewed (no answer); trying again" in caplog.text, 10)
    assert not storage.exists(f"{out}/{LEASE}")


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ValueError, match="out: is a file; wanted a folder"), hold_lease(str(tmp_path / "out"), "x"):
        pass


def test_the_driver_at_work_is_found_and_a_dead_one_is_not(out: str, monkeypatch) -> None:
    assert find_driver(out) is None
    with hold_lease(out, "splatfix train"):
        found = find_driver(out)
        assert found is not None and found.startswith(f"splatfix train (process {os.getpid()} on ")
        content = json.loads(storage.read_bytes(f"{out}/{LEASE}"))
    assert find_driver(out) is None
    storage.write_bytes(f"{out}/{LEASE}", json.dumps({**content, "start": "long ago"}).encode())
    assert find_driver(out) is None  # another process has its id now
    storage.write_bytes(f"{out}/{LEASE}", json.dumps({**content, "machine": "other"}).encode())
    assert find_driver(out) is not None
    monkeypatch.setattr(lease, "STALE_SECONDS", -1.0)
    assert find_driver(out) is None
    storage.write_bytes(f"{out}/{LEASE}", b"torn")
    assert find_driver(out) is None
