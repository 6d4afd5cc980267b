"""Run folders: the resolved config, the seconds of each stage, and the provenance of what a run left."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import splatfix
from splatfix.config import to_yaml
from splatfix.files import write_json, write_text
from splatfix.process import peak_memory_mb


@dataclass
class Run:
    """A run folder in the making: knows its path, how long each stage took, and how fast it trained."""

    path: Path
    seconds: dict[str, float] = field(default_factory=dict)
    num_steps: int = 0
    step_seconds: float = 0.0

    def count_steps(self, num: int, seconds: float) -> None:
        """Training steps that were made, and how long they took."""
        self.num_steps += num
        self.step_seconds += seconds

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; repeated stages add up."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def write_provenance(self, *, command: str, seed: int, device: torch.device, **more: Any) -> None:
        """Write ``run.json``."""
        write_json(
            self.path / "run.json",
            {
                "command": command,
                "version": splatfix.__version__,
                "commit": source_commit(),
                "seed": seed,
                "device": str(device),
                "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor(),
                "num_threads": torch.get_num_threads(),
                "python": platform.python_version(),
                "torch": torch.__version__,
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
                "steps_per_second": round(self.num_steps / self.step_seconds, 2) if self.num_steps else None,
                "peak_memory_mb": peak_memory_mb(),
                **more,
            },
        )


def open_run(path: Path, config: Any) -> Run:
    """Make a run folder and write the resolved config into it. ValueError where the path is a file."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path}: is a file; wanted a folder for the run")
    path.mkdir(parents=True, exist_ok=True)
    write_text(path / "config.yaml", to_yaml(config))
    return Run(path)


def source_commit() -> str | None:
    """The commit of the checkout that splatfix is imported from; None for an installed package."""
    root = Path(splatfix.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
