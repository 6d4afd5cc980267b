"""Error maps and their legend."""

import numpy as np
import torch

from splatfix.evaluation.error_maps import error_legend, error_map


def test_error_map_gets_lighter_with_the_error_and_saturates():
    photo = torch.zeros(1, 5, 3)
    render = torch.tensor([0.0, 0.05, 0.15, 0.3, 0.9])[None, :, None].expand(1, 5, 3)
    colors = error_map(render, photo)
    assert colors.shape == (1, 5, 3) and colors.dtype == np.float32
    luma = colors[0] @ [0.2126, 0.7152, 0.0722]
    assert luma[0] < 0.01 and (np.diff(luma[:4]) > 0.05).all()
    assert np.array_equal(colors[0, 3], colors[0, 4])


def test_legend_runs_from_the_color_of_no_error_to_the_hottest():
    stops = error_legend(5)
    ends = error_map(np.array([[[0.0] * 3, [1.0] * 3]]), np.zeros((1, 2, 3)))[0]
    as_hex = ["#" + "".join(f"{round(float(c) * 255):02x}" for c in end) for end in ends]
    assert [stops[0], stops[-1]] == as_hex and len(stops) == 5


def test_ignored_pixels_are_gray():
    photo = np.zeros((2, 2, 3), np.float32)
    validity = np.float32([[1, 0], [1, 0.5]])
    plain, marked = error_map(photo + 1, photo), error_map(photo + 1, photo, validity=validity)
    np.testing.assert_array_equal(marked[:, 0], plain[:, 0])
    np.testing.assert_allclose(marked[0, 1], 0.5)
    np.testing.assert_allclose(marked[1, 1], (plain[1, 1] + 0.5) / 2)
