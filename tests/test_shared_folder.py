"""The token that shows that every machine of a run sees the same output."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from splatfix import shared_folder, storage
from splatfix.cli import main
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


RELATIVE, ABSOLUTE = ["pairs", Path("runs/sweep"), "file://pairs"], ["/shared/pairs", "s3://b/pairs", "file:///pairs"]


@pytest.mark.parametrize("out", RELATIVE)
def test_a_relative_output_of_a_ray_job_is_refused(out: str | Path, monkeypatch) -> None:
    refuse_relative_output(out)
    monkeypatch.setenv(RAY_JOB, "{}")
    with pytest.raises(ValueError, match=rf"--out {out}: is relative to the folder of this Ray job, .* absolute"):
        refuse_relative_output(out)


@pytest.mark.parametrize("out", ABSOLUTE)
def test_an_absolute_output_of_a_ray_job_is_accepted(out: str, monkeypatch) -> None:
    monkeypatch.setenv(RAY_JOB, "{}")
    refuse_relative_output(out)


@pytest.mark.parametrize(
    "arguments", [["generate", "in"], ["train", "--shards", "pairs"], ["sweep", "--captures", "in"], ["compare", "in"]]
)
def test_every_command_refuses_it(arguments: list[str], tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(RAY_JOB, "{}")
    assert main([*arguments, "--out", "runs/x"]) == 2
    assert "--out runs/x: is relative to the folder of this Ray job, which Ray deletes" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
