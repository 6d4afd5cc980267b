"""The quarantine: fits that failed for good, with the reasons, in ``quarantine.json`` of the output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from splatfix import storage

QUARANTINE = "quarantine.json"


def read_quarantine(out: str) -> dict[str, dict[str, Any]]:
    """Read the quarantined fits of an output by stem; empty where the file does not exist or is invalid."""
    where = storage.join(out, QUARANTINE)
    if not storage.exists(where):
        return {}
    try:
        tree = json.loads(storage.read_bytes(where))["fits"]
    except (ValueError, KeyError, TypeError):
        return {}
    return tree if isinstance(tree, dict) else {}


def write_quarantine(out: str, quarantine: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the quarantined fits; without any, delete the file."""
    where = storage.join(out, QUARANTINE)
    if quarantine:
        storage.write_bytes(where, (json.dumps({"schema": 1, "fits": quarantine}, indent=1) + "\n").encode())
    else:
        storage.delete(where)
