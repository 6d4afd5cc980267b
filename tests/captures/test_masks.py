"""What alpha channels and mask files mark: an object, pixels to ignore, or nothing."""

import numpy as np
import pytest

from splatfix import images
from splatfix.captures import Capture, PhotoOptions, check_photos, open_capture
from splatfix.captures.validity import resize_valid
from splatfix.fit import FitRunConfig, prepare_run
from splatfix.images import has_transparency, write_image
from splatfix.views import ViewsConfig
from tests.captures import writers
from tests.captures.writers import HEIGHT, NAMES, WIDTH, WRITERS, edit_json

OBJECT, IGNORE = PhotoOptions(masks="object"), PhotoOptions(masks="ignore")
RED = np.float32([1, 0, 0])


def disc() -> np.ndarray:
    """1 inside of a disc, ``[H, W]``."""
    return writers.picture(0, channels=4)[..., 3]


def write_masks(root, masks: dict[str, np.ndarray], **fields) -> None:
    """Write mask files and name them in transforms.json."""
    for name, mask in masks.items():
        write_image(root / "masks" / name, mask)

    def refer(value: dict) -> None:
        value.update(fields)
        for frame, name in zip(value["frames"], NAMES, strict=True):
            if name in masks:
                frame["mask_path"] = f"masks/{name}"

    edit_json(root / "transforms.json", refer)


def write_alpha(root, alphas: dict[str, np.ndarray]) -> None:
    """Give photos an alpha channel."""
    for index, name in enumerate(NAMES):
        if name in alphas:
            rgba = np.concatenate([writers.picture(index), alphas[name][..., None]], axis=2)
            write_image(root / "images" / name, rgba)


def assert_same_photos(capture: Capture, plain: Capture) -> None:
    """Photos, background and cameras are those of a capture without masks."""
    assert capture.background is None
    for view, wanted in zip(capture.views, plain.views, strict=True):
        photo = view.load()
        assert photo.mask is None and photo.validity is None
        np.testing.assert_array_equal(photo.rgb, wanted.load().rgb)


def test_mask_files_mark_pixels_to_ignore(tmp_path):
    root = WRITERS["transforms"](tmp_path)
    write_masks(root, {"b.png": disc()})
    capture = open_capture(root)
    assert capture.background is None
    assert len(capture.notes) == 1
    assert "1 of 4 images has a mask file: black pixels are ignored" in capture.notes[0]
    masked, plain = capture.view("b.png").load(), capture.view("a.png").load()
    assert masked.mask is None and plain.mask is None and plain.validity is None
    np.testing.assert_array_equal(masked.validity, disc())
    np.testing.assert_allclose(masked.rgb[disc() == 1], writers.picture(1)[disc() == 1], atol=0.003)


@pytest.mark.parametrize("kind", ["colmap", "transforms"])
@pytest.mark.parametrize("name", ["masks/{}.png", "masks/{}", "mask/{}", "Masks/{}", "masks/images/{}"])
def test_a_folder_of_masks_is_used_where_the_user_says_what_they_mark(kind, name, tmp_path):
    root = WRITERS[kind](tmp_path)
    plain = open_capture(root)
    assert plain.notes == ()
    write_image(root / name.format("b.png"), disc())
    capture = open_capture(root)
    assert_same_photos(capture, plain)
    [note] = capture.notes
    folder = name.rpartition("/")[0]
    assert note.startswith(f"{folder}/ has masks of 1 of 4 images, but nothing says what they mark: views.masks = ig")
    ignoring = open_capture(root, options=IGNORE)
    np.testing.assert_array_equal(ignoring.view("b.png").load().validity, disc())
    assert ignoring.view("a.png").load().validity is None and ignoring.background is None
    of_object = open_capture(root, options=OBJECT)
    np.testing.assert_array_equal(of_object.view("b.png").load().mask, disc())
    assert of_object.background == (1, 1, 1)


def test_a_folder_of_masks_with_other_names_is_noted(tmp_path):
    root = WRITERS["colmap"](tmp_path)
    write_image(root / "masks" / "mask_0.png", disc())
    for options in (PhotoOptions(), IGNORE):
        note = open_capture(root, options=options).notes[0]
        assert note.startswith("masks/ has 1 images, but none has the name of a photo (for a.png: a.png.png, or a with")
    assert open_capture(root, options=IGNORE).notes[1].startswith("views.masks = ignore has no effect: no image has")


def test_two_masks_of_one_photo_are_refused_only_where_they_are_used(tmp_path):
    root = WRITERS["colmap"](tmp_path)
    for suffix in ("webp", "bmp"):
        write_image(root / "masks" / f"a.{suffix}", disc())
    assert "masks/ has masks of 1 of 4 images" in open_capture(root).notes[0]
    with pytest.raises(ValueError, match=r"masks/a\.png: no such file, but a\.bmp and a\.webp could be meant"):
        open_capture(root, options=IGNORE)


@pytest.mark.parametrize("labels", [np.float32([[2, 2, 2]]) / 255, np.float32([[0.5, 0, 0], [0, 0.5, 0]])])
def test_label_images_are_masks_of_an_object(labels, tmp_path):
    root = WRITERS["colmap"](tmp_path)
    image = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    image[8:24, 8:24], image[8:24, 24:40] = labels[0], labels[-1]
    write_image(root / "masks" / "a.png", image)
    mask = open_capture(root, options=OBJECT).view("a.png").load().mask
    np.testing.assert_array_equal(mask, image.any(axis=2))


def test_masks_that_the_poses_name_come_before_a_folder_of_masks(tmp_path):
    root = WRITERS["transforms"](tmp_path)
    write_masks(root, {"b.png": disc()})
    write_image(root / "masks" / "a.png", disc())
    capture = open_capture(root, options=IGNORE)
    assert [view.load().validity is None for view in capture.views] == [True, False, True, True]


def test_a_mask_of_the_whole_file_is_that_of_frames_without_their_own(tmp_path):
    root = WRITERS["transforms"](tmp_path)
    write_masks(root, {"b.png": disc()}, mask_path="masks/all.png")
    message = r"transforms\.json: mask_path masks/all\.png is missing; wanted the mask image"
    with pytest.raises(ValueError, match=message):
        open_capture(root)
    write_image(root / "masks" / "all.png", 1 - disc())
    capture = open_capture(root)
    np.testing.assert_array_equal(capture.view("a").load().validity, 1 - disc())
    np.testing.assert_array_equal(capture.view("b").load().validity, disc())


@pytest.mark.parametrize("gray", [0.0, 1.0])
def test_the_alpha_of_a_mask_file_is_the_mask(gray, tmp_path):
    root = WRITERS["transforms"](tmp_path)
    write_masks(root, {"b.png": disc()})
    cut_out = np.dstack([np.full((HEIGHT, WIDTH, 3), gray, np.float32), disc()])
    write_image(root / "masks" / "b.png", cut_out)
    np.testing.assert_array_equal(open_capture(root).view("b.png").load().validity, disc())


def test_a_run_warns_where_masks_leave_out_nearly_everything(tmp_path, caplog):
    root = WRITERS["transforms"](tmp_path / "room")
    corner = np.zeros_like(disc())
    corner[:8, :8] = 1
    write_masks(root, dict.fromkeys(NAMES, corner))
    views = ViewsConfig(num_train=2, size_px=32)
    prepare_run(root, tmp_path / "run", FitRunConfig(views=views), command="fit", files=())
    assert "masks leave out 96 % of the training photos" in caplog.text


def test_mask_files_mark_the_object_where_the_user_or_the_capture_says_so(tmp_path):
    root = WRITERS["transforms"](tmp_path)
    write_masks(root, {"b.png": disc()})
    by_option = open_capture(root, options=OBJECT)
    edit_json(root / "transforms.json", lambda value: value.update(mask_meaning="object"))
    for capture in (by_option, open_capture(root)):
        assert capture.background == (1, 1, 1)
        assert "1 of 4 images has a mask file: black pixels are the surroundings" in capture.notes[0]
        assert capture.notes[1] == "3 of 4 images have no mask: taken as they are"
        masked, plain = capture.view("b.png").load(), capture.view("a.png").load()
        np.testing.assert_array_equal(masked.mask, disc())
        np.testing.assert_array_equal(masked.rgb[disc() == 0], 1)
        assert plain.mask is None and masked.validity is None
        np.testing.assert_allclose(plain.rgb, writers.picture(0), atol=0.003)
    assert open_capture(root, options=IGNORE).background is None
    edit_json(root / "transforms.json", lambda value: value.update(mask_meaning="people"))
    with pytest.raises(ValueError, match=r"transforms\.json: mask_meaning: .*'object' or 'ignore'.*'people'"):
        open_capture(root)


def test_one_bit_masks_written_as_bytes_of_0_and_1(tmp_path):
    root = WRITERS["transforms"](tmp_path)
    write_masks(root, {"a.png": disc() / 255})
    np.testing.assert_array_equal(open_capture(root).view("a.png").load().validity, disc())
    np.testing.assert_array_equal(open_capture(root, options=OBJECT).view("a.png").load().mask, disc())


def test_white_masks_change_nothing_and_black_ones_are_refused(tmp_path):
    plain, root = open_capture(WRITERS["transforms"](tmp_path / "plain")), WRITERS["transforms"](tmp_path / "masked")
    write_masks(root, dict.fromkeys(NAMES, np.ones_like(disc())))
    assert_same_photos(open_capture(root), plain)
    write_image(root / "masks" / "c.png", np.zeros_like(disc()))
    capture = open_capture(root)
    for use in (capture.view("c").load, lambda: check_photos(capture.views)):
        with pytest.raises(ValueError, match=r"masks/c\.png: every pixel is ignored; wanted .*is the mask inverted\?"):
            use()
    check_photos(open_capture(root, options=OBJECT).views)


@pytest.mark.parametrize("white", [1.0, 0.5])
def test_the_lightest_pixels_of_a_mask_are_valid(white, tmp_path):
    root = WRITERS["transforms"](tmp_path)
    write_masks(root, {"a.png": white * disc(), "b.png": 0.03 * writers.picture(0)[..., 0]})
    capture = open_capture(root)
    np.testing.assert_array_equal(capture.view("a").load().validity, disc())
    with pytest.raises(ValueError, match=r"b\.png: every pixel is ignored"):
        capture.view("b").load()


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_choice_is_refused():
    with pytest.raises(ValueError, match="masks = 'people': wanted one of auto, object, ignore"):
        PhotoOptions(masks="people")


def test_pixels_that_a_small_mask_ignores_in_part_are_ignored(tmp_path):
    root = WRITERS["transforms"](tmp_path)
    half = np.ones((HEIGHT // 2, WIDTH // 2), np.float32)
    half[:, 10:] = 0
    half[:, 9] = 0.6  # the mask was shrunk: more than a third of this column was black
    write_masks(root, {"a.png": half})
    validity = open_capture(root).view("a").load().validity
    assert (validity[:, :16] == 1).all() and not validity[:, 18:].any()


@pytest.mark.parametrize("longest", [48, 31, 17])
@pytest.mark.parametrize("distortion", [0.0, -0.3])
def test_no_color_of_an_ignored_pixel_reaches_another(longest, distortion, tmp_path):
    root = WRITERS["transforms"](tmp_path)
    valid = disc()
    valid[::5] = 0  # thin lines too
    gray = np.full((HEIGHT, WIDTH, 3), 102 / 255, np.float32)
    for name in NAMES:
        write_image(root / "images" / name, np.where(valid[..., None] > 0, gray, RED))
    write_masks(root, dict.fromkeys(NAMES, valid), k1=distortion)
    photo = open_capture(root, longest_side_px=longest).views[0].load()
    np.testing.assert_allclose(photo.rgb, 102 / 255, atol=1e-4)
    assert photo.validity.min() == 0 and 0.8 < photo.validity.max() <= 1
    assert photo.validity.shape == photo.rgb.shape[:2]


def test_a_shrunk_pixel_is_the_mean_of_its_valid_part():
    image, is_valid = np.uint8([[[51], [230], [102], [153]]]), np.array([[True, False, True, True]])
    for pixels in (image, image.astype(np.uint16) * 257, (image / 255).astype(np.float32)):
        resized = resize_valid(pixels, 2, 1, is_valid=is_valid)
        np.testing.assert_allclose(resized, [[[0.2, 0.5], [0.5, 1]]], atol=1e-6)


def test_alpha_that_is_1_everywhere_is_no_mask(tmp_path):
    plain, root = open_capture(WRITERS["transforms"](tmp_path / "plain")), WRITERS["transforms"](tmp_path / "rgba")
    nearly = np.full_like(disc(), 254 / 255)
    write_alpha(root, dict.fromkeys(NAMES, nearly))
    capture = open_capture(root)
    assert_same_photos(capture, plain)
    assert "opaque in 3 of the 3 that were checked, so it marks no object" in capture.notes[0]


def test_one_photo_with_alpha_does_not_turn_the_background_white(tmp_path):
    plain, root = open_capture(WRITERS["transforms"](tmp_path / "plain")), WRITERS["transforms"](tmp_path / "rgba")
    write_alpha(root, {"b.png": np.ones_like(disc())})
    capture = open_capture(root)
    assert_same_photos(capture, plain)
    assert "1 of 4 images has an alpha channel (the first: b.png), the others have none" in capture.notes[0]


@pytest.mark.parametrize("transparent", ["b.png", "d.png"])
def test_transparent_pixels_of_few_photos_are_ignored(transparent, tmp_path):
    """Photos with their background among photos of an object cannot all be right on white."""
    root = WRITERS["transforms"](tmp_path)
    write_alpha(root, {name: disc() if name == transparent else np.ones_like(disc()) for name in NAMES})
    capture = open_capture(root)
    assert capture.background is None
    photo = capture.view(transparent).load()
    assert photo.mask is None
    np.testing.assert_array_equal(photo.validity, disc())
    assert capture.view("a.png").load().validity is None


def test_photos_that_an_object_fills_do_not_hide_the_alpha_of_the_others(tmp_path):
    root = WRITERS["transforms"](tmp_path)
    write_alpha(root, {name: np.ones_like(disc()) if name == "a.png" else disc() for name in NAMES})
    capture = open_capture(root)
    assert capture.background == (1, 1, 1)
    np.testing.assert_array_equal(capture.view("a").load().mask, 1)


def test_alpha_of_all_photos_marks_the_object_unless_the_user_says_otherwise(tmp_path):
    root = WRITERS["blender"](tmp_path)
    capture = open_capture(root)
    assert capture.background == (1, 1, 1) and capture.views[0].load().validity is None
    assert "4 of 4 images have an alpha channel: transparent pixels are the surroundings" in capture.notes[0]
    ignored = open_capture(root, options=IGNORE)
    assert ignored.background is None
    photo = ignored.view("train/b").load()
    assert photo.mask is None
    np.testing.assert_array_equal(photo.validity, disc())
    assert photo.rgb[disc() == 0].max() < 1  # blended from the object, not white


def test_alpha_and_mask_files_may_mark_different_things(tmp_path):
    root = WRITERS["transforms"](tmp_path)
    write_alpha(root, dict.fromkeys(NAMES, disc()))
    left = np.ones_like(disc())
    left[:, WIDTH // 2 :] = 0
    write_masks(root, {"a.png": left})
    capture = open_capture(root)
    assert capture.background == (1, 1, 1) and len(capture.notes) == 2
    photo = capture.view("a").load()
    np.testing.assert_array_equal(photo.validity, left)
    np.testing.assert_array_equal(photo.mask[left == 1], disc()[left == 1])


def test_opening_decodes_few_rows_of_few_photos(tmp_path, monkeypatch):
    decoded, real = [], images._least_alpha
    monkeypatch.setattr(images, "_least_alpha", lambda image: decoded.append(image.size) or real(image))
    for kind in ("transforms", "colmap", "llff"):
        open_capture(WRITERS[kind](tmp_path / kind))
    assert not decoded
    alpha = disc()
    alpha[0] = 0
    write_alpha(tmp_path / "transforms", dict.fromkeys(NAMES, alpha))
    open_capture(tmp_path / "transforms")
    assert decoded == [(WIDTH, images.FIRST_ROWS)] * 2


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
@pytest.mark.parametrize("row", [0, HEIGHT - 1, None])
def test_transparency_is_found_anywhere(suffix, row, tmp_path):
    rgba = np.concatenate([writers.picture(1), np.ones((HEIGHT, WIDTH, 1), np.float32)], axis=2)
    if row is not None:
        rgba[row, 3, 3] = 0.5
    write_image(tmp_path / f"a{suffix}", rgba)
    assert has_transparency(tmp_path / f"a{suffix}") == (row is not None)


def test_a_broken_photo_that_is_checked_is_named(tmp_path):
    root = WRITERS["blender"](tmp_path)
    file = root / "test" / "d.png"
    file.write_bytes(file.read_bytes()[:120])
    with pytest.raises(ValueError, match=r"d\.png: cannot be decoded .*is the file whole\?"):
        open_capture(root)
