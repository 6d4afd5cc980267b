"""Metrics against closed forms and a plain float64 reference."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from splatfix import metrics
from splatfix.lpips_weights import VGG16


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    photo = torch.rand(40, 53, 3, generator=generator)
    render = (photo + 0.1 * torch.randn(photo.shape, generator=generator)).clamp(0, 1)
    return render, photo


def ssim_by_loops(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """SSIM per pixel and channel, window by window, zeros outside of the image."""
    offset = np.arange(11) - 5
    window = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * 1.5**2))
    window = (window / window.sum())[..., None]
    pad = ((5, 5), (5, 5), (0, 0))
    a, b = np.pad(a, pad), np.pad(b, pad)
    out = np.zeros((a.shape[0] - 10, a.shape[1] - 10, 3))
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
            mp, mq = (window * p).sum((0, 1)), (window * q).sum((0, 1))
            vp = (window * p * p).sum((0, 1)) - mp**2
            vq = (window * q * q).sum((0, 1)) - mq**2
            c = (window * p * q).sum((0, 1)) - mp * mq
            out[y, x] = (2 * mp * mq + 1e-4) * (2 * c + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4))
    return out


def test_psnr_closed_form():
    a = torch.zeros(4, 5, 3)
    assert metrics.psnr(a, a + 0.1) == pytest.approx(20.0, abs=1e-6)
    assert metrics.psnr(a, a) == math.inf


def test_ignored_pixels_have_no_influence_on_any_metric():
    generator = torch.Generator().manual_seed(0)
    render, photo = torch.rand(2, 40, 50, 3, generator=generator)
    validity = (torch.rand(40, 50, generator=generator) > 0.3).float()
    validity[10:20, 30:] = 0
    mask = torch.rand(40, 50, generator=generator)
    values = []
    for color in (0.0, 1.0):
        images = [torch.where(validity[..., None] > 0, image, color) for image in (render, photo)]
        for changed in ([render, images[1]], [images[0], photo], images):
            values.append(metrics.compute_metrics(*changed, mask, validity)[0])
    assert all(each == pytest.approx(values[0], abs=1e-9) for each in values)
    expected = metrics.psnr(render, photo, mask * validity)
    assert values[0]["psnr_mask"] == pytest.approx(expected) != pytest.approx(metrics.psnr(render, photo, mask))


def test_full_validity_changes_no_metric():
    render, photo = torch.rand(2, 40, 50, 3, generator=torch.Generator().manual_seed(0))
    expected, _ = metrics.compute_metrics(render, photo)
    assert metrics.compute_metrics(render, photo, None, torch.ones(40, 50))[0] == pytest.approx(expected, abs=1e-12)
    values, reasons = metrics.compute_metrics(render, photo, None, torch.zeros(40, 50))
    assert values["psnr"] is values["ssim"] is None and "every pixel" in reasons["ssim"]


def test_psnr_mask_weights_the_errors():
    photo = torch.zeros(2, 2, 3)
    render = torch.tensor([[0.1, 0.5], [0.5, 0.2]])[..., None].expand(2, 2, 3)
    mask = torch.tensor([[1.0, 0.0], [0.0, 0.5]])
    expected = -10 * math.log10((0.01 + 0.5 * 0.04) / 1.5)
    assert metrics.psnr(render, photo, mask) == pytest.approx(expected, abs=1e-5)
    assert math.isnan(metrics.psnr(render, photo, torch.zeros(2, 2)))


def test_ssim_equals_the_plain_reference(pair):
    render, photo = pair
    expected = ssim_by_loops(render.double().numpy(), photo.double().numpy())
    assert np.allclose(metrics.ssim_map(render.double(), photo.double()).numpy(), expected, atol=1e-10)
    assert metrics.ssim(render, photo) == pytest.approx(expected.mean(), abs=1e-10)
    assert metrics.ssim_map(render, photo).mean() == pytest.approx(expected.mean(), abs=1e-5)  # float32
    assert metrics.ssim(photo, photo) == pytest.approx(1.0)


def test_ssim_agrees_with_torchmetrics_away_from_the_border(pair):
    functional = pytest.importorskip("torchmetrics.functional.image")
    batch = [image.double().permute(2, 0, 1)[None] for image in pair]
    _, theirs = functional.structural_similarity_index_measure(
        *batch, gaussian_kernel=True, sigma=1.5, kernel_size=11, data_range=1.0, return_full_image=True
    )
    ours = metrics.ssim_map(*(image.double() for image in pair))
    assert torch.allclose(ours[5:-5, 5:-5], theirs[0].permute(1, 2, 0)[5:-5, 5:-5], atol=1e-9)


def test_ssim_map_has_gradients():
    a = torch.rand(12, 13, 3, dtype=torch.float64, requires_grad=True)
    b = torch.rand(12, 13, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: metrics.ssim_map(x, b).mean(), (a,), fast_mode=True)


def test_color_correction_undoes_an_affine_color_change(pair):
    _, photo = pair
    mix = torch.tensor([[0.6, 0.1, 0.0], [0.05, 0.7, 0.1], [0.0, 0.1, 0.5]])
    assert metrics.color_corrected_psnr(photo @ mix + 0.1, photo) > 100


def test_color_correction_never_lowers_psnr_even_for_a_single_color(pair):
    render, photo = pair
    assert metrics.color_corrected_psnr(render, photo) >= metrics.psnr(render, photo)
    assert math.isfinite(metrics.color_corrected_psnr(torch.full_like(photo, 0.2), photo))


def test_lpips_without_weights_gives_a_reason_and_downloads_nothing(pair, monkeypatch, tmp_path):
    models = pytest.importorskip("torchvision.models")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("a download"))
    metrics._lpips_network.cache_clear()
    value, reason = metrics.lpips(*pair)
    assert value is None and VGG16.name in reason and str(tmp_path) not in reason
    assert reason.endswith("with: splatfix fetch lpips")
    assert models.VGG16_Weights.DEFAULT.url == VGG16.url  # what the remedy fetches
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / VGG16.name).write_bytes(b"half a file")
    metrics._lpips_network.cache_clear()
    value, reason = metrics.lpips(*pair)
    assert value is None and "whole" in reason
    metrics._lpips_network.cache_clear()


def test_lpips_with_weights_on_disk(pair, monkeypatch, tmp_path):
    """With (random) weights where torch.hub keeps them, LPIPS is 0 for equal images and positive otherwise."""
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    (tmp_path / "checkpoints").mkdir()
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in models.vgg16(weights=None).state_dict().items()}
    weights = {  # one stored number for each layer that LPIPS does not use keeps the file small
        key: torch.zeros(()).expand(shape) if "classifier" in key else 0.1 * torch.randn(shape)
        for key, shape in shapes.items()
    }
    torch.save(weights, tmp_path / "checkpoints" / VGG16.name)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    metrics._lpips_network.cache_clear()
    render, photo = pair
    value, reason = metrics.lpips(render, photo)
    assert reason is None and value > 0
    assert metrics.lpips(photo, photo)[0] == pytest.approx(0.0, abs=1e-6)
    validity = torch.ones(photo.shape[:2])
    assert metrics.lpips(render, photo, validity)[0] == pytest.approx(value)
    validity[:20] = 0
    masked = [
        metrics.lpips(render, torch.where(validity[..., None] > 0, photo, color), validity)[0] for color in (0, 1)
    ]
    assert masked[0] == masked[1] > 0
    assert "every pixel" in metrics.lpips(render, photo, torch.zeros_like(validity))[1]
    metrics._lpips_network.cache_clear()


def test_metrics_that_are_none_have_reasons(pair):
    _, photo = pair
    values, reasons = metrics.compute_metrics(photo, photo, torch.zeros(photo.shape[:2]))
    assert values["psnr"] is None and "equal" in reasons["psnr"]
    assert values["psnr_mask"] is None and "empty" in reasons["psnr_mask"]
    assert values["ssim"] == pytest.approx(1.0)
    assert (values["lpips"] is None) == ("lpips" in reasons)


@pytest.mark.usefixtures("unchecked")
def test_different_sizes_are_an_error(pair):
    with pytest.raises(ValueError, match=r"\(40, 53, 3\) and \(39, 53, 3\)"):
        metrics.psnr(pair[0], pair[1][1:])


@pytest.mark.parametrize("size", [(7, 5), (32, 33), (90, 64)])  # smaller than a block, around it, several
def test_ssim_in_blocks_equals_a_convolution(size):
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, *size, 3, dtype=torch.float64, generator=generator)
    window = metrics.ssim_window()
    kernel = (window[:, None] * window[None, :]).expand(3, 1, 11, 11)

    def mean(image):
        return functional.conv2d(image.permute(2, 0, 1)[None], kernel, padding=5, groups=3)[0].permute(1, 2, 0)

    mean_a, mean_b = mean(a), mean(b)
    covariance, variances = mean(a * b) - mean_a * mean_b, mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    expected = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
    expected = expected * (2 * covariance + 9e-4) / (variances + 9e-4)
    torch.testing.assert_close(metrics.ssim_map(a, b), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("is_gray", [False, True])  # gray: the columns of the colors are equal
def test_reduced_equations_have_the_same_solution_of_least_norm(is_gray):
    generator = torch.Generator().manual_seed(0)
    source = torch.rand(500, 1 if is_gray else 3, dtype=torch.float64, generator=generator).expand(500, 3)
    source = torch.cat([source, torch.ones(500, 1, dtype=torch.float64)], dim=1)
    target = torch.rand(500, 3, dtype=torch.float64, generator=generator)
    whole, small = (
        torch.linalg.lstsq(*equations, rcond=1e-12, driver="gelsd").solution
        for equations in ((source, target), metrics._reduce_equations(source, target))
    )
    torch.testing.assert_close(small, whole, rtol=0, atol=1e-12)


def test_ssim_equals_that_of_the_training_loss(pair):
    rendering = pytest.importorskip("splatfix.rendering")
    assert metrics.ssim(*pair) == pytest.approx(float(rendering.ssim(*pair)), abs=1e-5)
