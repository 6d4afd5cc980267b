"""Color fits against maps that are known."""

import pytest
import torch

from splatfix.color_fit import MIN_PIXELS, ColorFit, fit_color

GAIN = torch.tensor([0.9, 1.0, 1.08])
BIAS = torch.tensor([0.02, -0.01, 0.03])


@pytest.fixture
def image() -> torch.Tensor:
    """Smooth colors between 0.1 and 0.8, some of them far from gray."""
    y, x = torch.meshgrid(torch.linspace(0, 3, 48), torch.linspace(0, 4, 64), indexing="ij")
    return 0.45 + 0.35 * torch.stack([torch.sin(x), torch.cos(y + x), torch.sin(2 * y - x)], dim=-1)


def assert_identity(fit: ColorFit) -> None:
    assert fit.form == "identity"
    assert fit.gain == (1, 1, 1)
    assert fit.bias == (0, 0, 0)
    assert fit.inlier_share == 0


def test_a_known_gain_comes_back(image):
    fit = fit_color(image, image * GAIN)
    assert fit.form == "gain_bias"
    assert fit.gain == pytest.approx(GAIN.tolist(), rel=0.002)
    assert fit.bias == pytest.approx([0, 0, 0], abs=0.002)
    assert fit.inlier_share > 0.95
    assert fit.num_pixels == 48 * 64


def test_gain_and_bias_come_back(image):
    fit = fit_color(image, image * GAIN + BIAS)
    assert fit.gain == pytest.approx(GAIN.tolist(), rel=0.01)
    assert fit.bias == pytest.approx(BIAS.tolist(), abs=0.005)


def test_a_gain_comes_back_through_clipping_and_8_bits(image):
    bright = (image * 1.35).clamp(0, 1)  # a part is white now
    frame = ((bright * GAIN.flip(0)).clamp(0, 1) * 255).round() / 255
    fit = fit_color((bright * 255).round() / 255, frame)
    assert fit.gain == pytest.approx(GAIN.flip(0).tolist(), rel=0.01)
    assert fit.num_pixels < 48 * 64


def test_outliers_do_not_move_it(image):
    target = image * GAIN
    target[10:40, 5:30] = torch.tensor([0.9, 0.1, 0.2])  # a quarter of the image shows something else
    target += 0.01 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    fit = fit_color(image, target)
    assert fit.gain == pytest.approx(GAIN.tolist(), rel=0.01)
    assert fit.inlier_share == pytest.approx(0.7, abs=0.15)


def test_pixels_without_weight_do_not_count(image):
    target = image * GAIN
    target[:32] = 1 - image[:32]
    weights = torch.ones(48, 64)
    weights[:32] = 0
    fit = fit_color(image, target, weights)
    assert fit.gain == pytest.approx(GAIN.tolist(), rel=0.005)
    assert fit.num_pixels == 16 * 64


def test_a_fit_maps_the_colors(image):
    target = image * GAIN + BIAS
    torch.testing.assert_close(fit_color(image, target).apply(image), target, atol=0.004, rtol=0)


def test_gray_images_give_their_gains(image):
    gray = image[..., :1].expand(-1, -1, 3)
    assert fit_color(gray, gray * GAIN).gain == pytest.approx(GAIN.tolist(), abs=0.005)


def test_a_flat_image_gives_a_gain_without_offset():
    flat = torch.full((20, 20, 3), 0.5)
    fit = fit_color(flat, flat * GAIN)
    assert fit.form == "gain"
    assert fit.gain == pytest.approx(GAIN.tolist(), rel=0.001)
    assert fit.bias == (0, 0, 0)
    same = fit_color(flat, flat)
    assert same.gain == pytest.approx((1, 1, 1))


def test_degenerate_images_give_the_identity(image):
    black = torch.zeros(20, 20, 3) + 0.01
    assert_identity(fit_color(black, black + 0.3))
    assert_identity(fit_color(torch.ones(20, 20, 3), image[:20, :20]))  # clipped
    assert_identity(fit_color(image, image * GAIN, torch.zeros(48, 64)))
    few = torch.zeros(48, 64)
    few.view(-1)[: MIN_PIXELS - 1] = 1
    assert_identity(fit_color(image, image * GAIN, few))
    assert_identity(fit_color(image[:4, :4], image[:4, :4] * GAIN))


def test_a_dark_channel_keeps_its_gain(image):
    image = image.clone()
    image[..., 2] = 0.01
    fit = fit_color(image, image * GAIN)
    assert fit.gain[2] == pytest.approx(1, abs=0.1)
    assert fit.gain[:2] == pytest.approx(GAIN[:2].tolist(), rel=0.01)


@pytest.mark.usefixtures("unchecked")
def test_shapes_that_do_not_match_are_refused(image):
    with pytest.raises(ValueError, match=r"color fit of images of shapes \(48, 64, 3\) and \(47, 64, 3\)"):
        fit_color(image, image[1:])
    with pytest.raises(ValueError, match=r"weights of shape \(64, 48\); wanted \(48, 64\)"):
        fit_color(image, image, torch.ones(64, 48))
