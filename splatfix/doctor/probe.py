"""What one node of a cluster has: runs there as a task of Ray, imports little, and changes nothing that it leaves."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import splatfix
from splatfix import storage
from splatfix.cuda_setup import find_toolkit, is_gsplat_compiled
from splatfix.runs import source_digest

PACKAGES = ("torch", "ray", "gsplat", "numba")
PATIENCE_SECONDS = 5.0  # until the driver's file is expected on a shared disk
MLFLOW_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a node is asked to check; None for what is left out.

    Attributes:
        check_url: folder of this check in the output, in which the driver has written the file ``token``.
        token: the content of that file.
        captures: folders or URLs to be read.
        uri: MLflow server.
    """

    check_url: str | None = None
    token: str = ""
    captures: tuple[str, ...] = ()
    uri: str | None = None


@dataclass(frozen=True, kw_only=True)
class NodeReport:
    """What a node has.

    Attributes:
        versions: of Python, splatfix and the packages in `PACKAGES`; ``code`` is the digest of splatfix's sources.
        gpus: names of the GPUs that torch sees.
        cuda: version of CUDA that torch is built for; None for a build without.
        compiled: whether gsplat's kernels are compiled; compiler: whether they can be (nvcc).
        faults: what is wrong, by check: output, store, captures, mlflow.
    """

    host: str
    versions: dict[str, str]
    gpus: tuple[str, ...]
    cuda: str | None
    compiled: bool
    compiler: bool
    temp: str
    temp_free_gb: float
    shm_gb: float | None
    faults: dict[str, str] = field(default_factory=dict)


def probe(request: Request) -> NodeReport:
    """Look at this node."""
    gpus, cuda = _find_gpus()
    temp = tempfile.gettempdir()
    return NodeReport(
        host=socket.gethostname(),
        versions=find_versions(),
        gpus=gpus,
        cuda=cuda,
        compiled=is_gsplat_compiled(),
        compiler=find_toolkit() is not None,
        temp=temp,
        temp_free_gb=shutil.disk_usage(temp).free / 1e9,
        shm_gb=shutil.disk_usage("/dev/shm").total / 1e9 if Path("/dev/shm").is_dir() else None,
        faults=_find_faults(request),
    )


def read_clock() -> float:
    """The time on this node, in seconds since 1970."""
    return time.time()


def find_versions() -> dict[str, str]:
    """The versions of splatfix and of what it runs on."""
    found = {"python": platform.python_version(), "splatfix": splatfix.__version__, "code": source_digest()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _find_gpus() -> tuple[tuple[str, ...], str | None]:
    """The GPUs that torch sees, and the CUDA version that it is built for."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        del os.environ["CUDA_VISIBLE_DEVICES"]  # Ray may hide the GPUs from a task that books none
    try:
        import torch
    except ImportError:
        return (), None
    if not torch.cuda.is_available():
        return (), torch.version.cuda
    return tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())), torch.version.cuda


def _find_faults(request: Request) -> dict[str, str]:
    checks: dict[str, Callable[[], None]] = {}
    if request.check_url is not None:
        url = request.check_url
        checks["output"] = lambda: _check_output(url, request.token)
        checks["store"] = lambda: _check_store(url)
    if request.captures:
        checks["captures"] = lambda: _check_captures(request.captures)
    if request.uri is not None:
        uri = request.uri
        checks["mlflow"] = lambda: _check_mlflow(uri)
    faults = {}
    for name, check in checks.items():
        if name == "store" and "output" in faults:
            continue  # it would leave files in a folder of this node alone
        try:
            check()
        except Exception as error:  # whatever a store or a disk raises is what is reported
            faults[name] = " ".join(str(error).split())[:300] or type(error).__name__
    return faults


def _check_output(url: str, token: str) -> None:
    place, deadline = storage.join(url, "token"), time.monotonic() + PATIENCE_SECONDS
    while not storage.exists(place):
        if time.monotonic() > deadline:
            raise ValueError("the driver's file is not here: not the same folder")
        time.sleep(0.5)
    if storage.read_bytes(place).decode() != token:
        raise ValueError("the driver's file has other content")


def _check_store(url: str) -> None:
    """Write, read and delete a file; a second creation of one has to fail."""
    place, content = storage.join(url, f"{socket.gethostname()}-{os.getpid()}"), b"splatfix doctor"
    if not storage.create(place, content):
        raise ValueError("a new file was taken for an old one")
    try:
        if storage.read_bytes(place) != content:
            raise ValueError("a file has other content than was written")
        if storage.create(place, content):
            raise ValueError("an existing file was created again: the store lacks conditional writes")
        storage.write_bytes(place, content)
    finally:
        with contextlib.suppress(OSError):
            storage.delete(place)


def _check_captures(captures: tuple[str, ...]) -> None:
    from splatfix.pairs.sources import find_sources

    find_sources(captures, {})


def _check_mlflow(uri: str) -> None:
    if not uri.startswith(("http://", "https://")):
        return
    try:
        with urlopen(f"{uri.rstrip('/')}/health", timeout=MLFLOW_SECONDS):
            return
    except HTTPError as error:
        raise ValueError(f"{uri} answers with {error.code}") from None
    except (URLError, TimeoutError) as error:
        raise ValueError(f"{uri} does not answer ({getattr(error, 'reason', error)})") from None
