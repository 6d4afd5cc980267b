"""Encode and decode saved states: torch's format, followed by a digest that reveals any damage.

Checkpoints of fits and states of trainings are encoded in memory, because torch reports a full disk as an internal
error. torch and older versions of splatfix ignore the digest, and files without one still load.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splatfix.files import write_bytes

MARK = b"\nsplatfix sha256 "  # begins the last line of a file, which ends with the digest of all bytes before it
DIGEST_DIGITS = 64


def encode_state(state: Any) -> bytes:
    """Encode tensors, numbers and text in dicts and lists, with the digest at the end."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    buffer.seek(0, io.SEEK_END)
    buffer.write(MARK + digest.encode() + b"\n")
    return buffer.getvalue()


def decode_state(content: bytes, device: torch.device | str | None = "cpu") -> Any:
    """Decode what `encode_state` returned; no code is unpickled.

    Raises:
        ValueError: the content is damaged; the message says how.
        MemoryError, torch.OutOfMemoryError: there is no memory for it.
    """
    start = len(content) - len(MARK) - DIGEST_DIGITS - 1
    if start >= 0 and content.startswith(MARK, start):
        found = content[start + len(MARK) : -1]
        if hashlib.sha256(memoryview(content)[:start]).hexdigest().encode() != found:
            raise ValueError("its content does not match its digest")
    try:
        return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # torch.load raises many kinds; each means that the content is damaged
        raise ValueError(explain_mismatch(error)) from error


def write_state(path: Path, state: Any) -> None:
    """Write a state, whole or not at all."""
    write_bytes(path, encode_state(state))


def explain_mismatch(error: Exception) -> str:
    """Put the first detail of an error of torch, about a state that does not fit, in a short line."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    lines = (str(error) or type(error).__name__).split("\n\t")
    return " ".join(lines[min(1, len(lines) - 1)].split())[:200]


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of tensors with their names, types and shapes, in whatever order they come."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
