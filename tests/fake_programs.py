"""Shell scripts that stand for other programs."""

from pathlib import Path


def write_program(path: Path, script: str) -> Path:
    """Write an executable shell script, in a folder that is made; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path
