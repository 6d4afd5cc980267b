"""The guided network: identity at first, gates that invalid warps cannot pass, bounded corrections."""

from __future__ import annotations

import pytest
import torch

from splatfix.conditioning import compute_conditioning
from splatfix.config import build_config, to_tree
from splatfix.restoration.nafnet.network import GuidedNet, NetworkConfig, confidence_from, network_inputs, warps_in
from tests.restoration.scenery import flawed_view

SMALL = {"width": 8, "enc_blocks": (1, 1), "mid_blocks": 1, "dec_blocks": (1, 1)}


def inputs_for(config: NetworkConfig) -> torch.Tensor:
    return network_inputs(compute_conditioning(flawed_view(1), config.num_references), config)[None]


@pytest.mark.parametrize("head", ["gated", "residual"])
@pytest.mark.parametrize(("references", "alpha", "depth", "error"), [(2, True, True, True), (0, False, False, False)])
def test_starts_as_identity(head, references, alpha, depth, error):
    config = NetworkConfig(head=head, num_references=references, alpha=alpha, depth=depth, predict_error=error, **SMALL)
    inputs = inputs_for(config)
    assert inputs.shape[1] == config.in_channels
    output = GuidedNet(config)(inputs)
    allowed = 0.015 if head == "gated" and references else 1e-6
    assert (output.rgb - inputs[:, :3]).abs().max() <= allowed
    assert (output.log_error is None) == (not error)


def test_missing_references_are_invalid_warps():
    config = NetworkConfig(num_references=3, **SMALL)
    inputs = network_inputs(compute_conditioning(flawed_view(0, num_references=1), 3), config)[None]
    warps = warps_in(inputs, 3)
    assert warps[:, 0, 3].max() > 0.9
    assert (warps[:, 1:] == 0).all()


def test_gates_cannot_bring_in_what_is_not_valid_and_the_residual_is_bounded():
    config = NetworkConfig(max_residual=0.1, **SMALL)
    network = GuidedNet(config)
    torch.nn.init.constant_(network.network.ending.bias, 30.0)  # every gate and the residual wide open
    inputs = inputs_for(config)
    inputs[:, 3:6], inputs[:, 6] = 1.0, 0.0  # a white warp that is nowhere valid
    inputs[:, 7:10], inputs[:, 10] = inputs[:, :3], 1.0
    output = network(inputs)
    assert (output.rgb - inputs[:, :3]).abs().max() <= 0.1 + 1e-5
    assert torch.isfinite(output.rgb).all()
    inputs[:, 6] = 1.0
    assert (network(inputs).rgb - inputs[:, :3]).abs().max() > 0.3


def test_every_parameter_learns_and_gradients_are_finite_where_nothing_is_valid():
    config = NetworkConfig(**SMALL)
    network = GuidedNet(config)
    for _ in range(3):
        output = network(inputs_for(config))
        (output.rgb.square().mean() + output.log_error.mean()).backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter -= 0.1 * parameter.grad
    for name, parameter in network.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_confidence_falls_with_the_error():
    confidence = confidence_from(torch.tensor([1e-4, 0.05, 0.5]).log().view(1, 1, 1, 3))[0, 0]
    assert confidence[0] > 0.99
    assert confidence[0] > confidence[1] > confidence[2] > 0


def test_a_shape_by_name_stands_for_its_sizes():
    named = NetworkConfig(shape="medium", width=3)
    assert (named.width, named.enc_blocks, named.mid_blocks) == (32, (1, 1, 1, 4), 4)
    assert build_config(NetworkConfig, to_tree(named), source="test") == named
    with pytest.raises(ValueError, match=r"network\.shape = 'huge': wanted one of small, medium, gopro-width32"):
        NetworkConfig(shape="huge")
