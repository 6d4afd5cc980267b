"""Checks of a sweep's settings before anything runs."""

from __future__ import annotations

import torch

from splatfix.loop.cases import find_cases
from splatfix.process import choose_device
from splatfix.restoration import open_restorer
from splatfix.sweep.config import SweepConfig
from splatfix.sweep.proposals import ProposalStudy
from splatfix.sweep.space import check_space
from splatfix.workers import runs_in_process


def check_sweep(config: SweepConfig, *, source: str) -> int:
    """Refuse settings that cannot work; returns the number of trials.

    Raises:
        ValueError: names source, field, value and remedy.
    """
    if not config.captures:
        raise ValueError(f"{source}: captures is empty; wanted at least one folder")
    check_space(config.space, config.loop, source=source)
    find_cases(config.captures, config.seeds)
    find_cases(config.held_out, config.seeds)
    if both := set(config.captures) & set(config.held_out):
        raise ValueError(f"{source}: held_out: {min(both)} is among the captures, too; wanted one that no trial sees")
    _check_restorers(config, source)
    return ProposalStudy(config, source=source).num_trials


def _check_restorers(config: SweepConfig, source: str) -> None:
    # the driver of a cluster may run on a node without a GPU
    device = choose_device(config.loop.device) if runs_in_process(config.workers) else torch.device("cpu")
    searched = config.space["restorer"].choice if "restorer" in config.space else None
    for restorer in [config.loop.restorer, *(searched or ())]:
        try:
            open_restorer(restorer, device=device)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
