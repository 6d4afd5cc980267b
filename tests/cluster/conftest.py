"""One cluster for the tests of each file, whose nodes are switched on again before each test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from splatfix.jit import cache_folder
from splatfix.sample import sample_path
from tests.cluster.nodes import BUCKET, NodeCluster, find_missing, start_cluster
from tests.cluster.settings import CAPTURES


@pytest.fixture(scope="module")  # Ray finds processes of other clusters on a machine, so it ends before other tests
def node_cluster() -> Iterator[NodeCluster]:
    """A cluster with two workers and an S3 server; captures are in its shared folder and on S3."""
    missing = find_missing()
    if missing:
        pytest.skip(missing)
    # Kernels that this machine has compiled are on the nodes, as in an image. Nodes that are lost are noticed soon.
    settings = [f"NUMBA_CACHE_DIR={cache_folder()}", "RAY_health_check_period_ms=1000"]
    cluster = start_cluster(f"test-{os.getpid()}", *[option for line in settings for option in ("--env", line)])
    try:
        for name in CAPTURES:
            shutil.copytree(sample_path(), cluster.shared / "captures" / name)
        copied = cluster.run("python", "-c", COPY, cluster.shared / "captures", f"{BUCKET}/captures")
        assert copied.returncode == 0, copied.stdout
        yield cluster
    finally:
        cluster.control("stop")
        shutil.rmtree(cluster.folder)


COPY = """
import sys
from pathlib import Path
from splatfix import storage

folder, url = Path(sys.argv[1]), sys.argv[2]
for file in folder.rglob("*"):
    if file.is_file():
        storage.write_bytes(storage.join(url, str(file.relative_to(folder))), file.read_bytes())
"""


@pytest.fixture
def nodes(node_cluster: NodeCluster) -> NodeCluster:
    """The cluster with w1 and w2 up, each with 1 CPU, no GPU and the shared folder."""
    node_cluster.reset()
    return node_cluster
