"""The guided network: identity at first, gates that invalid warps cannot pass, bounded corrections."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from splatfix.conditioning import compute_conditioning
from splatfix.config import build_config, to_tree
from splatfix.restoration.nafnet.network import (
    GuidedNet,
    NetworkConfig,
    confidence_from,
    network_inputs,
    warps_in,
    widen,
)
from tests.restoration.scenery import flawed_view, rendered_view

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


def test_buffers_are_input_planes_in_the_order_of_their_names():
    config = NetworkConfig(buffers=("opacity", "normal"), num_references=1, **SMALL)
    view = rendered_view()
    conditioning = compute_conditioning(view, 1, with_buffers=True)
    inputs = network_inputs(conditioning, config)
    assert len(inputs) == config.in_channels == 3 + 4 + 1 + 4 + 1
    planes = conditioning.buffers
    assert torch.equal(inputs[8:12], torch.cat([planes[..., 5:6], planes[..., :3]], -1).permute(2, 0, 1))
    assert torch.equal(inputs[12], conditioning.nearness)
    with pytest.raises(ValueError, match="conditioning has no buffers; this network is given opacity, normal"):
        network_inputs(compute_conditioning(view, 1), config)


def test_a_buffer_named_twice_is_refused():
    with pytest.raises(ValueError, match=r"network.buffers = \['seen', 'seen'\]: wanted each once"):
        NetworkConfig(buffers=("seen", "seen"))


def test_a_widened_network_repairs_as_before_and_learns_from_its_new_inputs():
    config = NetworkConfig(num_references=1, alpha=False, **SMALL)
    trained = GuidedNet(config)
    torch.manual_seed(0)
    for value in trained.parameters():
        torch.nn.init.normal_(value, std=0.05)
    more = replace(config, num_references=2, alpha=True, buffers=("footprint", "seen"))
    widened = widen(trained, more)
    conditioning = compute_conditioning(rendered_view(), 2, with_buffers=True)
    old = trained(network_inputs(conditioning, config)[None])
    new = widened(network_inputs(conditioning, more)[None])
    assert (old.rgb - new.rgb).abs().max() < 0.01  # the gate of the new photo is nearly closed, as in a fresh network
    assert torch.allclose(old.log_error, new.log_error, atol=1e-5)
    new.rgb.square().mean().backward()
    gradient = widened.network.intro.weight.grad
    assert (gradient.abs().sum((0, 2, 3)) > 0).sum() >= more.in_channels - 4  # warps may be invalid everywhere
    assert widen(widened, config) is None and widen(trained, replace(more, width=16)) is None
