"""Checks of a sweep's settings before anything runs."""

from __future__ import annotations

import torch

from splatfix.loop.cases import find_cases
from splatfix.process import choose_device
from splatfix.restoration import RestorerChoice, open_restorer
from splatfix.restoration.identity import restorer_input
from splatfix.runs import Input
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
        raise ValueError(f"{source}: captures is empty; wanted at least one folder (or --captures A B)")
    check_space(config.space, config.loop, source=source)
    find_cases(config.captures, config.seeds)
    find_cases(config.held_out, config.seeds)
    if both := set(config.captures) & set(config.held_out):
        raise ValueError(f"{source}: held_out: {min(both)} is among the captures, too; wanted one that no trial sees")
    _check_restorers(config, source)
    return ProposalStudy(config, source=source).num_trials


def restorer_inputs(config: SweepConfig) -> dict[str, Input]:
    """The weights and programs of all restorers of a sweep, as inputs of its run (`restoration.identity`)."""
    return {
        f"restorer {RestorerChoice.of(restorer).name}": found
        for restorer in _list_restorers(config)
        for found in restorer_input(restorer).values()
    }


def _check_restorers(config: SweepConfig, source: str) -> None:
    # the driver of a cluster may run on a node without a GPU
    device = choose_device(config.loop.device) if runs_in_process(config.workers) else torch.device("cpu")
    for restorer in _list_restorers(config):
        try:
            open_restorer(restorer, device=device)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None


def _list_restorers(config: SweepConfig) -> list[str | RestorerChoice]:
    """The default restorer, and those that are searched."""
    searched = config.space["restorer"].choice if "restorer" in config.space else None
    return [config.loop.restorer, *(searched or ())]
