"""Run code of splatfix on fake CUDA tensors, without a GPU, and record what would cost time or be wrong on a real one.

Tensors on ``cuda`` are torch's FakeTensors: shapes, dtypes and devices without values. Tensors on the CPU stay real.
Recorded are waits of the host for the device, copies between them and float64 on the device, each with the innermost
function of splatfix or gsplat that caused it. Operands on different devices are an error of torch.

Values that code reads from the device are made up: 0.5, 1 or True. The backward pass is not run; parameters get zeros
as gradients. gsplat's compiled functions return empty tensors.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import gsplat
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

import splatfix
from splatfix import metrics
from splatfix.rendering.cuda import _place_cameras
from tests.gpu.emulated_gsplat import BACKEND, PINHOLE, CameraModelType

PACKAGES = [Path(str(package.__file__)).parent for package in (splatfix, gsplat)]
ATEN = torch.ops.aten
# Operations whose result the host has to know, or check, before it continues.
WAITS = {ATEN._local_scalar_dense, ATEN.nonzero, ATEN.equal, ATEN._linalg_check_errors}
INDEXING = {ATEN.index, ATEN.index_put, ATEN.index_put_}  # by a mask they wait, for the number of True in it
NUM_TRUE = 5  # made-up number of True values in a mask


class FakeCuda(TorchDispatchMode):
    """Runs operations with a tensor on ``cuda`` without values, all others as usual; ``events`` counts what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.events: Counter[str] = Counter()
        self.pinned: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Sequence[type], args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        inputs = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        on_device = any(isinstance(t, FakeTensor) for t in inputs)
        if not on_device and torch.device(kwargs.get("device") or "cpu").type == "cpu":
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        self._record_copy(func, inputs, kwargs, on_device)
        if func.overloadpacket in WAITS:
            self._record("wait")
        if func is ATEN._local_scalar_dense.default:
            return {torch.bool: True, torch.float32: 0.5, torch.float64: 0.5, torch.float16: 0.5}.get(args[0].dtype, 1)
        if func is ATEN.equal.default:
            return True
        if func is ATEN.nonzero.default:
            return args[0].new_empty((NUM_TRUE, args[0].ndim), dtype=torch.int64)
        if func.overloadpacket in INDEXING and any(t is not None and t.dtype == torch.bool for t in args[1]):
            self._record("wait")
            args = (args[0], _replace_masks(args[1]), *args[2:])
        outputs = func(*args, **kwargs)
        if any(_is_float64(t) for t in tree_flatten(outputs)[0]):
            self._record("float64")
        return tree_map(_fill_on_cpu, outputs)

    def _record_copy(self, func: Any, inputs: list[Tensor], kwargs: dict, on_device: bool) -> None:
        """Record a copy between host and device; one that is asynchronous needs pinned memory."""
        if func not in (ATEN._to_copy.default, ATEN.copy_.default):
            return
        target = torch.device(kwargs.get("device") or inputs[0].device)
        if target.type != inputs[-1].device.type:
            pinned = any(inputs[-1] is t for t in self.pinned)
            is_asynchronous = not on_device and pinned and kwargs.get("non_blocking", False)
            self._record("asynchronous copy" if is_asynchronous else "wait")

    def _record(self, what: str) -> None:
        self.events[f"{what}: {_find_place(sys._getframe())}"] += 1


def _find_place(frame: FrameType | None) -> str:
    """Name the innermost function of splatfix or gsplat on the stack."""
    while frame is not None:
        path, name = Path(frame.f_code.co_filename), frame.f_code.co_name
        # comprehensions have no name of their own, and call_cuda is gsplat's call of any compiled function
        if not name.startswith("<") and name != "call_cuda":
            for package in PACKAGES:
                if package in path.parents:
                    return f"{package.name}/{path.relative_to(package)} {name}"
        frame = frame.f_back
    return "elsewhere"


def _is_float64(value: Any) -> bool:
    return isinstance(value, FakeTensor) and value.device.type == "cuda" and value.dtype == torch.float64


def _fill_on_cpu(value: Any) -> Any:
    """Make up the values of a tensor that was copied to the CPU."""
    if isinstance(value, FakeTensor) and value.device.type == "cpu":
        with unset_fake_temporarily():
            return torch.full(value.shape, 0.5 if value.dtype.is_floating_point else 1, dtype=value.dtype)
    return value


def _replace_masks(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Replace masks of an index by as many indices as a mask has dimensions."""
    replaced: list[Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype == torch.bool:
            replaced += [torch.empty(NUM_TRUE, dtype=torch.int64, device="cuda") for _ in range(index.ndim)]
        else:
            replaced.append(index)
    return replaced


@contextmanager
def use_fake_cuda() -> Iterator[Counter[str]]:
    """Make tensors on ``cuda`` possible and fake; yields the number of waits, copies and float64 results by place."""
    mode, without_values = FakeCuda(), FakeTensorMode(allow_non_fake_inputs=True)
    make_generator = torch.Generator

    def pin_memory(tensor: Tensor) -> Tensor:
        mode.pinned.append(tensor)
        return tensor

    def backward(loss: Tensor) -> None:
        assert loss.requires_grad
        for parameter in _find_parameters(loss):
            parameter.grad = torch.zeros_like(parameter)

    def grad(loss: Tensor, parameter: Tensor) -> tuple[Tensor]:
        assert loss.requires_grad and any(parameter is each for each in _find_parameters(loss))
        return (torch.zeros_like(parameter),)

    backend = ModuleType(BACKEND)
    vars(backend)["_C"] = ShapesOfGsplat()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, BACKEND, backend)
        patch.setattr(Tensor, "pin_memory", pin_memory)
        patch.setattr(Tensor, "backward", backward)
        patch.setattr(torch.autograd, "grad", grad)
        patch.setattr(torch, "Generator", lambda device="cpu": make_generator())  # noqa: ARG005
        _forget_tensors()
        try:
            with without_values, mode:
                yield mode.events
        finally:
            _forget_tensors()


def _forget_tensors() -> None:
    """Drop the windows of SSIM and the cameras, which are kept for each device."""
    metrics.ssim_window.cache_clear()
    metrics._banded_window.cache_clear()
    _place_cameras.cache_clear()


def _find_parameters(loss: Tensor) -> list[Tensor]:
    """Find the leaves of the graph of a loss."""
    waiting, seen, found = [loss.grad_fn], set(), []
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        waiting += [following for following, _ in node.next_functions]
    return found


class ShapesOfGsplat:
    """The compiled functions of gsplat's forward pass, for shapes and devices alone."""

    CameraModelType, PINHOLE = CameraModelType, PINHOLE

    def projection_ewa_3dgs_fused_fwd(self, means: Tensor, *others: Any) -> tuple[Tensor | None, ...]:
        """See `emulated_gsplat`."""
        viewmats, calc_compensations = others[4], others[12]
        shape = len(viewmats), len(means)
        return (
            means.new_empty((*shape, 2), dtype=torch.int32),
            means.new_empty((*shape, 2)),
            means.new_empty(shape),
            means.new_empty((*shape, 3)),
            means.new_empty(shape) if calc_compensations else None,
        )

    def spherical_harmonics_fwd(self, degree: int, directions: Tensor, *others: Any) -> Tensor:  # noqa: ARG002
        """See `emulated_gsplat`."""
        return torch.empty_like(directions)

    def intersect_tile(self, means2d: Tensor, radii: Tensor, depths: Tensor, *others: Any) -> tuple[Tensor, ...]:  # noqa: ARG002
        """See `emulated_gsplat`. The host waits for the number of pairs."""
        counts = torch.empty_like(depths, dtype=torch.int32)
        num_pairs = counts.sum().item()
        return counts, depths.new_empty(num_pairs, dtype=torch.int64), depths.new_empty(num_pairs, dtype=torch.int32)

    def intersect_offset(self, keys: Tensor, num_images: int, tile_width: int, tile_height: int) -> Tensor:
        """See `emulated_gsplat`."""
        return keys.new_empty((num_images, tile_height, tile_width), dtype=torch.int32)

    def rasterize_to_pixels_3dgs_fwd(
        self, means2d: Tensor, _: Tensor, colors: Tensor, *others: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `emulated_gsplat`."""
        width, height = others[3:5]
        shape = len(means2d), height, width
        return (
            colors.new_empty((*shape, colors.shape[-1])),
            colors.new_empty((*shape, 1)),
            colors.new_empty(shape, dtype=torch.int32),
        )
