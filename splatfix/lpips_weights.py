"""The weights of LPIPS that splatfix does not ship: where they are looked for, and fetching them.

LPIPS (Zhang et al. 2018, BSD-2-Clause) compares features of VGG-16 with small linear heads. torchmetrics ships the
heads; the network is torchvision's, and is read from the cache of torch.hub, where other programs put it, too.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from splatfix import storage
from splatfix.files import sync, temporary_beside
from splatfix.process import progress

MB = 2**20
COMMAND = "splatfix fetch lpips"


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights: its name, where it is published, and its exact size and SHA-256."""

    name: str
    url: str
    num_bytes: int
    sha256: str


VGG16 = WeightsFile(  # torchvision's VGG16_Weights.IMAGENET1K_V1
    "vgg16-397923af.pth",
    "https://download.pytorch.org/models/vgg16-397923af.pth",
    553_433_881,
    "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
)


def weights_path(file: WeightsFile = VGG16) -> Path:
    """Where LPIPS looks for the weights: the cache of torch.hub (``TORCH_HOME``)."""
    return Path(torch.hub.get_dir()) / "checkpoints" / file.name


def fetch_weights(source: str | None = None, *, file: WeightsFile | None = None) -> tuple[Path, bool]:
    """Fetch the weights of LPIPS, unless they are there, and check their size and SHA-256 before they are in place.

    Args:
        source: URL or path to read them from; by default where they are published.
        file: what to fetch; by default `VGG16`.

    Returns:
        Where they are, and whether they were fetched by this call.

    Raises:
        OSError: the source cannot be reached or the file not written; the message says how to place it by hand.
        ValueError: the source has another file.
    """
    file = VGG16 if file is None else file
    path, url = weights_path(file), file.url if source is None else source
    if path.is_file() and path.stat().st_size == file.num_bytes and _digest(path) == file.sha256:
        return path, False
    by_hand = f"by hand: download {file.url} on any machine, then: {COMMAND} --source {file.name}"
    try:
        found = storage.find_file(url)
        if found is None:
            raise FileNotFoundError(f"{url}: no such file")
        if found.size_bytes != file.num_bytes:
            raise ValueError(f"{url}: {found.size_bytes:,} bytes; wanted {file.name} with {file.num_bytes:,}")
        with temporary_beside(path) as temporary:
            with _showing_size(temporary, file):
                storage.download(url, temporary)
            digest = _digest(temporary)
            if digest != file.sha256:
                raise ValueError(f"{url}: SHA-256 is {digest}; wanted {file.sha256}, that of {file.name}")
            sync(temporary)
            temporary.replace(path)
    except OSError as error:
        raise OSError(f"{_say(error)}; {by_hand}") from error
    return path, True


@contextmanager
def _showing_size(path: Path, file: WeightsFile) -> Iterator[None]:
    """Show how much of a file is there while it is written."""
    is_done = threading.Event()
    with progress(total=max(1, file.num_bytes // MB), description=f"{file.name}, MB") as bar:

        def show() -> None:
            while not is_done.wait(0.5):
                bar.update(_size(path) // MB - bar.n)

        watcher = threading.Thread(target=show, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            is_done.set()
            watcher.join()
            bar.update(_size(path) // MB - bar.n)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _say(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
