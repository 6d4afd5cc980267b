"""What a check of a cluster reports, from reports of nodes; the check itself runs in tests that start Ray."""

from __future__ import annotations

import http.server
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from splatfix import storage
from splatfix.doctor import cluster
from splatfix.doctor.build import build_kernels
from splatfix.doctor.cluster import ClusterCheck, Node, describe_problems, find_problems, format_table
from splatfix.doctor.probe import NodeReport, Request, find_versions, probe

VERSIONS = {"python": "3.11.7", "splatfix": "0.1.0", "code": "0123456789ab", "torch": "2.15.0", "ray": "2.60.0"}
VERSIONS |= {"gsplat": "1.5.3", "numba": "0.62.0"}
REPORT = NodeReport(
    host="a",
    versions=VERSIONS,
    gpus=("NVIDIA L4",),
    cuda="13.0",
    compiled=True,
    compiler=True,
    temp="/tmp",
    temp_free_gb=50.0,
    shm_gb=8.0,
)
NODE = Node(name="a (10.0.0.1)", is_head=False, cpus=8, gpus=1, report=REPORT, skew_seconds=0.0)
CHECK = ClusterCheck(out="/shared/pairs", captures=("/shared/captures",), uri="http://tracking:5000")


def problems(**changes) -> tuple[int, list[str]]:
    """The number of problems, and the lines of problems and hints, of a node that differs from a healthy one."""
    of_node = {name: changes.pop(name) for name in ("report", "silence", "skew_seconds") if name in changes}
    node = replace(NODE, **{"report": replace(REPORT, **changes), **of_node})
    found = find_problems([node], VERSIONS, CHECK, CHECK.uri)
    return sum(not problem.is_hint for problem in found), list(describe_problems(found))


def test_a_healthy_node_has_no_problems():
    assert problems() == (0, [])


@pytest.mark.parametrize(
    ("changes", "num", "said"),
    [
        ({"report": None, "silence": "no answer within 60 s"}, 1, "no answer within 60 s"),
        (
            {"versions": VERSIONS | {"code": "f00"}},
            1,
            "code f00, the driver has 0123456789ab\n    -> the sources differ",
        ),
        ({"versions": VERSIONS | {"torch": "2.9"}}, 1, "torch 2.9, the driver has 2.15.0\n    -> use the same image"),
        ({"gpus": (), "compiled": False}, 1, "Ray books 1 GPUs, torch sees 0 (torch is built for CUDA 13.0)"),
        ({"gpus": (), "cuda": None}, 1, "(torch is built without CUDA)"),
        ({"gpus": ("L4", "L4")}, 0, "torch sees 2 GPUs, Ray books 1\n    -> start Ray there with --num-gpus 2"),
        ({"compiled": False}, 0, "run splatfix doctor --build there"),
        ({"compiled": False, "compiler": False}, 1, "there is no nvcc"),
        ({"temp_free_gb": 0.5}, 1, "/tmp has 0.5 GB free\n    -> free some, or set TMPDIR"),
        ({"shm_gb": 0.064}, 0, "/dev/shm has 0.06 GB"),
        ({"skew_seconds": -7.25}, 1, "its clock is -7.2 s off the driver's\n    -> run ntp or chrony"),
        ({"faults": {"output": "not the same folder"}}, 1, "/shared/pairs: not the same folder\n    -> mount the same"),
        ({"faults": {"captures": "s3://b: denied"}}, 1, "captures: s3://b: denied"),
        ({"faults": {"mlflow": "no answer"}}, 1, "TRACKING_HOST=0.0.0.0"),
    ],
)
def test_each_problem_has_a_line_and_a_remedy(changes, num, said):
    found, lines = problems(**changes)
    assert found == num and said in lines[0] and "a (10.0.0.1): " in lines[0] and "\n    -> " in lines[0]


def test_the_table_has_a_row_for_each_node_and_problems_are_put_together():
    sick = [replace(NODE, name=f"{i} (10.0.0.{i})", report=replace(REPORT, temp_free_gb=1.0)) for i in range(5)]
    silent = replace(NODE, name="z (10.0.0.9)", report=None, silence="no answer within 60 s")
    head, *rows = format_table([*sick, silent], CHECK, CHECK.uri).splitlines()
    assert head.split()[0] == "node" and len(rows) == 6 and rows[-1].endswith("no answer within 60 s")
    assert "1 (1 NVIDIA L4)" in rows[0] and "0.1.0 01234567" in rows[0] and "output store captures mlflow" in rows[0]
    [line] = describe_problems(find_problems(sick, VERSIONS, CHECK, CHECK.uri))
    assert line.startswith("--  0 (10.0.0.0), 1 (10.0.0.1), 2 (10.0.0.2) and 2 more: /tmp has 1.0 GB free")


def test_a_database_in_a_file_is_a_hint_on_several_nodes():
    found = find_problems([NODE, NODE], VERSIONS, CHECK, "sqlite:///mlflow.db")
    assert [problem.is_hint for problem in found] == [True] and "use a server" in found[0].remedy


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_the_probe_sees_the_output_and_leaves_nothing_there(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("splatfix.doctor.probe.PATIENCE_SECONDS", 0.0)
    (tmp_path / "token").write_text("mine")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        report = probe(Request(check_url=str(tmp_path), token="mine", captures=(str(tmp_path / "none"),), uri=uri))
        server.shutdown()
    assert list(report.faults) == ["captures"] and "no such file or folder" in report.faults["captures"]
    assert [path.name for path in tmp_path.iterdir()] == ["token"]
    assert report.versions == find_versions() and len(report.versions["code"]) == 12
    other = tmp_path / "other"
    faults = probe(Request(check_url=str(other), token="mine", uri="http://127.0.0.1:1")).faults
    assert "not the same folder" in faults["output"] and "does not answer" in faults["mlflow"]
    assert not other.exists()


def test_a_store_without_conditional_writes_is_a_fault(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "token").write_text("mine")
    monkeypatch.setattr("splatfix.storage.create", lambda *_: True)
    monkeypatch.setattr("splatfix.storage.read_bytes", lambda url: b"mine" if "token" in url else b"splatfix doctor")
    assert "lacks conditional writes" in probe(Request(check_url=str(tmp_path), token="mine")).faults["store"]


def test_kernels_for_unknown_gpus_are_not_compiled(monkeypatch, capsys):
    monkeypatch.setattr("splatfix.doctor.build._run_kernels", lambda: None)
    monkeypatch.setattr("splatfix.doctor.build.find_toolkit", lambda: Path("/usr/local/cuda"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    build_kernels()
    assert "TORCH_CUDA_ARCH_LIST='8.9;9.0' names" in capsys.readouterr().out
    monkeypatch.setattr("splatfix.doctor.build.find_toolkit", lambda: None)
    build_kernels()
    assert "there is no nvcc" in capsys.readouterr().out


def test_the_check_passes_its_arguments_on_to_the_cluster():
    words = ["doctor", "--cluster", "--out", "/shared/pairs", "--captures", "/shared/captures"]
    assert CHECK.words == [*words, "--uri", "http://tracking:5000"]
    assert ClusterCheck().words == ["doctor", "--cluster"]


@pytest.mark.parametrize("on_store", [False, True])
def test_tokens_of_doctors_that_were_killed_are_removed_after_a_day(tmp_path: Path, on_store: bool) -> None:
    out = f"memory://{tmp_path.name}" if on_store else str(tmp_path / "out")
    now = time.time()
    old, new = f".doctor-{now - 90000:.0f}-01234567", f".doctor-{now - 80000:.0f}-01234567"
    for folder in (old, new, ".doctors", "1"):
        storage.write_bytes(f"{out}/{folder}/token", b"x")
    with cluster._token(out) as (url, token):
        assert url is not None and storage.read_bytes(f"{url}/token").decode() == token
        assert storage.list_folder(out)[1] == sorted([new, ".doctors", "1", url.rsplit("/", 1)[-1]])
    assert storage.list_folder(out)[1] == sorted([new, ".doctors", "1"])


def test_the_token_of_a_doctor_leaves_no_new_folder(tmp_path: Path) -> None:
    with cluster._token(str(tmp_path / "out")):
        assert (tmp_path / "out").is_dir()
    assert not (tmp_path / "out").exists()
