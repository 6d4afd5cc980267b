"""A comparison that takes seconds: the shipped sample at 32 px, a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from splatfix.compare.config import CompareConfig
from splatfix.config import build_config
from splatfix.sample import sample_path
from tests.sweep.small import TREE as SWEEP

TREE: dict[str, Any] = {
    "captures": [str(sample_path())],
    "restorers": ["identity", "warp"],
    "loop": {**SWEEP["loop"], "repair": {"rounds": 1, "views": 3, "steps": 5, "siblings": 1}},
    "path_frames": 3,
    "workers": {"num": 0},
    "tracking": {"enabled": False},
}


def small(**changes: Any) -> CompareConfig:
    return build_config(CompareConfig, {**TREE, **changes}, source="test")


def write_config(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump({**TREE, **changes}))
    return path
