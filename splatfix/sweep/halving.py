"""Asynchronous successive halving (ASHA, Li et al. 2020) on the loop's rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from splatfix.sweep.config import HalvingConfig


def passes_rung(round_number: int, value: float | None, others: Sequence[float], config: HalvingConfig) -> bool:
    """Whether a trial continues after a round: always between rungs, at a rung among the upper ``1 / factor``.

    Args:
        round_number: the completed round, from 1.
        value: its objective after that round; more is better. None stops the trial at a rung.
        others: the objective of other trials after that round; without any the trial continues.
    """
    if not _is_rung(round_number, config):
        return True
    if value is None:
        return False
    return not others or value >= float(np.percentile(others, 100 * (1 - 1 / config.factor)))


def _is_rung(round_number: int, config: HalvingConfig) -> bool:
    rung = float(config.grace)
    while rung < round_number:
        rung *= config.factor
    return math.floor(rung + 1e-9) == round_number
