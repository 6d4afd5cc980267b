"""Run by `test_triton_loss` in a process whose Triton interprets kernels: values and gradients beside torch's."""

from __future__ import annotations

import json
from unittest.mock import patch

import torch
from torch import Tensor

from splatfix.rendering.ssim import Loss, l1_and_ssim_with_torch
from splatfix.rendering.triton_ssim import Photometric
from splatfix.splats import losses

SIZES = [(40, 33), (5, 7), (1, 1), (64, 3), (1, 30), (37, 61)]  # none is a multiple of a block; two take several
WEIGHTS: tuple[tuple[str, ...], ...] = ((), ("confidence",), ("confidence", "validity"))


def run_loss(
    loss: Loss, dtype: torch.dtype, size: tuple[int, int], weights: tuple[str, ...], ssim_weight: float
) -> tuple[float, Tensor]:
    """The photometric loss of a view into a padded image, and its gradient."""
    random = torch.Generator().manual_seed(0)
    b = torch.rand(*size, 3, generator=random)
    a = (b + 0.2 * torch.randn(*size, 3, generator=random)).clamp(0, 1)
    if size[0] > 5 and not weights:
        a[:2] = b[:2]  # where images are equal, L1 has no gradient; a blend of equal images may round up or down
    padded = torch.zeros(2, size[0] + 3, size[1] + 5, 3, dtype=dtype)
    padded[1, : size[0], : size[1]] = a
    padded.requires_grad_()
    shares = {"confidence": 0.7, "validity": 1.0}  # or 0
    given = {name: shares[name] * (torch.rand(*size, generator=random) > 0.3).to(dtype) for name in weights}
    with patch.object(losses, "l1_and_ssim", loss):
        value = losses.photometric_loss(padded[1, : size[0], : size[1]], b.to(dtype), ssim_weight, **given)
    (3 * value).backward()
    assert padded.grad is not None
    return value.item(), padded.grad.double()


def main() -> None:
    rows = []
    for size in SIZES:
        for weights in WEIGHTS:
            for ssim_weight in (0.2, 1.0):
                setting = size, weights, ssim_weight
                value, gradient = run_loss(_apply, torch.float32, *setting)
                wanted, expected = run_loss(l1_and_ssim_with_torch, torch.float64, *setting)
                rows.append([setting, abs(value - wanted), float((gradient - expected).norm()), float(expected.norm())])
    print(json.dumps(rows))


def _apply(a: Tensor, b: Tensor, ssim_weight: float) -> Tensor:
    return Photometric.apply(a, b.detach(), ssim_weight)


if __name__ == "__main__":
    main()
