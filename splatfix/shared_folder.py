"""Check that every machine of a run sees the same output: the driver writes a token there, and each worker reads it.

Without the check, a worker on a machine without the shared disk writes its results to a folder of the same name on its
own disk, where nobody finds them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from splatfix import storage
from splatfix.errors import MachineError

TOKENS = ".tokens"  # folder in the output
PATIENCE_SECONDS = 5.0  # until a new file is expected to be visible on other machines
POLL_SECONDS = 0.5
RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # the variable that Ray sets for the entry points of its jobs


@contextlib.contextmanager
def shared_token(url: str) -> Iterator[str]:
    """Keep a token in a folder while its driver runs; yield the token."""
    token = write_token(url)
    try:
        yield token
    finally:
        with contextlib.suppress(OSError, ValueError):  # tokens that remain do no harm
            remove_token(url)


def write_token(url: str) -> str:
    """Write a new token into a folder, and return it. Tokens of earlier drivers are removed."""
    remove_token(url)
    token = uuid.uuid4().hex
    storage.write_bytes(_token_url(url, token), token.encode())
    return token


def check_token(url: str, token: str) -> None:
    """Check on a worker's machine that a folder holds the driver's token, and that this machine can write there.

    Raises:
        MachineError: it does not hold the token, or cannot be read or written; other machines may see the folder.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        while not storage.exists(_token_url(url, token)):
            if time.monotonic() > deadline:
                raise MachineError(
                    f"{describe_machine()}: {url} is not the folder that the driver writes to; mount the same disk on "
                    "every node, or use a URL (s3://, gs://, az://)"
                )
            time.sleep(POLL_SECONDS)
        storage.write_bytes(_token_url(url, f"seen-{socket.gethostname()}-{os.getpid()}"), token.encode())
    except (OSError, ValueError) as error:
        raise MachineError(f"{describe_machine()}: {url} cannot be read and written to ({error})") from None


def remove_token(url: str) -> None:
    """Remove all tokens from a folder."""
    folder = storage.join(url, TOKENS)
    for name in storage.list_names(folder):
        storage.delete(storage.join(folder, name))
    storage.remove_empty_folder(folder)


def refuse_relative_output(out: str | Path) -> None:
    """Refuse a relative local output in a Ray job, whose working directory is deleted after the job. ValueError."""
    if RAY_JOB in os.environ and storage.is_local(out) and not os.path.isabs(str(out).removeprefix("file://")):
        raise ValueError(
            f"--out {out}: is relative to the folder of this Ray job, which Ray deletes; use an absolute path on a "
            "disk that all nodes share, or a URL (s3://, gs://, az://)"
        )


def describe_machine() -> str:
    """Return the host name of this machine, with its address where it has one: ``node7 (10.0.0.7)``."""
    host = socket.gethostname()
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # reserved for documentation; nothing is sent
        return f"{host} ({probe.getsockname()[0]})"
    return host


def _token_url(url: str, name: str) -> str:
    return storage.join(storage.join(url, TOKENS), name)
