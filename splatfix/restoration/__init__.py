"""Restorers: flawed views in, repaired views out.

A new restorer is a factory in `RESTORERS`; a trained network is a folder. See `restorer.Restorer`. What opens
a network is imported when one is opened: the networks themselves must import with torch and numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from splatfix.restoration.baselines import Bilateral, Identity, Warp
from splatfix.restoration.restorer import Repaired, Restorer

__all__ = ["RESTORERS", "Repaired", "Restorer", "open_restorer"]

SHIPPED_NAFNET = Path(__file__).parent / "nafnet" / "weights"


def _trained(place: str | Path, device: torch.device) -> Restorer:
    from splatfix.restoration.nafnet.restorer import LearnedRestorer

    return LearnedRestorer.open(place, device)


def _shipped_nafnet(device: torch.device) -> Restorer:
    if not SHIPPED_NAFNET.is_dir():
        raise ValueError(
            f"restorer 'nafnet': its weights are not in this installation ({SHIPPED_NAFNET}); "
            "train one with `splatfix train` and give its folder instead"
        )
    return _trained(SHIPPED_NAFNET, device)


RESTORERS: dict[str, Callable[[torch.device], Restorer]] = {
    "identity": lambda device: Identity(),  # noqa: ARG005
    "classical": lambda device: Bilateral(),  # noqa: ARG005
    "warp": lambda device: Warp(),  # noqa: ARG005
    "nafnet": _shipped_nafnet,
}


def open_restorer(name_or_path: str | Path, device: torch.device | str = "auto") -> Restorer:
    """A restorer by name, or from a checkpoint folder, a training run or an id of the Hugging Face Hub.

    Raises:
        ValueError: neither a known name (they are listed) nor a checkpoint.
    """
    from splatfix.process import choose_device

    device = choose_device(device) if isinstance(device, str) else device
    name = str(name_or_path)
    if name in RESTORERS:
        return RESTORERS[name](device)
    if "/" in name or "\\" in name or Path(name).exists():
        return _trained(name_or_path, device)
    raise ValueError(f"restorer {name!r}: unknown; wanted one of {', '.join(RESTORERS)}, or a checkpoint's folder")
