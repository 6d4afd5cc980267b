"""SSIM against a float64 reference, values and gradients."""

from __future__ import annotations

import pytest
import torch

from splatfix.rendering import l1_and_ssim, ssim
from splatfix.rendering.ssim import _convolve
from tests.rendering import reference


def pair(height: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """An image in [0, 1] and a noisy copy."""
    random = torch.Generator().manual_seed(seed)
    image = torch.rand(height, width, 3, generator=random)
    return (image + 0.2 * torch.randn(height, width, 3, generator=random)).clamp(0, 1), image


@pytest.mark.parametrize("size", [(40, 33), (11, 11), (5, 7), (1, 1), (1, 30), (64, 3)])
def test_map_and_gradient(size: tuple[int, int]) -> None:
    a, b = pair(*size)
    weights = torch.randn(*size, generator=torch.Generator().manual_seed(1))
    ours, theirs = a.clone().requires_grad_(), a.double().requires_grad_()
    found = ssim(ours, b, reduce="map")
    expected = reference.ssim(theirs, b).mean(-1)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert (ours.grad - theirs.grad).norm() < 1e-4 * theirs.grad.norm()


def test_mean() -> None:
    a, b = pair(50, 60)
    ours, theirs = a.clone().requires_grad_(), a.double().requires_grad_()
    value, expected = ssim(ours, b), reference.ssim(theirs, b).mean()
    assert abs(value.item() - expected.item()) < 1e-6
    value.backward()
    expected.backward()
    assert (ours.grad - theirs.grad).norm() < 1e-4 * theirs.grad.norm()


def test_flat_images() -> None:
    """No variance anywhere but at the zero padding: finite, 1 for equal images."""
    a = torch.full((30, 30, 3), 0.7, requires_grad=True)
    value = ssim(a, torch.full((30, 30, 3), 0.7))
    assert abs(value.item() - 1) < 1e-4
    ssim(a, torch.zeros(30, 30, 3)).backward()
    assert a.grad.isfinite().all()


def test_convolution_agrees() -> None:
    """What runs on CUDA, run here."""
    a, b = pair(31, 45)
    ours, theirs = a.clone().requires_grad_(), a.clone().requires_grad_()
    value, other = ssim(ours, b), _convolve(theirs, b).mean()
    assert abs(value.item() - other.item()) < 1e-5
    value.backward()
    other.backward()
    assert (ours.grad - theirs.grad).norm() < 1e-3 * theirs.grad.norm()


def test_part_of_a_batch() -> None:
    """Views into larger tensors, as a training step has them."""
    a, b = pair(40, 50)
    padded = torch.zeros(2, 64, 64, 3)
    padded[1, :40, :50] = a
    assert ssim(padded[1, :40, :50], b).item() == ssim(a, b).item()


@pytest.mark.usefixtures("unchecked")
def test_errors_say_what_was_wanted() -> None:
    with pytest.raises(ValueError, match=r"wanted both \[H, W, 3\]"):
        ssim(torch.zeros(4, 4, 3), torch.zeros(4, 5, 3))
    with pytest.raises(ValueError, match="wanted 'mean' or 'map'"):
        ssim(torch.zeros(4, 4, 3), torch.zeros(4, 4, 3), reduce="sum")


@pytest.mark.parametrize("weight", [0.2, 1.0])
@pytest.mark.parametrize("size", [(40, 33), (5, 7), (1, 1), (64, 3), (1, 30), (130, 90)])
def test_loss(size: tuple[int, int], weight: float) -> None:
    """L1 and SSIM in one kernel: the value and its gradient, also times an upstream gradient."""
    a, b = pair(*size)
    ours, theirs = a.clone().requires_grad_(), a.double().requires_grad_()
    value = l1_and_ssim(ours, b, weight)
    expected = (1 - weight) * (theirs - b.double()).abs().mean() + weight * (1 - reference.ssim(theirs, b).mean())
    assert abs(value.item() - expected.item()) < 1e-6
    (3 * value).backward()
    (3 * expected).backward()
    assert (ours.grad - theirs.grad).norm() < 1e-4 * theirs.grad.norm()


def test_loss_of_equal_images() -> None:
    """No difference, no gradient of L1: as ``torch.abs`` has it."""
    a = torch.rand(9, 14, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = l1_and_ssim(a, a.detach().clone(), 0.2)
    assert abs(value.item()) < 1e-5
    value.backward()
    assert a.grad.abs().max() < 1e-6
