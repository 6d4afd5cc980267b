"""Control images: edges, and depth where near is bright."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from splatfix.restoration.flux.control import draw_edges, draw_nearness, estimate_nearness

pytest.importorskip("cv2")


def test_edges_lie_on_a_border_and_nowhere_else() -> None:
    image = torch.full((32, 40, 3), 0.2)
    image[:, 20:] = 0.8
    edges = draw_edges(image, 100, 200)
    assert edges.shape == (32, 40) and set(edges.unique().tolist()) == {0.0, 1.0}
    assert edges[5:-5, 18:22].any(dim=1).all()
    assert not edges[:, :17].any() and not edges[:, 23:].any()


def test_thresholds_decide_which_edges_count() -> None:
    image = torch.full((32, 40, 3), 0.5)
    image[:, 20:] = 0.55
    assert draw_edges(image, 10, 20).any()
    assert not draw_edges(image, 100, 200).any()


def test_near_is_bright_in_rendered_depth() -> None:
    depth = torch.linspace(1, 5, 200).repeat(20, 1)  # farther to the right
    depth[:5] = 0  # nothing there
    nearness = draw_nearness(depth)
    assert not nearness[:5].any()
    assert (nearness[5:].diff(dim=1) <= 0).all()
    assert nearness[10, 0] == 1 and nearness[10, -1] == 0


def test_one_floater_does_not_flatten_rendered_depth() -> None:
    depth = torch.linspace(2, 4, 400).repeat(20, 1)
    depth[0, 0] = 0.01
    assert draw_nearness(depth)[10, 100] > 0.4


def test_depth_without_range_or_without_values() -> None:
    assert (draw_nearness(torch.full((4, 5), 3.0)) == 0.5).all()
    assert not draw_nearness(torch.zeros(4, 5)).any()


class Disparity(nn.Module):
    """An estimator that takes brightness for nearness, at half the size, as `DepthEstimatorOutput` has it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(7.0))

    def forward(self, pixel_values: torch.Tensor) -> object:
        class Output:
            predicted_depth = self.scale * pixel_values.mean(1)[:, ::2, ::2] + 3

        return Output()


def test_near_is_bright_in_estimated_depth_and_each_image_has_its_own_range() -> None:
    def processor(images: list, **_: object) -> dict:
        return {"pixel_values": torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in images])}

    near_left = torch.linspace(1, 0, 40).repeat(20, 1)[..., None].expand(-1, -1, 3)
    images = torch.stack([near_left, 0.1 * near_left])
    nearness = estimate_nearness(images, processor, Disparity())
    assert nearness.shape == (2, 20, 40)
    assert (nearness[:, :, 2].mean(1) > 0.9).all() and (nearness[:, :, -3].mean(1) < 0.1).all()
    assert nearness.amin(dim=(1, 2)).tolist() == [0, 0] and nearness.amax(dim=(1, 2)).tolist() == [1, 1]
