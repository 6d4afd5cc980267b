"""Inputs and outputs of the emulated functions: what is checked, rounded and left unwritten, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def check_inputs(*tensors: Tensor | None) -> None:
    """Check what the compiled module checks or reads without a check: contiguous, and not float64."""
    for tensor in tensors:
        if tensor is not None:
            assert tensor.is_contiguous(), f"an input is not contiguous: {tuple(tensor.shape)}, {tensor.stride()}"
            assert tensor.dtype in (torch.float32, torch.int32, torch.int64, torch.bool), f"an input is {tensor.dtype}"


def poison(values: Tensor, unwritten: Tensor) -> Tensor:
    """Round to float32, with NaN where the compiled module writes nothing."""
    return torch.where(
        unwritten.reshape(*unwritten.shape, *[1] * (values.ndim - unwritten.ndim)), torch.nan, values
    ).float()


def make_leaves(*tensors: Tensor) -> list[Tensor]:
    return [t.detach().double().requires_grad_() for t in tensors]


def pull_back(outputs: Sequence[Tensor], wanted: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    """Compute gradients of the leaves, in float32; of a leaf that no output depends on, zero."""
    found = torch.autograd.grad(outputs, leaves, [v.double() for v in wanted], allow_unused=True)
    return [torch.zeros_like(t).float() if g is None else g.float() for g, t in zip(found, leaves, strict=True)]
