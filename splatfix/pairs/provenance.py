"""What made a fit: version and code of splatfix, device and node. Other code or another device makes other fits."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from splatfix.process import name_device
from splatfix.runs import describe_code

log = logging.getLogger(__name__)

MADE_BY = "made_by"  # field of the record of a fit
MAX_SHOWN = 4


def describe_maker(device: torch.device) -> dict[str, str | None]:
    """Describe the code, device and node of this process, for the record of a fit."""
    return {**describe_code(), "device": device.type, "device_name": name_device(device), "node": socket.gethostname()}


def name_maker(record: Mapping[str, Any]) -> str:
    """Name what made a fit, so that equal names mean the same version, code and kind of device."""
    maker = record.get(MADE_BY)
    if not isinstance(maker, dict):
        return "an older splatfix"
    return f"splatfix {maker.get('version')} (code {str(maker.get('code'))[:8]}) on {maker.get('device')}"


def describe_mix(makers: Mapping[str, int]) -> str:
    """List what made the fits, with the number of fits of each."""
    shown = Counter(makers).most_common()
    parts = [f"{count} by {name}" for name, count in shown[:MAX_SHOWN]]
    if len(shown) > MAX_SHOWN:
        parts.append(f"{sum(count for _, count in shown[MAX_SHOWN:])} by others")
    return ", ".join(parts)


class MixCheck:
    """Warns once if an output holds fits of different versions, code or kinds of device.

    Attributes:
        makers: number of fits by `name_maker`.
    """

    def __init__(self, out: str) -> None:
        self.makers: Counter[str] = Counter()
        self._out = out
        self._has_warned = False

    def add(self, record: Mapping[str, Any]) -> None:
        """Count a fit that the output holds at the start."""
        self.makers[name_maker(record)] += 1

    def check_code(self) -> None:
        """Warn if other code made the fits that the output holds at the start."""
        code = describe_code()
        own = name_maker({MADE_BY: {**code, "device": ""}})
        if any(not name.startswith(own) for name in self.makers):
            self._warn(f"more fits are made by {own.removesuffix(' on ')}, other code made some before")

    def add_new(self, record: Mapping[str, Any]) -> None:
        """Count a fit that was just made, and warn if others were made differently."""
        self.add(record)
        if len(self.makers) > 1:
            self._warn("fits are made differently")

    def _warn(self, what: str) -> None:
        if not self._has_warned:
            log.warning(
                "%s: %s (%s); they may differ, --fresh or another --out keeps them apart",
                *(self._out, what, describe_mix(self.makers)),
            )
        self._has_warned = True
