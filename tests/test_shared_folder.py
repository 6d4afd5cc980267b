"""The token that shows that every machine of a run sees the same output."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from splatfix import shared_folder, storage
from splatfix.errors import MachineError
from splatfix.shared_folder import (
    RAY_JOB,
    check_token,
    describe_machine,
    refuse_relative_output,
    shared_token,
    write_token,
)


@pytest.fixture(params=["folder", "store"])
def out(request, tmp_path: Path, monkeypatch) -> str:
    monkeypatch.setattr(shared_folder, "PATIENCE_SECONDS", 0.0)
    return str(tmp_path / "out") if request.param == "folder" else f"memory://{tmp_path.name}-{request.param}"


def test_a_worker_sees_the_token_of_its_driver(out: str) -> None:
    write_token(out)  # of a driver that was killed
    with shared_token(out) as token:
        assert storage.list_names(f"{out}/.tokens") == [token]
        check_token(out, token)
        with pytest.raises(MachineError) as other_disk:
            check_token(out, "0123")
    assert str(other_disk.value) == (
        f"{describe_machine()}: {out} is not the folder that the driver writes to; mount the same disk on every node, "
        "or use a URL (s3://, gs://, az://)"
    )
    assert describe_machine().startswith(socket.gethostname())
    assert storage.list_tree(out) == [] and not Path(out, ".tokens").exists()


def test_a_worker_without_the_right_to_write_is_the_fault_of_its_machine(out: str, monkeypatch) -> None:
    def refuse(url: str, _: bytes) -> None:
        raise PermissionError(30, "Read-only file system", url)

    with shared_token(out) as token:
        monkeypatch.setattr(storage, "write_bytes", refuse)
        with pytest.raises(MachineError, match=r"cannot be read and written to \(.*Read-only file system"):
            check_token(out, token)


def test_a_relative_output_of_a_ray_job_is_refused() -> None:
    job = {RAY_JOB: "{}"}
    for out in ("pairs", "runs/sweep", Path("runs/sweep"), "file://pairs"):
        refuse_relative_output(out, {})
        with pytest.raises(ValueError, match=rf"--out {out}: is relative to the folder of this Ray job, .* absolute"):
            refuse_relative_output(out, job)
    for out in ("/shared/pairs", Path("/shared/pairs"), "s3://bucket/pairs", "file:///shared/pairs"):
        refuse_relative_output(out, job)
