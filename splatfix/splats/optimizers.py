"""One Adam for all parameters of a fit, whose groups act as the optimizers that gsplat's strategies expect.

A step of one optimizer costs the host less than steps of six. gsplat's strategies take a dict of optimizers with one
group each; when the number of Gaussians changes they replace the parameter in ``param_groups`` and its entry in
``state``, and use nothing else of an optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def create_adam(parameters: Sequence[tuple[torch.nn.Parameter, float]]) -> torch.optim.Adam:
    """Create an Adam with a group for each of these parameters and learning rates."""
    return torch.optim.Adam([{"params": value, "lr": rate} for value, rate in parameters], eps=1e-15, fused=True)


@dataclass(frozen=True, eq=False)
class ParameterGroup:
    """The optimizer of one parameter, as gsplat's strategies see it: a group of an optimizer of several.

    Attributes:
        optimizer: the optimizer of all parameters.
        index: of the group, which holds one parameter.
    """

    optimizer: torch.optim.Optimizer
    index: int

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The group alone; changes of it reach the optimizer."""
        return [self.optimizer.param_groups[self.index]]

    @property
    def state(self) -> dict[Tensor, Any]:
        """The state of all parameters; changes of it reach the optimizer."""
        return self.optimizer.state

    @property
    def own_state(self) -> Mapping[str, Any]:
        """The state of the parameter; empty before the first step."""
        [parameter] = self.param_groups[0]["params"]
        return self.state.get(parameter, {})

    def state_dict(self) -> dict[str, Any]:
        """Return what an optimizer of this parameter alone would return."""
        group = {name: value for name, value in self.param_groups[0].items() if name != "params"}
        return {"state": {0: self.own_state} if self.own_state else {}, "param_groups": [group | {"params": [0]}]}


def load_states(optimizer: torch.optim.Optimizer, states: Sequence[Mapping[str, Any]]) -> None:
    """Restore what `ParameterGroup.state_dict` returned of each group. ValueError for another number of groups."""
    merged: dict[str, Any] = {"state": {}, "param_groups": []}
    for index, saved in enumerate(states):
        [group] = saved["param_groups"]
        merged["param_groups"].append(group | {"params": [index]})
        if saved["state"]:
            merged["state"][index] = saved["state"][0]
    optimizer.load_state_dict(merged)
