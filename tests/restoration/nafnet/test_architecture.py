"""NAFNet is the published one: parameters, names, padding; TLC pools as it should."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from splatfix.restoration.nafnet.architecture import SHAPES, LayerNorm2d, NAFNet, local_mean, use_local_pooling

PUBLISHED = {"gopro-width32": 17.112, "gopro-width64": 67.889, "sidd-width32": 29.160, "sidd-width64": 115.983}
SMALL = {"width": 8, "enc_blocks": (1, 1), "mid_blocks": 1, "dec_blocks": (1, 1)}


def awake(network: NAFNet) -> NAFNet:
    """With residual scales that are not zero, so that the blocks do something."""
    for name, parameter in network.named_parameters():
        if name.endswith(("beta", "gamma")):
            torch.nn.init.normal_(parameter)
    return network.eval()


@pytest.mark.parametrize(("shape", "millions"), PUBLISHED.items())
def test_published_shapes_have_the_published_number_of_parameters(shape, millions):
    with torch.device("meta"):
        network = NAFNet(**vars(SHAPES[shape]))
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.001)


def test_parameters_carry_the_published_names():
    names = set(NAFNet(**SMALL).state_dict())
    block = {
        *(f"conv{i}.{part}" for i in range(1, 6) for part in ("weight", "bias")),
        *(f"norm{i}.{part}" for i in (1, 2) for part in ("weight", "bias")),
        *("sca.1.weight", "sca.1.bias", "beta", "gamma"),
    }
    wanted = {f"{end}.{part}" for end in ("intro", "ending") for part in ("weight", "bias")}
    wanted |= {f"{side}.{level}.0.{name}" for side in ("encoders", "decoders") for level in (0, 1) for name in block}
    wanted |= {f"middle_blks.0.{name}" for name in block}
    wanted |= {f"downs.{level}.{part}" for level in (0, 1) for part in ("weight", "bias")}
    wanted |= {f"ups.{level}.0.weight" for level in (0, 1)}
    assert names == wanted
    assert NAFNet(**SMALL).state_dict()["encoders.0.0.beta"].shape == (1, 8, 1, 1)


@pytest.mark.parametrize("size", [(17, 23), (4, 4), (1, 5), (32, 24)])
def test_any_size(size):
    network = awake(NAFNet(5, 3, **SMALL))
    image = torch.rand(2, 5, *size)
    with torch.no_grad():
        assert network(image).shape == (2, 3, *size)
        padded = F.pad(image, (0, -size[1] % 4, 0, -size[0] % 4))
        torch.testing.assert_close(network(image), network(padded)[..., : size[0], : size[1]], atol=1e-5, rtol=1e-5)


def test_layer_norm_normalises_channels():
    x = torch.randn(2, 6, 5, 4)
    norm = LayerNorm2d(6)
    torch.nn.init.normal_(norm.weight)
    mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    wanted = (x - mean) / (var + 1e-6).sqrt() * norm.weight.view(1, -1, 1, 1)
    torch.testing.assert_close(norm(x), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window_px", [4, 5, 100])
def test_local_mean_is_the_mean_of_a_window_inside_the_image(window_px):
    x = torch.randn(1, 3, 9, 11) + 5
    means = local_mean(x, window_px)
    h, w = min(window_px, 9), min(window_px, 11)
    for i, j in ((0, 0), (4, 5), (8, 10), (2, 9)):
        top, left = min(max(i - (9 - (9 - h + 1)) // 2, 0), 9 - h), min(max(j - (11 - (11 - w + 1)) // 2, 0), 11 - w)
        wanted = x[0, :, top : top + h, left : left + w].mean((1, 2))
        torch.testing.assert_close(means[0, :, i, j], wanted, atol=1e-5, rtol=1e-5)


def test_local_pooling_changes_large_images_alone():
    network = awake(NAFNet(3, 3, **SMALL))
    patch, large = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 64, 48)
    with torch.no_grad():
        before = network(patch), network(large)
        use_local_pooling(network, 16)
        assert network.encoders[0][0].sca[0].window_px == 24
        assert network.middle_blks[0].sca[0].window_px == 6
        assert network.decoders[0][0].sca[0].window_px == 12
        assert network.decoders[1][0].sca[0].window_px == 24
        torch.testing.assert_close(network(patch), before[0])
        assert (network(large) - before[1]).abs().max() > 1e-4
        use_local_pooling(network, None)
        torch.testing.assert_close(network(large), before[1])


def test_channels_last_and_contiguous_memory_agree():
    network = awake(NAFNet(4, 3, **SMALL, residual=False))
    image = torch.rand(1, 4, 24, 20)
    with torch.no_grad():
        a, b = network(image), network(image.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(a, b)


def test_shapes_that_cannot_be():
    with pytest.raises(ValueError, match="as many levels"):
        NAFNet(enc_blocks=(1, 1), dec_blocks=(1,))
    with pytest.raises(ValueError, match="out_channels"):
        NAFNet(3, 4)
