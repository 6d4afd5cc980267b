"""One Adam with a group per parameter equals one Adam per parameter, also where gsplat's strategies grow Gaussians."""

from __future__ import annotations

import copy

import pytest
import torch

from splatfix.splats.optimizers import ParameterGroup, create_adam, load_states

RATES = {"means": 1e-2, "scales": 1e-3, "opacities": 1e-1}


def new_parameters() -> dict[str, torch.nn.Parameter]:
    """Make parameters of 20 Gaussians."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"means": (20, 3), "scales": (20, 3), "opacities": (20,)}
    return {name: torch.nn.Parameter(torch.rand(shape, generator=generator)) for name, shape in shapes.items()}


def grow(params: dict, optimizers: dict) -> None:
    """Clone and remove Gaussians as gsplat's strategies do."""
    ops = pytest.importorskip("gsplat.strategy.ops")
    ops.duplicate(params, optimizers, {}, torch.arange(20) % 3 == 0)
    ops.remove(params, optimizers, {}, torch.arange(27) % 4 == 0)
    ops.reset_opa(params, optimizers, {}, value=0.1)


def descend(params: dict, optimizers: list[torch.optim.Optimizer], num_steps: int) -> None:
    """Descend the mean fourth power of each parameter."""
    for _ in range(num_steps):
        sum(value.pow(4).mean() for value in params.values()).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def test_groups_equal_optimizers_of_their_own_before_and_after_growth() -> None:
    params, expected = new_parameters(), new_parameters()
    shared = create_adam([(params[name], rate) for name, rate in RATES.items()])
    groups = {name: ParameterGroup(shared, index) for index, name in enumerate(RATES)}
    separate = {name: create_adam([(expected[name], rate)]) for name, rate in RATES.items()}
    assert groups["means"].state_dict() == separate["means"].state_dict()  # before the first step
    for _ in range(2):
        descend(params, [shared], 3)
        descend(expected, list(separate.values()), 3)
        for name, value in expected.items():
            assert torch.equal(params[name], value)
            found, wanted = groups[name].state_dict(), separate[name].state_dict()
            assert found["param_groups"] == wanted["param_groups"]
            assert found["state"].keys() == wanted["state"].keys()
            for key, each in wanted["state"][0].items():
                assert torch.equal(found["state"][0][key], each)
        if len(params["means"]) == 20:
            grow(params, groups)
            grow(expected, separate)
    assert len(params["means"]) == 20  # 7 cloned, 7 removed
    assert len(shared.state) == len(RATES)


def test_loaded_states_continue_as_the_optimizer_would() -> None:
    params = new_parameters()
    shared = create_adam(list(zip(params.values(), RATES.values(), strict=True)))
    descend(params, [shared], 3)
    twins = {name: torch.nn.Parameter(value.detach().clone()) for name, value in params.items()}
    restored = create_adam([(value, 0.5) for value in twins.values()])
    load_states(restored, copy.deepcopy([ParameterGroup(shared, index).state_dict() for index in range(len(RATES))]))
    descend(params, [shared], 3)
    descend(twins, [restored], 3)
    assert all(torch.equal(twins[name], value) for name, value in params.items())


def test_states_of_another_number_of_groups_are_refused() -> None:
    params = new_parameters()
    shared = create_adam(list(zip(params.values(), RATES.values(), strict=True)))
    with pytest.raises(ValueError, match="different number of parameter groups"):
        load_states(shared, [ParameterGroup(shared, 0).state_dict()])
