"""The quarantine: fits that failed for good, with their reasons, in ``quarantine.json`` of the output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from splatfix import storage
from splatfix.files import parse_json
from splatfix.messages import readable, without_secrets
from splatfix.workers import Outcome

QUARANTINE = "quarantine.json"
MAX_LINES = 40  # of a traceback that are kept, at its end
MAX_LINE = 300  # characters
MAX_TRACEBACKS = 200  # in the file; further fits have their reason only


def describe_outcome(capture: str, outcome: Outcome[Any]) -> dict[str, Any]:
    """Describe a failed fit: capture, reason, number of attempts, and node and traceback of the last one."""
    lines = (outcome.traceback or "").rstrip().splitlines()[-MAX_LINES:]
    return {
        "capture": without_secrets(capture),
        "reason": None if outcome.error is None else readable(outcome.error),
        "attempts": outcome.attempts,
        "node": outcome.node,
        "traceback": [without_secrets(line)[:MAX_LINE] for line in lines],
    }


def read_quarantine(out: str) -> dict[str, dict[str, Any]]:
    """Read the quarantined fits of an output by stem; empty where the file does not exist or is invalid."""
    where = storage.join(out, QUARANTINE)
    if not storage.exists(where):
        return {}
    try:
        tree = parse_json(storage.read_bytes(where), where)
    except ValueError:
        return {}
    fits = tree.get("fits") if isinstance(tree, dict) else None
    return {stem: fit for stem, fit in fits.items() if isinstance(fit, dict)} if isinstance(fits, dict) else {}


def write_quarantine(out: str, quarantine: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the quarantined fits; without any, delete the file."""
    where = storage.join(out, QUARANTINE)
    if quarantine:
        entries = {
            stem: entry if number < MAX_TRACEBACKS else {**entry, "traceback": []}
            for number, (stem, entry) in enumerate(quarantine.items())
        }
        storage.write_bytes(where, (json.dumps({"schema": 1, "fits": entries}, indent=1) + "\n").encode())
    else:
        storage.delete(where)
