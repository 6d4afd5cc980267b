"""The memory layout of a network in training."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from splatfix.restoration.nafnet.network import GuidedNet, NetworkConfig, use_layout
from splatfix.training.config import TrainConfig
from splatfix.training.families import FAMILIES
from splatfix.training.layout import LAYOUTS, time_steps, use_fastest_layout

NETWORK = NetworkConfig(width=4, enc_blocks=(1, 1), mid_blocks=1, dec_blocks=(1, 1))
FAMILY = FAMILIES["nafnet"]


@pytest.fixture
def network() -> GuidedNet:
    torch.manual_seed(0)
    network = GuidedNet(NETWORK)
    torch.nn.init.normal_(network.network.ending.weight, std=0.1)  # else its output is constant
    return network


@pytest.fixture
def config() -> TrainConfig:
    return TrainConfig(network=NETWORK)


def choose(network, config, seconds: dict[str, float | Exception]) -> str:
    """Choose with a clock that shows these seconds, by layout, after it has run one step."""

    def time_call(step, _device) -> float:
        step()
        shown = seconds["channels-last" if network.network.layout == torch.channels_last else "contiguous"]
        if isinstance(shown, Exception):
            raise shown
        return shown

    return use_fastest_layout(network, FAMILY, config, Accelerator(cpu=True), time_call=time_call)


@pytest.mark.parametrize(("faster", "slower"), [("channels-last", "contiguous"), ("contiguous", "channels-last")])
def test_the_faster_layout_is_taken_and_nothing_else_changes(network, config, faster, slower):
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    random_state = torch.get_rng_state()
    assert choose(network, config, {faster: 0.1, slower: 0.2}) == faster
    assert network.network.layout == LAYOUTS[faster]
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    assert network.network.intro.weight.is_contiguous(memory_format=LAYOUTS[faster])
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_full_gpu_keeps_the_usual_layout(network, config):
    full = torch.cuda.OutOfMemoryError("CUDA out of memory")
    assert choose(network, config, {"channels-last": 0.2, "contiguous": full}) == "channels-last"
    assert network.network.layout == torch.channels_last
    with pytest.raises(RuntimeError, match="of another kind"):
        choose(network, config, {"channels-last": 0.2, "contiguous": RuntimeError("of another kind")})


def test_nothing_is_timed_on_the_cpu(network, config, monkeypatch):
    monkeypatch.setattr("splatfix.training.layout.time_steps", lambda *_: pytest.fail("timed"))
    assert use_fastest_layout(network, FAMILY, config, Accelerator(cpu=True)) == "channels-last"
    assert network.network.layout == torch.channels_last


def test_both_layouts_give_the_same_output(network):
    inputs = torch.rand(2, NETWORK.in_channels, 21, 30)
    outputs = []
    for layout in LAYOUTS.values():
        use_layout(network, layout)
        outputs.append(network(inputs).rgb)
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5)
    assert outputs[0].std() > 0.05


def test_a_step_is_timed():
    steps: list[int] = []
    assert time_steps(lambda: steps.append(1), torch.device("cpu")) >= 0
    assert len(steps) == 8
