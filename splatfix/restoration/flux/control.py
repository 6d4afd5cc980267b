"""Control images: edges and depth of a render, as the ControlNets were trained on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from splatfix.shapes import Float


def draw_edges(rgb: Float[Tensor, "H W 3"], low: float, high: float) -> Float[Tensor, "H W"]:
    """Edges by the Canny detector of OpenCV, on 8-bit color as in the training of the ControlNets: 1 on an edge.

    Args:
        rgb: image in [0, 1].
        low, high: its thresholds, 0 to 255.
    """
    import cv2

    image = (rgb.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    edges = cv2.Canny(np.ascontiguousarray(image), low, high)
    return torch.from_numpy(edges).to(rgb.device, torch.float32) / 255


@torch.no_grad()
def estimate_nearness(
    images: Float[Tensor, "B H W 3"], processor: Any, network: torch.nn.Module
) -> Float[Tensor, "B H W"]:
    """Relative inverse depth by a monocular estimator, from 0 (farthest of its image) to 1 (nearest).

    Near is bright: the polarity of Depth Anything, whose images the ControlNets for depth were trained on.

    Args:
        images: in [0, 1].
        processor: image processor of the estimator.
        network: a relative depth estimator of transformers: its ``predicted_depth`` is larger where it is nearer.
    """
    arrays = [image.detach().float().cpu().clamp(0, 1).numpy() for image in images]
    inputs = processor(images=arrays, do_rescale=False, return_tensors="pt", input_data_format="channels_last")
    weight = next(network.parameters())
    predicted = network(pixel_values=inputs["pixel_values"].to(weight.device, weight.dtype)).predicted_depth
    height, width = images.shape[1:3]
    nearness = F.interpolate(predicted.float()[:, None], size=(height, width), mode="bicubic")[:, 0]
    return torch.stack([_stretched(image) for image in nearness]).to(images.device)


def draw_nearness(depth: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """Inverse rendered depth with the polarity and the range of `estimate_nearness`; 0 where there is no depth.

    The farthest and the nearest percent are cut, so that a floater before the camera does not flatten all else.
    """
    covered = depth > 0
    inverse = torch.where(covered, 1 / depth.clamp(min=1e-9), 0)
    if not bool(covered.any()):
        return torch.zeros_like(depth)
    values = inverse[covered].sort().values
    low, high = (values[min(int(share * len(values)), len(values) - 1)] for share in (0.01, 0.99))
    nearness = torch.full_like(depth, 0.5) if bool(high <= low) else (inverse - low) / (high - low)
    return torch.where(covered, nearness.clamp(0, 1), 0)


def _stretched(image: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """The image from 0 to 1; 0 for a constant one."""
    low, high = image.min(), image.max()
    return (image - low) / (high - low) if bool(high > low) else torch.zeros_like(image)
