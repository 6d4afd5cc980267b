"""Initial Gaussians: place, color, spacing and opacity."""

from dataclasses import replace

import numpy as np
import torch

from splatfix.gaussians import SH_C0
from splatfix.splats.initial_points import BaselineStatistics, InitializationConfig, InitialPoints
from splatfix.splats.initialization import initialize_gaussians, nearest_distances


def test_nearest_distances_equal_brute_force():
    points = np.random.default_rng(0).standard_normal((200, 3)) * [1, 5, 2]
    distances = np.sort(np.linalg.norm(points[:, None] - points, axis=-1), axis=1)[:, 1:4].mean(1)
    np.testing.assert_allclose(nearest_distances(points), distances)
    np.testing.assert_allclose(nearest_distances(np.array([[0.0, 0, 0], [2, 0, 0]])), [2, 2])
    assert np.isnan(nearest_distances(np.zeros((1, 3)))).all()


def test_gaussians_have_the_positions_colors_and_spacing_of_the_points():
    grid = np.stack(np.meshgrid(*[np.arange(5.0)] * 3), -1).reshape(-1, 3)
    colors = np.random.default_rng(0).random((125, 3)).astype(np.float32)
    points = InitialPoints(grid, colors, np.zeros(125, int), 3.0, BaselineStatistics(10.0))
    gaussians = initialize_gaussians(points, InitializationConfig(scale_factor=0.5, initial_opacity=0.2, sh_degree=2))
    torch.testing.assert_close(gaussians.means, torch.tensor(grid, dtype=torch.float32))
    torch.testing.assert_close(gaussians.scales, torch.full((125, 3), 0.5))
    torch.testing.assert_close(gaussians.opacities, torch.full((125,), 0.2))
    torch.testing.assert_close(gaussians.sh0[:, 0] * SH_C0 + 0.5, torch.tensor(colors))
    assert gaussians.sh_degree == 2
    coincident = replace(points, positions=np.zeros((125, 3)))
    assert torch.isfinite(initialize_gaussians(coincident, InitializationConfig()).log_scales).all()
