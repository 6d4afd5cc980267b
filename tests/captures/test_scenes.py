"""The development scenes open, and open right: their photos agree with their cameras.

Points must have their color where they project to; without points, SIFT matches between neighbors must lie on the
epipolar lines that the cameras predict.
"""

import numpy as np
import pycolmap
import pytest

from splatfix.cameras import angle_between_rad
from splatfix.captures import open_capture

SCENES = {
    "colmap": (
        "banana bonsai brighton_aerial bronze_axe building_site castle colosseum cyprus_arch dunes entry flowerpot "
        "fountain greatwall lund_street monstree relief sample_banana sceaux statue"
    ),
    "transforms": "fox fruit plush sample_tankard terrace",
    "llff": "can flower milk",
    "blender": "nerfsyn_chair nerfsyn_lego tankard",
    "splat": "splat_furlogo splat_greenchair splat_guitar splat_plaidchair splat_playbot",
}
NUM_VIEWS = {
    "banana": 14, "bonsai": 40, "brighton_aerial": 18, "bronze_axe": 26, "building_site": 20, "can": 50, "castle": 30,
    "colosseum": 24, "cyprus_arch": 10, "dunes": 21, "entry": 10, "flower": 25, "flowerpot": 28, "fountain": 11,
    "fox": 50, "fruit": 49, "greatwall": 42, "lund_street": 17, "milk": 43, "monstree": 23, "nerfsyn_chair": 62,
    "nerfsyn_lego": 46, "plush": 40, "relief": 18, "sample_banana": 14, "sample_tankard": 36, "sceaux": 11,
    "splat_furlogo": 60, "splat_greenchair": 60, "splat_guitar": 60, "splat_plaidchair": 60, "splat_playbot": 60,
    "statue": 9, "tankard": 36, "terrace": 75,
}  # fmt: skip
MASKED = {"nerfsyn_chair", "nerfsyn_lego", "tankard", *SCENES["splat"].split()}
# For these points say more, or there are too few distinct features (fur, smooth wood).
NOT_MATCHED = {*SCENES["colmap"].split(), "splat_furlogo", "splat_plaidchair"}
WITH_POINTS = [*SCENES["colmap"].split(), "plush"]


@pytest.fixture(scope="module")
def capture(scenes, request):
    """A scene, opened once; pytest runs its tests one after the other."""
    if not (scenes / request.param).is_dir():
        pytest.skip(f"no scene {request.param}")
    return open_capture(scenes / request.param)


@pytest.mark.parametrize("capture", NUM_VIEWS, indirect=True)
def test_scene_opens(capture):
    name = capture.name
    assert name in SCENES[capture.format].split()
    assert len(capture.views) == NUM_VIEWS[name]
    assert (capture.background == (1, 1, 1)) == (name in MASKED)
    assert (capture.points is not None) == (name in WITH_POINTS)
    assert not any("skipped" in note or "rescaled" in note for note in capture.notes)
    assert max(max(c.width_px, c.height_px) for c in capture.cameras) == 320
    view = capture.views[len(capture.views) // 2]
    photo = view.load()
    assert photo.rgb.shape == (view.camera.height_px, view.camera.width_px, 3)
    assert photo.rgb.std() > 0.02
    assert (photo.mask is not None) == (name in MASKED)


@pytest.mark.parametrize("capture", WITH_POINTS, indirect=True)
def test_points_have_their_color_where_they_project_to(capture):
    rng = np.random.default_rng(0)
    for view in capture.views[:: max(1, len(capture.views) // 3)]:
        points = capture.points
        seen = np.ones(len(points), bool)
        if points.tracks is not None:
            seen = np.array([view.name in track for track in points.tracks])
            assert view.camera.sees(points.positions[seen]).mean() > 0.99
        seen &= view.camera.sees(points.positions)
        pixels = view.camera.project(points.positions[seen])[0]
        rgb, colors = view.load().rgb, points.colors[seen]

        def median_error(at, rgb=rgb, colors=colors):
            return np.median(np.abs(bilinear(rgb, at) - colors).mean(axis=-1))

        right, elsewhere = median_error(pixels), median_error(rng.permutation(pixels))
        assert right < 0.7 * elsewhere
        beside = [median_error(pixels + offset) for offset in ([4, 0], [-4, 0], [0, 4], [0, -4])]
        assert right < min(beside)


@pytest.mark.parametrize("capture", [n for n in NUM_VIEWS if n not in NOT_MATCHED], indirect=True)
def test_matches_lie_on_their_epipolar_lines(capture):
    right, wrong = [], []
    for index in range(1, len(capture.views), len(capture.views) // 2):
        first = capture.views[index]
        second, third = nearest(capture, first)
        matches = sift_matches(first, second)
        right.append(sampson_px(first.camera, second.camera, *matches))
        wrong.append(sampson_px(first.camera, third.camera, *matches))
    right, wrong = np.concatenate(right), np.concatenate(wrong)
    assert len(right) > 30
    assert np.median(right) < 0.4
    assert (right < 2).mean() > 0.8
    assert np.median(wrong) > 3 * np.median(right)


def nearest(capture, view):
    """The nearest other view that does not almost coincide, and a farther one."""
    others = [other for other in capture.views if other is not view]
    spread = np.median([np.linalg.norm(other.camera.center - view.camera.center) for other in others])

    def distance(other):
        apart = np.linalg.norm(other.camera.center - view.camera.center) / spread
        return apart + angle_between_rad(other.camera, view.camera) + 9 * (apart < 0.02)

    others = sorted(others, key=distance)
    return others[0], others[3]


def sift_matches(first, second):
    """Pixel coordinates of mutual nearest SIFT features that pass the ratio test. Two arrays ``[M, 2]``."""
    extractor = pycolmap.Sift(device=pycolmap.Device.cpu)
    found = [extractor.extract((view.load().rgb.mean(axis=2) * 255).astype(np.uint8)) for view in (first, second)]
    (a, a_code), (b, b_code) = [(k[:, :2], d / np.linalg.norm(d, axis=1, keepdims=True)) for k, d in found]
    angles = np.arccos(np.clip(a_code @ b_code.T, -1, 1))
    order = np.argsort(angles, axis=1)[:, :2]
    row = np.arange(len(a))
    good = (angles[row, order[:, 0]] < 0.7 * angles[row, order[:, 1]]) & (angles.argmin(axis=0)[order[:, 0]] == row)
    return a[good], b[order[good, 0]]


def sampson_px(first, second, a, b):
    """First-order distance of matches to the epipolar geometry of two cameras, in pixels."""
    relative = second.camera_from_world @ first.world_from_camera
    x, y, z = relative[:3, 3]
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ relative[:3, :3]
    fundamental = np.linalg.inv(second.intrinsics).T @ essential @ np.linalg.inv(first.intrinsics)
    a, b = np.pad(a, ((0, 0), (0, 1)), constant_values=1), np.pad(b, ((0, 0), (0, 1)), constant_values=1)
    in_second, in_first = a @ fundamental.T, b @ fundamental
    length = np.sqrt((in_second[:, :2] ** 2).sum(axis=1) + (in_first[:, :2] ** 2).sum(axis=1))
    return np.abs((b * in_second).sum(axis=1)) / length


def bilinear(image, pixels):
    """Colors at pixel coordinates ``[..., 2]``, clamped to the image."""
    height, width = image.shape[:2]
    x = np.clip(pixels[..., 0] - 0.5, 0, width - 1.001)
    y = np.clip(pixels[..., 1] - 0.5, 0, height - 1.001)
    i, j = x.astype(int), y.astype(int)
    u, v = (x - i)[..., None], (y - j)[..., None]
    above = image[j, i] * (1 - u) + image[j, i + 1] * u
    below = image[j + 1, i] * (1 - u) + image[j + 1, i + 1] * u
    return above * (1 - v) + below * v
