"""Where shards lie: local folders and object stores behind one small door (fsspec).

Only named protocols are opened: no shell (``pipe:``), no chained URLs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import IOBase
from pathlib import Path

import fsspec

PROTOCOLS = ("file", "memory", "http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss")


def join(url: str | Path, name: str) -> str:
    """A file's place within a folder or URL."""
    return f"{str(url).rstrip('/')}/{name}"


def open_binary(url: str) -> IOBase:
    """Open a file for reading. ValueError where it does not exist or its protocol is not allowed."""
    files, path = _resolve(url)
    with _as_value_error(url):
        return files.open(path, "rb")


def read_bytes(url: str) -> bytes:
    """The content of a file. ValueError as `open_binary`."""
    files, path = _resolve(url)
    with _as_value_error(url):
        return files.cat_file(path)


def exists(url: str) -> bool:
    """Whether there is a file."""
    files, path = _resolve(url)
    return bool(files.exists(path))


def list_names(url: str | Path) -> list[str]:
    """Sorted names of the files in a folder; empty where it does not exist."""
    files, path = _resolve(str(url))
    try:
        return sorted(entry["name"].rsplit("/", 1)[-1] for entry in files.ls(path, detail=True, refresh=True))
    except FileNotFoundError:
        return []
    except TypeError:  # a filesystem without listing caches does not know `refresh`
        return sorted(entry["name"].rsplit("/", 1)[-1] for entry in files.ls(path, detail=True))


def commit(url: str, content: bytes) -> None:
    """Write a file whole: locally aside, fsync, rename; on an object store as one object."""
    files, path = _resolve(url)
    if "file" not in _protocols(files):
        files.pipe_file(path, content)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def _resolve(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", url)  # two letters at least: a drive is not a protocol
    protocol = match.group(1) if match else "file"
    if "::" in url or protocol not in PROTOCOLS:
        raise ValueError(f"{url}: wanted a local path or a URL of {', '.join(PROTOCOLS)}")
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{url}: cannot be opened ({_first_line(error)})") from None


@contextmanager
def _as_value_error(url: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"{url}: cannot be opened ({_first_line(error)})") from None


def _protocols(files: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
