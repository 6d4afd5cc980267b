"""Folder layouts of captures, as they occur in practice."""

import shutil

import numpy as np
import pytest

from splatfix.captures import open_capture
from splatfix.captures.transforms import name_views
from splatfix.images import read_image, write_image
from tests.captures import writers
from tests.captures.writers import HEIGHT, WIDTH, edit_json


def with_smaller_folders(root, count=4):
    """images_2 and images_4 beside images; images_4 as JPEG."""
    for factor, suffix in ((2, ".png"), (4, ".jpg")):
        for index, name in enumerate(writers.NAMES[:count]):
            picture = writers.picture(index, WIDTH // factor, HEIGHT // factor)
            write_image(root / f"images_{factor}" / name.replace(".png", suffix), picture)
    return root


@pytest.mark.parametrize("write", [writers.write_colmap, writers.write_llff])
@pytest.mark.parametrize(
    ("longest", "folder", "size"),
    [
        (None, "images", 48),
        (48, "images", 48),
        (30, "images", 30),
        (24, "images_2", 24),
        (12, "images_4", 12),
        (5, "images_4", 5),
    ],
)
def test_the_smallest_sufficient_folder_is_read(write, longest, folder, size, tmp_path):
    capture = open_capture(with_smaller_folders(write(tmp_path)), longest_side_px=longest)
    assert capture.names == writers.NAMES
    assert capture.views[0].load.path.parent.name == folder
    camera = capture.cameras[0]
    assert camera.width_px == size
    np.testing.assert_allclose(camera.intrinsics[0], [60 * size / 48, 0, size / 2])


@pytest.mark.parametrize("write", [writers.write_colmap, writers.write_llff])
def test_a_smaller_folder_is_read_if_it_is_the_only_one(write, tmp_path):
    root = with_smaller_folders(write(tmp_path))
    for name in writers.NAMES:
        (root / "images" / name).unlink()
    (root / "images").rmdir()
    capture = open_capture(root, longest_side_px=None)
    assert capture.cameras[0].width_px == 24
    assert "images are read from images_2/" in capture.notes


@pytest.mark.parametrize("write", [writers.write_colmap, writers.write_llff])
def test_an_incomplete_smaller_folder_is_not_read(write, tmp_path):
    capture = open_capture(with_smaller_folders(write(tmp_path), count=3), longest_side_px=12)
    assert capture.views[0].load.path.parent.name == "images"
    assert len(capture.views) == 4


@pytest.mark.parametrize("place", ["sparse", "colmap/sparse/0", "colmap_text"])
def test_colmap_model_in_other_places(place, tmp_path):
    root = writers.write_colmap_text(tmp_path)
    (root / "sparse").rename(root / "was")
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / "was" / "0").rename(root / place)
    capture = open_capture(root)
    assert (len(capture.views), len(capture.points)) == (4, 12)


def test_colmap_with_missing_parts(tmp_path):
    root = writers.write_colmap(tmp_path)
    (root / "images" / "b.png").unlink()
    (root / "sparse" / "0" / "points3D.bin").unlink()
    shutil.copytree(root / "sparse" / "0", root / "sparse" / "1")
    capture = open_capture(root)
    assert capture.names == ("a.png", "c.png", "d.png")
    assert capture.points is None
    assert capture.notes[0] == "1 of 4 frames skipped: no image file (the first: b.png)"
    assert "sparse/0 is read, the first model with most images (4); not read:" in capture.notes[1]
    assert "points3D.bin (or .txt) is missing" in capture.notes[2]


def test_colmap_images_in_folders_with_spaces_and_without_2d_points(tmp_path):
    root = writers.write_colmap_text(tmp_path)
    model = root / "sparse" / "0" / "images.txt"
    lines = [line for line in model.read_text().replace("a.png", "left eye/a b.png").splitlines() if line != "1 2 -1"]
    model.write_text("\n".join(line for line in lines if line))
    (root / "images" / "left eye").mkdir()
    (root / "images" / "a.png").rename(root / "images" / "left eye" / "a b.png")
    capture = open_capture(root)
    assert capture.names == ("b.png", "c.png", "d.png", "left eye/a b.png")
    assert "left eye/a b.png" in capture.points.tracks[0]


def test_colmap_cameras_of_several_sizes(tmp_path):
    root = writers.write_colmap_text(tmp_path)
    model = root / "sparse" / "0"
    with (model / "cameras.txt").open("a") as file:
        file.write("7 SIMPLE_PINHOLE 32 48 55 16 24\n")
    text = (model / "images.txt").read_text()
    (model / "images.txt").write_text(text.replace(" 1 c.png", " 7 c.png"))
    write_image(root / "images" / "c.png", writers.picture(2, 32, 48))
    cameras = {c.name: c for c in open_capture(root, longest_side_px=24).cameras}
    assert (cameras["c.png"].width_px, cameras["c.png"].height_px) == (16, 24)
    assert (cameras["b.png"].width_px, cameras["b.png"].height_px) == (24, 16)
    np.testing.assert_allclose(cameras["c.png"].intrinsics, [[27.5, 0, 8], [0, 27.5, 12], [0, 0, 1]])


def test_transforms_paths_in_all_spellings(tmp_path):
    root = writers.write_transforms(tmp_path / "capture" / "poses")
    (root / "images").rename(tmp_path / "capture" / "photos")

    def respell(value):
        for frame, path in zip(
            value["frames"],
            ["../photos/a.png", "./../photos/b", "..\\photos\\c.png", "../photos/d.JPG"],
            strict=True,
        ):
            frame["file_path"] = path

    edit_json(root / "transforms.json", respell)
    capture = open_capture(root)
    assert capture.names == ("a.png", "b", "c.png", "d.JPG")
    np.testing.assert_allclose(capture.view("d").load().rgb, writers.picture(3), atol=0.003)


def test_names_are_relative_to_the_deepest_common_folder():
    assert name_views(["images/1.png", "./images/2.png"]) == ["1.png", "2.png"]
    assert name_views(["images/left/1.png", "images/right/1.png"]) == ["left/1.png", "right/1.png"]
    assert name_views(["1.png", "more/1.png"]) == ["1.png", "more/1.png"]
    assert name_views(["only/one.png"]) == ["one.png"]


def test_transforms_missing_images_are_counted(tmp_path):
    root = writers.write_transforms(tmp_path)
    (root / "images" / "c.png").unlink()
    edit_json(root / "transforms.json", lambda value: value.update(ply_file_path="cloud.ply"))
    capture = open_capture(root)
    assert capture.names == ("a.png", "b.png", "d.png")
    assert capture.notes == (
        "1 of 4 frames skipped: no image file (the first: images/c.png)",
        "no points: ply_file_path cloud.ply is missing",
    )


def test_transforms_with_intrinsics_per_frame_and_scaled_files(tmp_path):
    root = writers.write_transforms(tmp_path)

    def change(value):
        value["frames"][0].update(fl_x=100.0, fl_y=90.0, cx=20.0, cy=12.0)
        value["frames"][1].update(w=96, h=64, fl_x=120.0, cx=50.0)
        value["frames"][2].update(camera_angle_x=np.pi / 2)

    edit_json(root / "transforms.json", change)
    capture = open_capture(root)
    a, b, c, _ = (camera.intrinsics for camera in capture.cameras)
    np.testing.assert_allclose(a, [[100, 0, 20], [0, 90, 12], [0, 0, 1]])
    np.testing.assert_allclose(b, [[60, 0, 25], [0, 60, 16], [0, 0, 1]])
    np.testing.assert_allclose(c, [[24, 0, 24], [0, 24, 16], [0, 0, 1]])
    assert capture.notes == (
        "1 images have another size than their camera (48x32, the camera says 96x64): intrinsics rescaled to the files",
    )


@pytest.mark.parametrize("rows", [3, 4])
def test_scaled_or_rounded_rotations_are_made_rigid(rows, tmp_path):
    root = writers.write_transforms(tmp_path)
    rng = np.random.default_rng(0)

    def change(value):
        for frame in value["frames"]:
            matrix = np.array(frame["transform_matrix"])
            matrix[:3, :3] = 4 * (matrix[:3, :3] + rng.normal(size=(3, 3)) * 5e-4)
            frame["transform_matrix"] = matrix[:rows].tolist()

    edit_json(root / "transforms.json", change)
    capture = open_capture(root)
    assert "transform_matrix carries a scale of 4" in capture.notes[0]
    for seen, wanted in zip(capture.cameras, writers.cameras(), strict=True):
        np.testing.assert_allclose(seen.rotation @ seen.rotation.T, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(seen.rotation, wanted.rotation, atol=3e-3)
        np.testing.assert_allclose(seen.center, wanted.center, atol=1e-9)


def test_resolve_accepts_the_spellings_of_published_splits(tmp_path):
    root = writers.write_transforms(tmp_path)
    (root / "images" / "left").mkdir()
    (root / "images" / "a.png").rename(root / "images" / "left" / "b.png")
    edit_json(root / "transforms.json", lambda value: value["frames"][0].update(file_path="images/left/b.png"))
    capture = open_capture(root)
    assert capture.names == ("b.png", "c.png", "d.png", "left/b.png")
    for spelled in ("c.png", "c", "c.JPG", "./c", "images/c.png", 1):
        assert capture.resolve(spelled) == "c.png"
    assert capture.resolve("left/b") == "left/b.png"
    assert capture.resolve("b") == "b.png"
    assert capture.view("images/left/b.png").name == "left/b.png"
    for wrong, said in [("e", "none of 4 views is named 'e'"), (4, "view number 4; wanted 0 to 3")]:
        with pytest.raises(ValueError, match=said):
            capture.resolve(wrong)
    edit_json(root / "transforms.json", lambda value: value["frames"][1].update(file_path="images/right/b.png"))
    (root / "images" / "right").mkdir()
    (root / "images" / "b.png").rename(root / "images" / "right" / "b.png")
    with pytest.raises(ValueError, match=r"'b' could be left/b\.png, right/b\.png; wanted the full name"):
        open_capture(root).resolve("b")


def test_opening_reads_headers_only(tmp_path, monkeypatch):
    for kind in ("transforms", "blender", "colmap", "llff"):
        writers.WRITERS[kind](tmp_path / kind)

    def fail(*_):
        raise AssertionError("pixels were decoded while opening")

    monkeypatch.setattr("splatfix.captures.photos.read_image", fail)
    for kind in ("transforms", "blender", "colmap", "llff"):
        assert len(open_capture(tmp_path / kind).views) == 4


def test_exif_orientation_is_ignored(tmp_path):
    from PIL import Image

    root = writers.write_transforms(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    with Image.open(root / "images" / "a.png") as image:
        image.save(root / "images" / "a.png", exif=exif)
    photo = open_capture(root).view("a").load()
    np.testing.assert_array_equal(photo.rgb, read_image(root / "images" / "a.png"))
    assert photo.rgb.shape == (HEIGHT, WIDTH, 3)
