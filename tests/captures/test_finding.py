"""Captures whose files are named, placed or kept otherwise than their model says."""

import os
import re
import shutil
import struct
import unicodedata

import numpy as np
import pytest
from PIL import Image

from splatfix.captures import PhotoOptions, open_capture, transforms
from splatfix.captures.code_pages import restore_names
from splatfix.captures.finder import ImageFinder
from splatfix.captures.photos import open_photo
from splatfix.captures.transforms import name_views
from splatfix.images import write_image
from splatfix.sfm.source import needs_poses
from tests.captures import writers
from tests.captures.test_errors import message
from tests.captures.writers import HEIGHT, NAMES, WIDTH, edit_json


def rename_in_model(root, new_names):
    """Give the images of a binary model other names, as text or bytes."""
    path = root / "sparse" / "0" / "images.bin"
    data = path.read_bytes()
    for old, new in zip(NAMES, new_names, strict=True):
        raw = new if isinstance(new, bytes) else new.encode()
        data = data.replace(old.encode() + b"\0", raw + b"\0")
    path.write_bytes(data)


def rename_files(root, new_names):
    for old, new in zip(NAMES, new_names, strict=True):
        target = root / "images" / new
        target.parent.mkdir(exist_ok=True)
        (root / "images" / old).rename(target)


U, ROOM, PHOTO = "K\u00fcche ", "\u53a8\u623f", "\u5199\u771f"  # of these the last two are Chinese and Japanese


@pytest.mark.parametrize(
    ("in_model", "on_disk", "view"),
    [
        ("IMG_{}.JPG", "img_{}.jpg", "IMG_{}.JPG"),
        (U + "{}.png", unicodedata.normalize("NFD", U) + "{}.png", U + "{}.png"),
        (unicodedata.normalize("NFD", U) + "{}.png", U + "{}.png", unicodedata.normalize("NFD", U) + "{}.png"),
        ("cam0\\{}.png", "cam0/{}.png", "cam0/{}.png"),
        ("cam0/{}.png", "cam0\\{}.png", "cam0/{}.png"),
        ("Cam0/{}.png", "cam0/{}.png", "Cam0/{}.png"),
        ("my%20photo_{}.png", "my photo_{}.png", "my%20photo_{}.png"),
        ("my photo_{}.png", "my%20photo_{}.png", "my photo_{}.png"),
        (ROOM + "{}.png|gbk", ROOM + "{}.png", ROOM + "{}.png"),
        (PHOTO + "{}.png|shift_jis", PHOTO + "{}.png", PHOTO + "{}.png"),
        (U + "{}.png|latin-1", U + "{}.png", U + "{}.png"),
        ("{}.tif", "{}.png", "{}.tif"),
        ("/home/me/room/{}.png", "{}.png", "/home/me/room/{}.png"),
    ],
)
def test_names_in_another_spelling_are_found(in_model, on_disk, view, tmp_path):
    root = writers.write_colmap(tmp_path)
    text, _, page = in_model.partition("|")
    rename_in_model(root, [text.format(k).encode(page or "utf-8") for k in range(4)])
    rename_files(root, [on_disk.format(k) for k in range(4)])
    capture = open_capture(root)
    assert capture.names == tuple(view.format(k) for k in range(4))
    assert [v.load.path for v in capture.views] == [root / "images" / on_disk.format(k) for k in range(4)]
    assert capture.points.tracks[1] == {view.format(0), view.format(1)}
    assert capture.resolve(unicodedata.normalize("NFD", view.format(2))) == view.format(2)  # as in a split from a Mac


def test_a_mask_with_the_stem_of_the_photo_is_not_read_in_its_place(tmp_path):
    root = writers.write_colmap(tmp_path)
    rename_in_model(root, [name.replace(".png", ".jpg") for name in NAMES])
    rename_files(root, [name.replace(".png", ".JPG") for name in NAMES])
    for name in NAMES:
        write_image(root / "images" / name, np.ones((HEIGHT, WIDTH)))
    capture = open_capture(root)
    assert {view.load.path.suffix for view in capture.views} == {".JPG"}
    assert capture.notes == ("4 images have files of another spelling (the first: a.JPG for a.jpg)",)
    rename_in_model(root, [name.replace(".png", ".jpg") for name in NAMES])
    for name in NAMES:
        (root / "images" / name.replace(".png", ".JPG")).rename(root / "images" / name.replace(".png", ".tif"))
    assert "a.jpg: no such file, but a.png and a.tif could be meant; wanted one" in message(lambda: open_capture(root))


def test_ambiguous_names_in_a_downscaled_folder_do_not_matter(tmp_path):
    root = writers.write_colmap(tmp_path)
    for suffix in (".jpg", ".tif"):
        write_image(root / "images_2" / f"a{suffix}", writers.picture(0, WIDTH // 2, HEIGHT // 2))
    assert len(open_capture(root, longest_side_px=20).views) == 4


def test_a_mask_is_not_read_where_the_photo_is_missing(tmp_path):
    root = writers.write_colmap(tmp_path)
    rename_in_model(root, [name.replace(".png", ".jpg") for name in NAMES])
    assert len(open_capture(root).views) == 4
    for name in NAMES:
        write_image(root / "images" / name, np.eye(HEIGHT, WIDTH))
    assert "a.png: a mask or label image, as it has few colors, and there is no a.jpg" in message(
        lambda: open_capture(root)
    )


def test_a_frame_that_is_listed_twice_is_kept_once(tmp_path):
    root = writers.write_transforms(tmp_path)
    edit_json(root / "transforms.json", lambda value: value["frames"].append(value["frames"][0]))
    capture = open_capture(root)
    assert len(capture.views) == 4
    assert "1 frames occur again with the same pose: kept once" in capture.notes


def test_one_mask_among_photos_with_another_suffix_is_refused(tmp_path):
    root = writers.write_colmap(tmp_path)
    rename_in_model(root, ["a.jpg", "b.jpg", "c.png", "d.png"])
    assert len(open_capture(root).views) == 4
    write_image(root / "images" / "b.png", np.eye(HEIGHT, WIDTH))
    assert "b.png: a mask or label image" in message(lambda: open_capture(root))


def test_gray_photos_with_16_bits_may_have_another_suffix(tmp_path):
    root = writers.write_colmap(tmp_path)
    rename_in_model(root, [name.replace(".png", ".jpg") for name in NAMES])
    gray = (np.random.default_rng(0).random((HEIGHT, WIDTH)) * 65535).astype(np.uint16)
    Image.fromarray(gray).save(root / "images" / "a.png")
    assert len(open_capture(root).views) == 4
    Image.fromarray(np.where(gray > 30000, 65535, 0).astype(np.uint16)).save(root / "images" / "a.png")
    assert "a.png: a mask or label image" in message(lambda: open_capture(root))


def test_one_file_is_not_the_photo_of_two_views(tmp_path):
    root = writers.write_colmap(tmp_path)
    rename_in_model(root, ["x.png", "X.PNG", "c.png", "d.png"])
    rename_files(root, ["x.Png", "b.png", "c.png", "d.png"])
    assert "x.Png: is meant by both x.png and X.PNG; wanted a file for each" in message(lambda: open_capture(root))


def test_folders_are_listed_once(tmp_path, monkeypatch):
    for k in range(50):
        (tmp_path / f"IMG_{k}.JPG").touch()
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or scandir(path))
    finder = ImageFinder()
    names = [f"img_{k}.png" for k in range(60)]
    assert len(finder.find_all(tmp_path, names)) == 50
    assert listed == [str(tmp_path)]


def test_names_in_no_code_page_of_a_file_are_still_readable():
    raw = b"\xfc.png".decode(errors="surrogateescape")
    assert restore_names(["a.png"], lambda _: True) == {}
    restored = restore_names([raw], lambda _: False)
    assert restored[raw].encode()  # is printable


def test_images_text_without_its_empty_lines(tmp_path):
    root = writers.write_colmap_text(tmp_path)
    model = root / "sparse" / "0" / "images.txt"
    text = model.read_text().replace("1 2 -1", "")
    for index, name in enumerate(NAMES):
        text = text.replace(f" 1 {name}", f" 1 left eye {index} {name}")  # 12 fields
        (root / "images" / name).rename(root / "images" / f"left eye {index} {name}")
    model.write_text("\n".join(line for line in text.splitlines() if line))
    assert len(open_capture(root).views) == 4


def test_the_largest_of_several_models_is_read(tmp_path):
    root = writers.write_colmap(tmp_path / "thing")
    model = root / "sparse" / "0"
    (root / "sparse" / "2").mkdir()
    for file in model.iterdir():
        (root / "sparse" / "2" / file.name).write_bytes(file.read_bytes())
    images = (model / "images.bin").read_bytes()
    first = images[8 : images.index(b"a.png") + 6 + 8 + 24]
    (model / "images.bin").write_bytes(struct.pack("<Q", 1) + first)
    capture = open_capture(root)
    assert len(capture.views) == 4
    [note] = capture.notes
    assert f"{root}/sparse/2 is read, the model with most images (4); not read: {root}/sparse/0 (1)" == note
    assert len(open_capture(root / "sparse").views) == 4
    assert len(open_capture(root / "sparse" / "0").views) == 1
    (root / "images").rename(root / "input")
    assert len(open_capture(root.rename(root.with_name("sparse_room"))).views) == 4


@pytest.mark.parametrize("place", ["sparse_2/0", "sparse_1", "colmap/sparse/0", "sparse"])
def test_a_small_model_in_the_usual_place_hides_no_larger_one(place, tmp_path):
    root = writers.write_colmap(tmp_path)
    model = root / "sparse" / "0"
    (root / place).mkdir(parents=True, exist_ok=True)
    for file in model.iterdir():
        (root / place / file.name).write_bytes(file.read_bytes())
    images = (model / "images.bin").read_bytes()
    (model / "images.bin").write_bytes(struct.pack("<Q", 1) + images[8 : images.index(b"a.png") + 6 + 8 + 24])
    capture = open_capture(root)
    assert len(capture.views) == 4
    assert f"{root / place} is read, the model with most images (4); not read: {model} (1)" in capture.notes


def test_a_model_with_a_name_counts_where_none_has_a_number(tmp_path):
    root = writers.write_colmap(tmp_path)
    shutil.copytree(root / "sparse" / "0", root / "sparse" / "old")
    assert open_capture(root).notes == ()
    (root / "sparse" / "0").rename(root / "sparse" / "final")
    [note] = open_capture(root).notes
    assert f"{root}/sparse/final is read, the first model with most images (4); not read: {root}/sparse/old" in note


def test_a_larger_model_beside_another_format_is_noted(tmp_path):
    root = writers.write_transforms(tmp_path / "thing")
    shutil.copytree(writers.write_colmap(tmp_path / "other") / "sparse", root / "sparse")
    assert open_capture(root).notes == ()
    images = root / "sparse" / "0" / "images.bin"
    content = images.read_bytes()
    images.write_text("version https://git-lfs.github.com/spec/v1")
    edit_json(root / "transforms.json", lambda value: value["frames"].pop())
    assert open_capture(root).notes == ()
    images.write_bytes(content)
    [note] = open_capture(root).notes
    place = root / "sparse" / "0"
    assert note == f"{place} is not read, a COLMAP model with 4 images: pass that folder to read it"
    assert len(open_capture(place).views) == 4


@pytest.mark.parametrize("write", [writers.write_colmap, writers.write_transforms])
@pytest.mark.parametrize(
    ("name", "start", "kind"),
    [
        ("a.exr", b"\x76\x2f\x31\x01", "OpenEXR"),
        ("A.HDR", b"#?RADIANCE", "Radiance"),
        ("a.nef", b"II*\0", "a raw photo"),
    ],
)
def test_float_images_and_raw_photos_are_named_where_no_photo_is_found(write, name, start, kind, tmp_path):
    root = write(tmp_path)
    for photo in (root / "images").iterdir():
        photo.unlink()
    (root / "images" / "b.exr").write_bytes(start)
    assert "none of" in message(lambda: open_capture(root)) and kind not in message(lambda: open_capture(root))
    (root / "images" / name).write_bytes(start + bytes(20))
    said = message(lambda: open_capture(root))
    assert f"; {name} is a" in said and kind in said


@pytest.mark.parametrize("end", [" ", ".", ". "])
def test_spaces_and_dots_at_the_end_of_names(end, tmp_path):
    root = writers.write_transforms(tmp_path)
    edit_json(root / "transforms.json", lambda value: value["frames"][0].update(file_path=f"images/a.png{end}"))
    assert len(open_capture(root).views) == 4
    (root / "images" / "b.png").rename(root / "images" / f"b.png{end}")
    assert len(open_capture(root).views) == 4


@pytest.mark.parametrize("content", ["1 2 3 junk", "version https://git-lfs.github.com/spec/v1"])
def test_a_broken_text_model_beside_a_whole_one_is_passed_over(content, tmp_path):
    root = writers.write_colmap_text(tmp_path)
    shutil.copytree(root / "sparse" / "0", root / "sparse" / "1")
    (root / "sparse" / "1" / "images.txt").write_text(content)
    assert len(open_capture(root).views) == 4


@pytest.mark.parametrize("kind", ["cameras", "images"])
def test_ids_that_occur_twice_are_refused(kind, tmp_path):
    root = writers.write_colmap_text(tmp_path)
    file = root / "sparse" / "0" / f"{kind}.txt"
    line = next(line for line in file.read_text().splitlines() if line.startswith("1 "))
    file.write_text(f"{file.read_text().rstrip()}\n{line}\n")
    assert f"{kind}.txt: {kind.removesuffix('s')} 1 occurs twice" in message(lambda: open_capture(root))


def test_points_cut_in_images_text_are_no_name(tmp_path):
    root = writers.write_colmap_text(tmp_path)
    file = root / "sparse" / "0" / "images.txt"
    rows = [line for line in file.read_text().splitlines() if line.endswith(".png")]
    file.write_text(f"{rows[0]}\n{'10.5 20.5 3 ' * 4000}10.5 2")
    said = message(lambda: open_capture(root))
    assert "images.txt: line 2: numbers where the name of an image is wanted; is the file whole?" in said


def test_points_outside_of_the_images_that_saw_them_are_noted(tmp_path):
    root = writers.write_colmap_text(tmp_path)
    assert open_capture(root).notes == ()
    file = root / "sparse" / "0" / "images.txt"
    rows = [line.split() for line in file.read_text().splitlines() if line.endswith(".png")]
    behind = [" ".join([*row[:5], *(str(-float(value)) for value in row[5:8]), *row[8:]]) for row in rows]
    file.write_text("\n\n".join(behind))
    [note] = open_capture(root).notes
    assert "points lie in the images that saw them: poses or lenses are not those of the points" in note


def test_a_link_to_itself_hides_no_photos(tmp_path):
    root = writers.write_colmap(tmp_path)
    (root / "images" / "loop.png").symlink_to("loop.png")
    assert len(open_capture(root).views) == 4


def test_absolute_paths_of_windows_and_others_in_one_file(tmp_path):
    root = writers.write_transforms(tmp_path)
    places = ("C:\\captures\\thing\\images\\", "/home/someone/thing/images/")

    def move(value):
        for index, (frame, name) in enumerate(zip(value["frames"], NAMES, strict=True)):
            frame["file_path"] = places[index % 2] + name

    edit_json(root / "transforms.json", move)
    assert open_capture(root).names == NAMES


def test_names_that_are_not_utf_8_are_shown_escaped(tmp_path):
    root = writers.write_transforms(tmp_path / "thing")
    edit_json(root / "transforms.json", lambda value: value["frames"][0].update(file_path="images/\ud800.png"))
    assert any("images/\\ud800.png" in note for note in open_capture(root).notes)
    strange = tmp_path / b"K\xfcche".decode(errors="surrogateescape")
    (tmp_path / "thing").rename(strange)
    assert "K\\udcfcche: its name is not UTF-8; rename it" in message(lambda: open_capture(strange))


def test_photos_of_a_capture_are_not_posed_again(tmp_path):
    root = writers.write_colmap(tmp_path)
    assert not needs_poses(root / "images")
    said = message(lambda: open_capture(root / "images"))
    assert said == f"{root}/images: the photos of a capture, without their cameras; pass its folder: {root}"
    shutil.copytree(root / "images", root / "more")
    assert needs_poses(root / "more")


def test_a_broken_model_wins_over_no_whole_one(tmp_path):
    root = writers.write_colmap(tmp_path)
    shutil.copytree(root / "sparse" / "0", root / "sparse" / "1")
    (root / "sparse" / "1" / "images.bin").write_bytes(b"\xff" * 8)
    assert len(open_capture(root).views) == 4


@pytest.mark.parametrize("place", ["sparse_3/0", "sparse/1", "sparse/merged", "distorted/sparse/0"])
def test_models_in_further_places(place, tmp_path):
    root = writers.write_colmap(tmp_path)
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / "sparse" / "0").rename(root / place)
    if place.startswith("distorted"):
        (root / "images").rename(root / "input")
        assert len(open_capture(root / place).views) == 4
        (root / "images").mkdir()
    assert len(open_capture(root).views) == 4


def test_photos_in_input_are_read_unless_the_model_is_of_undistorted_ones(tmp_path):
    root = writers.write_colmap(tmp_path)
    (root / "images").rename(root / "input")
    (root / "images").mkdir()
    assert "images are read from input/" in open_capture(root).notes
    writers.write_pictures(root / "input", WIDTH + 3, HEIGHT + 2)
    assert "photos of 51x34, but the model is of undistorted images of 48x32" in message(lambda: open_capture(root))


def test_model_files_with_capitals_or_of_both_kinds(tmp_path):
    root = writers.write_colmap_text(tmp_path / "capitals")
    (root / "images").rename(root / "Images")
    model = root / "sparse" / "0"
    for name in ("cameras", "images", "points3D"):
        (model / f"{name}.txt").rename(model / f"{name.capitalize()}.txt")
    assert len(open_capture(root).views) == 4
    root = writers.write_colmap(tmp_path / "both")
    text = writers.write_colmap_text(tmp_path / "text") / "sparse" / "0"
    for name in ("cameras.txt", "images.txt"):
        (root / "sparse" / "0" / name).write_bytes((text / name).read_bytes())
    assert open_capture(root).notes == ()
    images = root / "sparse" / "0" / "images.txt"
    images.write_text(images.read_text().replace(" 1 d.png", " 1 e.png"))
    assert "images.txt beside it differs: no image d.png; delete the file that" in message(lambda: open_capture(root))
    images.unlink()
    cameras = root / "sparse" / "0" / "cameras.txt"
    cameras.write_text(cameras.read_text().replace("60.0", "66.0"))
    assert "cameras.txt beside it differs: another camera 1" in message(lambda: open_capture(root))
    cameras.unlink()
    (root / "sparse" / "0" / "images.bin").unlink()
    images.write_bytes((text / "images.txt").read_bytes())
    assert open_capture(root).notes == ("cameras.bin and images.txt are read together",)


def test_points_of_removed_images_and_broken_points_are_dropped(tmp_path):
    root = writers.write_colmap_text(tmp_path)
    model = root / "sparse" / "0"
    lines = (model / "images.txt").read_text().splitlines()
    (model / "images.txt").write_text("\n".join(lines[:3] + lines[5:]) + "\n")  # without image 2
    head, first, *rest = (model / "points3D.txt").read_text().splitlines()
    broken = [" ".join([*first.split()[:2], value, *first.split()[3:]]) for value in ("nan", "1e30")]
    repeated = [first] * 10  # of which two are no tenth
    (model / "points3D.txt").write_text("\n".join([head, *broken, *rest, *repeated]) + "\n")
    capture = open_capture(root)
    assert (len(capture.views), len(capture.points)) == (3, 21)
    assert np.abs(capture.points.positions).max() < 1e3
    assert capture.points.tracks[0] == {"a.png"}
    assert capture.notes == (
        "2 points are dropped: not finite, or impossibly far away",
        "points were also seen by 1 images that the model does not have: left out",
    )


def test_transforms_whose_images_are_in_downscaled_or_other_folders(tmp_path):
    root = writers.write_transforms(tmp_path / "nerfstudio")
    edit_json(root / "transforms.json", lambda v: v.update(w=8 * WIDTH, h=8 * HEIGHT, fl_x=480.0, fl_y=480.0))
    (root / "images").rename(root / "images_8")
    capture = open_capture(root)
    np.testing.assert_allclose(capture.cameras[0].intrinsics, [[60, 0, 24], [0, 60, 16], [0, 0, 1]])
    assert capture.notes[0] == "images are read from images_8/, not where file_path says"
    (root / "images_8").rename(tmp_path / "resized_images")

    def list_apart(value):
        for frame in value["frames"]:
            frame["file_path"] = frame["file_path"].removeprefix("images/")
        value["test_frames"] = [value["frames"].pop()]

    edit_json(root / "transforms.json", list_apart)
    assert open_capture(root).names == NAMES


def test_transforms_with_absolute_paths_of_another_machine(tmp_path):
    root = writers.write_transforms(tmp_path)

    def move(value):
        for frame, start in zip(value["frames"], ["/home/me/room/", "C:\\room\\", "", f"{root}/"], strict=True):
            frame["file_path"] = start + frame["file_path"]

    edit_json(root / "transforms.json", move)
    write_image(root / "masks" / "m.png", np.ones((HEIGHT, WIDTH)))
    edit_json(root / "transforms.json", lambda v: v["frames"][2].update(mask_path="/home/me/room/masks/m.png"))
    capture = open_capture(root)
    assert capture.names == NAMES
    assert capture.view("c.png").load.mask_path == root / "masks" / "m.png"
    assert "2 frames name absolute paths of another place (the first: /home/me/room/images/a.png)" in capture.notes
    assert name_views(["/x/images/1.png", "/x/images/2.png"]) == ["1.png", "2.png"]
    edit_json(root / "transforms.json", lambda v: v["frames"][1].update(file_path="D:/other/images/a.png"))
    assert "a.png: is meant by 2 frames" in message(lambda: open_capture(root))


def test_transforms_with_lens_parameters_in_other_forms(tmp_path):
    root = writers.write_transforms(tmp_path)
    matrix = [[60.0, 0, 24], [0, 60.0, 16], [0, 0, 1]]
    edit_json(root / "transforms.json", lambda v: [v.pop("fl_x"), v.pop("fl_y"), v.update(intrinsics=matrix)])
    np.testing.assert_allclose(open_capture(root).cameras[0].intrinsics, matrix)
    edit_json(root / "transforms.json", lambda v: v.update(distortion_params=[0.1, 0.01, 0, 0, 0.001, 0]))
    assert open_capture(root).views[0].load.lens.params[4:] == (0.1, 0.01, 0.001, 0.0)
    edit_json(root / "transforms.json", lambda v: v.update(distortion_params=[0.1]))
    assert "distortion_params [0.1]; wanted 6 numbers: k1, k2" in message(lambda: open_capture(root))
    rational = {"k1": 0.1, "k2": 0.01, "k3": 0.001, "k4": 0.1, "k5": 0.01, "k6": 0.001}
    edit_json(root / "transforms.json", lambda v: [v.pop("distortion_params"), v.update(rational)])
    assert "k4 = 0.1 on a perspective lens" in message(lambda: open_capture(root))
    edit_json(root / "transforms.json", lambda v: v.update(camera_model="FULL_OPENCV"))
    assert open_capture(root).views[0].load.lens.params[8:] == (0.001, 0.1, 0.01, 0.001)
    for changes, wanted in [
        ({"camera_model": "OPENCV_FISHEYE", "k4": 0, "k5": 0, "k6": 0, "p1": 0.1}, "p1 = 0.1 on a fisheye lens"),
        ({"camera_model": "OPENCV", "p1": 0, "s1": 0.3}, "s1 = 0.3 is not used by any lens of this format"),
    ]:
        edit_json(root / "transforms.json", lambda v, changes=changes: v.update(changes))
        assert wanted in message(lambda: open_capture(root))


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        (
            {"cx": 48, "cy": 32},
            "principal point 48, 32 in an image of 48x32; wanted a principal point in its middle",
        ),
        ({"cx": 12, "cy": 8}, "wanted a principal point in its middle half: give the size (w, h)"),
        ({"fl_x": 15}, "wanted a focal length from 16 to 1440 pixels"),
        ({"fl_x": 1500, "fl_y": 1500}, "wanted a focal length from 16 to 1440 pixels"),
        ({"fl_x": 1.2, "fl_y": 1.8, "cx": 0.5, "cy": 0.5}, "normalized; wanted pixels"),
        ({"fl_y": 400}, "wanted focal lengths along x and y within a factor of 2"),
    ],
)
def test_intrinsics_that_cannot_belong_to_the_image_are_refused(changes, wanted, tmp_path):
    root = writers.write_transforms(tmp_path)
    edit_json(root / "transforms.json", lambda v: v.update(changes))
    text = message(lambda: open_capture(root))
    assert wanted in text and "transforms.json: frames.0 (images/a.png): focal length" in text


def turn_file(path, orientation):
    """Store a photo turned, with the EXIF orientation that turns it back."""
    method = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        image.transpose(method).save(path, exif=exif)


@pytest.mark.parametrize("kind", ["colmap", "transforms"])
def test_orientation_is_told_by_the_shape(kind, tmp_path):
    root = writers.WRITERS[kind](tmp_path)
    before = open_capture(root).views[0].load().rgb
    turn_file(root / "images" / "a.png", 6)
    capture = open_capture(root)
    np.testing.assert_array_equal(capture.views[0].load().rgb, before)
    assert capture.notes == (
        "1 photos have an EXIF orientation and are turned by it, as the width and height of their cameras tell",
    )
    text = message(lambda: open_capture(root, options=PhotoOptions(orientation="ignore")))
    assert "a.png: image is 32x48 but its camera" in text


def test_orientation_is_told_by_the_principal_point(tmp_path):
    root = writers.write_transforms(tmp_path)
    edit_json(root / "transforms.json", lambda v: [v.pop("w"), v.pop("h"), v.update(cx=24.0, cy=16.0)])
    before = open_capture(root).views[0].load().rgb
    turn_file(root / "images" / "a.png", 8)
    np.testing.assert_array_equal(open_capture(root).views[0].load().rgb, before)


def test_orientation_that_no_shape_tells_is_assumed_with_a_note_and_a_choice(tmp_path):
    root = writers.write_transforms(tmp_path)
    before = open_capture(root).views[0].load().rgb
    turn_file(root / "images" / "a.png", 3)
    capture = open_capture(root)
    np.testing.assert_array_equal(capture.views[0].load().rgb, before[::-1, ::-1])
    assert "assumed to have poses for the pixels as stored: if they are wrong, views.orientation apply" in str(
        capture.notes
    )
    capture = open_capture(root, options=PhotoOptions(orientation="apply"))
    np.testing.assert_array_equal(capture.views[0].load().rgb, before)
    assert "turned by it, as views.orientation asks" in capture.notes[0]


def test_llff_with_stray_images(tmp_path):
    root = writers.write_llff(tmp_path)
    write_image(root / "images" / "cover.jpg", writers.picture(0))
    capture = open_capture(root)
    assert capture.names == NAMES
    assert capture.notes == ("1 images in images/ are no photos of the table (the first: cover.jpg)",)
    write_image(root / "images" / "cover.png", writers.picture(0, 20, 20))
    assert open_capture(root).names == NAMES
    for cover in root.glob("images/cover*"):
        cover.unlink()
    for name in NAMES:
        write_image(root / "images" / name.replace(".png", ".jpg"), writers.picture(0))
    assert "4 rows but 8 images in images/" in message(lambda: open_capture(root))


def test_git_lfs_pointers_are_named(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    for kind, file in (
        ("colmap", "sparse/0/images.bin"),
        ("transforms", "transforms.json"),
        ("llff", "poses_bounds.npy"),
    ):
        root = writers.WRITERS[kind](tmp_path / kind)
        (root / file).write_bytes(pointer)
        assert f"{root / file}: a git-lfs pointer" in message(lambda root=root: open_capture(root))
    root = writers.write_splat(tmp_path / "splat")
    (root / "cameras.json").unlink()
    (root / "point_cloud.ply").write_bytes(pointer)
    assert f"{root}: point_cloud.ply is a git-lfs pointer" in message(lambda: open_capture(root))
    assert "point_cloud.ply: a git-lfs pointer" in message(lambda: open_capture(root / "point_cloud.ply"))


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (["1.jpg", "2.jpg"], r"2 photos without cameras; wanted a capture: splatfix pose \S+thing --out CAPTURE"),
        (["photos/1.jpg"], r"1 photos without cameras; .*splatfix pose \S+thing/photos --out CAPTURE"),
        (["v.MP4"], r"a video without cameras \(v\.MP4\); .*splatfix pose \S+/v\.MP4 --out CAPTURE"),
        (["capture.zip"], r"an archive \(capture\.zip\); wanted a capture: unpack it"),
        (["database.db", "images/1.jpg", "sparse/"], r"a COLMAP database without a model .*splatfix pose \S+/images "),
        (
            ["keyframes/corrected_cameras/1.json", "keyframes/corrected_images/1.jpg"],
            "Polycam; .*ns-process-data polycam",
        ),
        (["T_COLMAP_SfM.log", "T/1.jpg"], r"Tanks and Temples .*no focal lengths; .*splatfix pose \S+/T --out"),
    ],
)
def test_folders_that_are_no_capture_get_their_remedy(files, wanted, tmp_path):
    root = tmp_path / "thing"
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).mkdir() if name.endswith("/") else (root / name).touch()
    assert re.search(wanted, message(lambda: open_capture(root)))
    if len(files) == 1 and "/" not in files[0]:
        text = message(lambda: open_capture(root / files[0]))
        assert "splatfix pose" in text or "unpack it" in text


def test_photos_of_kinds_that_are_not_read_are_named(tmp_path):
    for suffix, start, wanted in [(".exr", b"\x76\x2f\x31\x01", "OpenEXR"), (".CR2", b"II*\0", "a raw photo")]:
        rename_in_model(writers.write_colmap(tmp_path / suffix), [f"{k}{suffix}" for k in range(4)])
        rename_files(tmp_path / suffix, [f"{k}{suffix}" for k in range(4)])
        for file in (tmp_path / suffix / "images").iterdir():
            file.write_bytes(start + bytes(90))
        text = message(lambda folder=tmp_path / suffix: open_capture(folder))
        assert f"images/0{suffix}: a" in text and wanted in text


def test_matrices_with_other_axes_are_noted(tmp_path):
    root = writers.write_transforms(tmp_path)
    assert open_capture(root).notes == ()

    def turn(value):
        for frame in value["frames"]:
            frame["transform_matrix"] = (np.array(frame["transform_matrix"]) @ writers.OPENGL).tolist()

    edit_json(root / "transforms.json", turn)
    [note] = open_capture(root).notes
    assert note.startswith("4 of 4 cameras look away from where their optical axes meet; if these photos surround")


def test_a_frame_that_is_listed_very_often_is_opened_once(tmp_path, monkeypatch):
    root = writers.write_transforms(tmp_path)
    edit_json(root / "transforms.json", lambda value: value["frames"].extend(value["frames"][:1] * 20_000))
    opened = []
    monkeypatch.setattr(
        transforms, "open_photo", lambda *args, **more: opened.append(args) or open_photo(*args, **more)
    )
    assert "20000 frames occur again with the same pose: kept once" in open_capture(root).notes
    assert len(opened) == 4
