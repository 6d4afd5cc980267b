"""Artifact masks: planted Gaussians, clean texture, holes, and what ``splatfix mask`` writes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from splatfix.cli import main
from splatfix.images import read_image
from splatfix.restoration.artifact_mask import MaskOptions, find_artifacts
from splatfix.sample import sample_path
from tests.restoration.planted import plant_gaussians

NO_LOG = MaskOptions(sigmas_px=())


def mask_of(rgb: np.ndarray, options: MaskOptions | None = None) -> np.ndarray:
    return find_artifacts(torch.from_numpy(rgb.astype(np.float32)), None, options).numpy()


def needle(height: int = 96, width: int = 96, short: float = 1.5, long: float = 14.0, contrast: float = 0.3):
    """A stretched Gaussian on a plain background, and its pixels within two standard deviations."""
    y, x = np.mgrid[:height, :width] - np.array([height / 2, width / 2])[:, None, None]
    along, across = (x + y) / np.sqrt(2) / long, (y - x) / np.sqrt(2) / short
    squared = along**2 + across**2
    return 0.4 + contrast * np.exp(-squared / 2)[..., None] * np.array([1.0, 0.5, 0.2]), squared < 4


@pytest.mark.parametrize("contrast", [0.3, -0.3])
@pytest.mark.parametrize("short", [1.0, 2.0, 3.5])
def test_a_stretched_gaussian_is_covered(short, contrast):
    rgb, truth = needle(short=short, contrast=contrast)
    mask = mask_of(rgb)
    assert mask[truth].mean() > 0.7
    assert mask[~truth].mean() < 0.02


def test_edges_and_repeated_texture_are_left_alone():
    y, x = np.mgrid[:96, :96]
    patterns = {
        "edge": (x > 40).astype(float),
        "corner": ((x > 40) & (y > 50)).astype(float),
        "ramp": x / 96,
        "stripes": 0.5 + 0.4 * np.sin(x / 1.7),
        "checks": ((x // 6 + y // 6) % 2).astype(float),
        "noise": np.random.default_rng(0).normal(0.5, 0.1, x.shape),
    }
    for name, pattern in patterns.items():
        rgb = np.repeat(pattern[..., None], 3, axis=2).clip(0, 1)
        assert mask_of(rgb).mean() < 0.05, name


@pytest.fixture(scope="module")
def photos():
    return [read_image(path) for path in sorted((sample_path() / "images").iterdir())[4::12]]


def test_planted_gaussians_are_found_and_photos_left_alone(photos):
    precision, recall, clean = [], [], []
    for seed, photo in enumerate(photos):
        planted = plant_gaussians(photo, np.random.default_rng(seed))
        mask = mask_of(planted.rgb)
        near = ndimage.binary_dilation(planted.truth, iterations=2)
        precision.append((mask & near).sum() / mask.sum())
        recall.append((mask & planted.truth).sum() / planted.truth.sum())
        clean.append(mask_of(photo).mean())
    print(precision, recall, clean)
    assert np.mean(clean) < 0.02
    assert np.mean(precision) > 0.5
    assert np.mean(recall) > 0.3


def test_holes_are_marked_where_alpha_is_low():
    rgb, alpha = torch.full((20, 30, 3), 0.5), torch.ones(20, 30)
    alpha[5:9, 10:20] = 0.2
    alpha[0, :4] = 0
    found = {
        holes: find_artifacts(rgb, alpha, MaskOptions(holes=holes)) for holes in ("auto", "all", "enclosed", "none")
    }
    assert torch.equal(found["all"], alpha < 0.5) and torch.equal(found["auto"], found["all"])
    assert found["enclosed"].sum() == 40 and not found["none"].any()
    assert not find_artifacts(rgb, alpha, MaskOptions(alpha_threshold=0)).any()


def test_the_empty_surroundings_of_an_object_are_no_hole():
    rgb, alpha = torch.ones(40, 40, 3), torch.zeros(40, 40)
    alpha[10:30, 10:30] = 1
    alpha[18:22, 18:22] = 0
    mask = find_artifacts(rgb, alpha, NO_LOG)
    assert mask.sum() == 16 and mask[18:22, 18:22].all()
    assert not find_artifacts(rgb, torch.zeros(40, 40), NO_LOG).any()


def test_small_parts_are_dropped_before_the_mask_is_dilated():
    rgb, alpha = torch.full((20, 30, 3), 0.5), torch.ones(20, 30)
    alpha[3, 3] = 0
    alpha[10:13, 10:13] = 0
    mask = find_artifacts(rgb, alpha, MaskOptions(min_area_px=4, dilation_px=2))
    assert not mask[:6, :6].any() and mask[8, 11] and not mask[7, 11] and mask[14, 11]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0}, "threshold = 0: wanted a number above 0"),
        ({"sigmas_px": (0.2,)}, "sigmas_px"),
        ({"min_fill": 1.5}, "min_fill = 1.5: wanted 0 to 1"),
        ({"dilation_px": -1}, "dilation_px = -1: wanted at least 0"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        MaskOptions(**options)


def test_the_command_writes_a_mask_for_each_image(tmp_path, capsys):
    rgb, truth = needle()
    for folder, name in (("a", "x.png"), ("b", "X.jpg"), ("b", "y.png")):
        (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray((rgb * 255).astype(np.uint8)).save(tmp_path / folder / name)
    out = tmp_path / "masks"
    assert main(["mask", str(tmp_path / "a" / "x.png"), str(tmp_path / "b"), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a_x.mask.png", "b_X.mask.png", "y.mask.png"]
    with Image.open(out / "y.mask.png") as image:
        mask = np.asarray(image)
    assert mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 255} and (mask[truth] > 0).mean() > 0.7
    assert f"{100 * (mask > 0).mean():.1f} % of" in capsys.readouterr().out


def test_masks_in_a_folder_of_images_are_not_masked_again(tmp_path):
    Image.fromarray((needle()[0] * 255).astype(np.uint8)).save(tmp_path / "x.png")
    for _ in range(2):
        assert main(["mask", str(tmp_path), "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.mask.png", "x.png"]


def test_an_alpha_channel_marks_holes(tmp_path):
    pixels = np.full((20, 30, 4), 255, np.uint8)
    pixels[5:9, 10:20, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert main(["mask", str(tmp_path / "x.png"), "--out", str(tmp_path)]) == 0
    assert (np.asarray(Image.open(tmp_path / "x.mask.png")) > 0).sum() == 40


def test_bad_input_of_the_command_is_one_line(tmp_path, capsys):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([tmp_path / "none.png"], "no such image file or folder"),
        ([tmp_path / "empty"], "no images in this folder"),
        ([tmp_path / "text.png"], "cannot be read as an image"),
        ([], "no image given"),
        ([tmp_path, "--threshold", "-1"], "threshold = -1.0: wanted"),
        ([tmp_path / "text.png", "--out", tmp_path / "text.png"], "is a file; wanted a folder"),
    ):
        words = [str(argument) for argument in arguments]
        assert main(["mask", *words, *([] if "--out" in words else ["--out", str(tmp_path / "out")])]) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.strip().splitlines()) == 1
