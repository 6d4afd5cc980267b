"""Broken captures: one line that names the file, the field, what was seen and what was wanted."""

import re

import numpy as np
import pytest

from splatfix.captures import open_capture
from splatfix.images import write_image
from tests.captures import writers
from tests.captures.writers import WRITERS, edit_json


def message(action) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is what callers check)
        action()
    text = str(caught.value)
    assert "\n" not in text, text
    assert len(text) < 700, text
    return text


def spoil_id(path) -> None:
    """Replace the last number of the ids in the first line of a model in text."""
    lines = path.read_text().splitlines()
    k = next(k for k, line in enumerate(lines) if line and not line.startswith("#"))
    fields = lines[k].split()
    fields[8 if path.name != "cameras.txt" else 0] = "inf"
    lines[k] = " ".join(fields)
    path.write_text("\n".join(lines) + "\n")


def cut(path, share=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def in_frame(**changes):
    return lambda root: edit_json(root / "transforms.json", lambda value: value["frames"][2].update(changes))


def in_file(**changes):
    return lambda root: edit_json(root / "transforms.json", lambda value: value.update(changes))


def in_matrix(change):
    def broken(root):
        def edit(value):
            matrix = np.array(value["frames"][2]["transform_matrix"])
            change(matrix)
            value["frames"][2]["transform_matrix"] = matrix.tolist()

        edit_json(root / "transforms.json", edit)

    return broken


def without(key):
    return lambda root: edit_json(root / "transforms.json", lambda value: value["frames"][2].pop(key))


def set_to(index, number):
    def change(matrix):
        matrix[index] = number

    return change


def scale_axis(matrix):
    matrix[:3, 0] *= 1.3


def flip_axis(matrix):
    matrix[:3, 0] *= -1


def flatten(matrix):
    matrix[:3, 0] = matrix[:3, 1]


def transpose(matrix):
    matrix[:] = matrix.T.copy()


def only_image(shape):
    return lambda root: write_image(root / "images" / "c.png", np.zeros((*shape, 3)))


def row(index, number):
    def broken(root):
        rows = np.load(root / "poses_bounds.npy")
        rows[2, index] = number
        np.save(root / "poses_bounds.npy", rows)

    return broken


def patch(name, at, raw):
    def broken(root):
        path = root / "sparse" / "0" / name
        data = bytearray(path.read_bytes())
        data[at : at + len(raw)] = raw
        path.write_bytes(bytes(data))

    return broken


def replace_text(name, old, new):
    def broken(root):
        path = root / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return broken


def write_lines(path, *lines):
    path.write_text("\n".join(lines) + "\n")


def break_points(root):
    path = root / "sparse/0/points3D.txt"
    head, *rows = path.read_text().splitlines()
    write_lines(path, head, *(row.replace(row.split()[1], "nan", 1) if k < 2 else row for k, row in enumerate(rows)))


def in_camera(**changes):
    return lambda root: edit_json(root / "cameras.json", lambda value: value[2].update(changes))


FRAME = r"transforms\.json: frames\.2 \(images/c\.png\): "
BROKEN = [
    # transforms.json
    *(
        (
            "colmap_text",
            lambda r, file=file: spoil_id(r / "sparse/0" / file),
            rf"{file}: line \d+: id inf; wanted",
        )
        for file in ("cameras.txt", "images.txt", "points3D.txt")
    ),
    ("transforms", lambda r: cut(r / "transforms.json"), r"transforms\.json: not valid JSON at line 1, column \d+"),
    ("transforms", lambda r: (r / "transforms.json").write_bytes(b"\xff\xfe{"), r"transforms\.json: not text in UTF-8"),
    (
        "transforms",
        lambda r: (r / "transforms.json").write_text("[]"),
        r"transforms\.json: the top level: .*got '\[\]'",
    ),
    ("transforms", in_file(frames=[]), r"transforms\.json: none of 0 frames"),
    ("transforms", lambda r: edit_json(r / "transforms.json", lambda v: v.pop("frames")), r"frames: field required"),
    ("transforms", without("transform_matrix"), r"frames\.2\.transform_matrix: field required"),
    ("transforms", without("file_path"), r"frames\.2\.file_path: field required"),
    ("transforms", in_frame(transform_matrix="x"), r"frames\.2\.transform_matrix: .*list.*got 'x'"),
    ("transforms", in_frame(transform_matrix=[[1, 2], [3]]), FRAME + "transform_matrix: rows of different lengths"),
    ("transforms", in_frame(transform_matrix=[[1, 0], [0, 1]]), FRAME + "transform_matrix: shape 2x2; wanted a 4x4"),
    (
        "transforms",
        in_matrix(set_to((1, 3), np.nan)),
        FRAME + "transform_matrix: row 1, column 3 is nan; wanted finite",
    ),
    ("transforms", in_matrix(scale_axis), FRAME + "transform_matrix: skewed rotation .*wanted all equal to 1"),
    ("transforms", in_matrix(flip_axis), FRAME + r"transform_matrix: mirrored rotation \(determinant -1\); wanted \+1"),
    ("transforms", in_matrix(flatten), FRAME + "transform_matrix: singular rotation"),
    ("transforms", in_matrix(transpose), FRAME + "transform_matrix: last row .*is it transposed"),
    ("transforms", in_frame(fl_x=0), FRAME + "focal length 0 px; wanted a positive number"),
    ("transforms", in_frame(fl_x=float("nan")), FRAME + "intrinsics .*nan.*wanted finite numbers"),
    ("transforms", in_frame(fl_x="wide"), r"frames\.2\.fl_x: .*valid number.*got 'wide'"),
    ("transforms", in_frame(w=0), FRAME + "image size 0x32; wanted positive whole numbers"),
    ("transforms", in_frame(camera_angle_x=4), FRAME + "camera_angle_x = 4; wanted radians between 0 and pi"),
    ("transforms", in_frame(camera_model="EQUIRECTANGULAR"), FRAME + "camera_model 'EQUIRECTANGULAR'; wanted PINHOLE"),
    ("transforms", in_frame(k1=0.1, k4=0.2), FRAME + "k4 = 0.2 on a perspective lens"),
    ("transforms", in_frame(k1=-20, k2=1e6), FRAME + "OPENCV with parameters .* cannot be undistorted"),
    ("transforms", in_frame(file_path="images/b.png"), r"transforms\.json: b\.png occurs twice, with two poses"),
    ("transforms", in_frame(mask_path="m.png"), FRAME + r"mask_path m\.png is missing"),
    ("transforms", only_image((32, 32)), r"images/c\.png: image is 32x32 but its camera in .*frames\.2.* is 48x32"),
    ("transforms", only_image((48, 32)), r"images/c\.png: image is 32x48 but .* is 48x32; is it turned \(EXIF\)"),
    ("transforms", lambda r: (r / "images/c.png").write_bytes(b"no"), r"images/c\.png: cannot be read as an image"),
    ("transforms", in_file(ply_file_path="transforms.json"), r"transforms\.json: cannot be read as PLY"),
    # NeRF-synthetic
    ("blender", lambda r: cut(r / "transforms_test.json"), r"transforms_test\.json: not valid JSON"),
    (
        "blender",
        lambda r: [f.unlink() for f in (r / "test").iterdir()],
        r"transforms_test\.json: none of 1 frames has its",
    ),
    (
        "blender",
        lambda r: edit_json(r / "transforms_train.json", lambda v: v.pop("camera_angle_x")),
        r"transforms_train\.json: frames\.0 .*no focal length; wanted fl_x \(pixels\) or camera_angle_x",
    ),
    (
        "blender",
        lambda r: edit_json(r / "transforms_test.json", lambda v: v["frames"][0].update(file_path="./train/a")),
        r"transforms_test\.json: train/a has another pose than in an earlier split",
    ),
    # LLFF
    ("llff", lambda r: cut(r / "poses_bounds.npy"), r"poses_bounds\.npy: cannot be read as a NumPy array"),
    (
        "llff",
        lambda r: np.save(r / "poses_bounds.npy", np.zeros((4, 12))),
        r"float64 of shape \(4, 12\); wanted numbers",
    ),
    (
        "llff",
        lambda r: (r / "images/c.png").unlink(),
        r"poses_bounds\.npy: 4 rows but 3 images in images/; wanted as many",
    ),
    ("llff", lambda r: (r / "images").rename(r / "photos"), r"poses_bounds\.npy: 4 rows but no images/ folder"),
    ("llff", lambda r: (r / "images/b.png").unlink(), r"4 rows but 3 images in images/; .*: add the missing images"),
    ("llff", row(3, np.nan), r"poses_bounds\.npy: row 2 \(c\.png\): row 0, column 3 is nan; wanted finite"),
    ("llff", row(14, 0), r"poses_bounds\.npy: row 2 \(c\.png\): focal length 0 px"),
    ("llff", row(0, 5), r"poses_bounds\.npy: row 2 \(c\.png\): (skewed|mirrored) rotation"),
    ("llff", only_image((32, 32)), r"images/c\.png: image is 32x32 but its camera .*row 2"),
    # COLMAP
    ("colmap", lambda r: cut(r / "sparse/0/cameras.bin"), r"cameras\.bin: truncated within camera"),
    ("colmap", lambda r: cut(r / "sparse/0/images.bin"), r"images\.bin: truncated within image number \d of 4"),
    ("colmap", lambda r: cut(r / "sparse/0/points3D.bin"), r"points3D\.bin: truncated within point number \d of 12"),
    ("colmap", lambda r: (r / "sparse/0/cameras.bin").unlink(), r"sparse/0: cameras\.bin \(or \.txt\) is missing"),
    ("colmap", lambda r: (r / "sparse/0/images.bin").unlink(), r"sparse/0: images\.bin \(or \.txt\) is missing"),
    (
        "colmap",
        lambda r: (r / "images").rename(r / "photos"),
        r"none of the 4 images .*a\.png\); wanted them in .*images",
    ),
    ("colmap", patch("cameras.bin", 12, b"\x63\0\0\0"), r"cameras\.bin: camera 1: model id 99; wanted one of"),
    ("colmap", patch("cameras.bin", 32, bytes(8)), r"cameras\.bin: camera 1: focal length 0 px"),
    ("colmap", patch("images.bin", 12, bytes(32)), r"images\.bin: image 1 \(a\.png\): quaternion .*wanted a unit"),
    ("colmap", patch("images.bin", 44, np.array(np.nan).tobytes()), r"image 1 \(a\.png\): .*translation \[nan.*finite"),
    ("colmap", patch("images.bin", 68, b"\x07\0\0\0"), r"image 1 \(a\.png\): camera 7 is not in .*cameras\.bin"),
    ("colmap", patch("images.bin", 72, b"b"), r"images\.bin: b\.png occurs twice, with two poses"),
    ("colmap_text", break_points, r"points3D\.txt: 2 of 12 points are not finite, or .* \(point number 0 is \[nan"),
    (
        "colmap_text",
        lambda r: write_lines(r / "sparse/0/points3D.txt", "1 0 0 0 9 9 9 0.5 99 0"),
        r"points3D\.txt: its points were seen by other images than the model has \(by image 99\)",
    ),
    ("colmap", only_image((32, 32)), r"images/c\.png: image is 32x32 but its camera in .*camera 1 is 48x32"),
    (
        "colmap_text",
        replace_text("sparse/0/cameras.txt", "PINHOLE", "LINEAR"),
        r"camera 1: camera model 'LINEAR' has no",
    ),
    (
        "colmap_text",
        replace_text("sparse/0/cameras.txt", "60.0", "sixty"),
        r"cameras\.txt: line 2: .*'sixty'; wanted n",
    ),
    ("colmap_text", replace_text("sparse/0/cameras.txt", "60.0", ""), r"camera 1: 3 parameters for PINHOLE; wanted 4"),
    ("colmap_text", replace_text("sparse/0/images.txt", " 1 a.png", ""), r"images\.txt: line 2: .*wanted IMAGE_ID, QW"),
    (
        "colmap_text",
        replace_text("sparse/0/points3D.txt", " 2 0", " 2"),
        r"points3D\.txt: line 2: .*wanted ID, X, Y, Z",
    ),
    # splats
    ("splat", lambda r: cut(r / "point_cloud.ply"), r"point_cloud\.ply: .*is the file whole"),
    ("splat", lambda r: (r / "point_cloud.ply").unlink(), r"point_cloud\.ply: no such file"),
    ("splat", lambda r: cut(r / "cameras.json"), r"cameras\.json: not valid JSON"),
    ("splat", lambda r: (r / "cameras.json").write_text("[]"), r"cameras\.json: no frames; wanted at least one"),
    ("splat", in_camera(fx=-1), r"cameras\.json: 2 \(c\.png\): focal length -1 px"),
    (
        "splat",
        in_camera(position=[1, 2]),
        r"cameras\.json: 2 \(c\.png\): .* rows of \[2, 3, 3, 3\] numbers; wanted 3 and",
    ),
    (
        "splat",
        in_camera(rotation=[[1, 0, 0], [0, 1, 0], [0, 0, -1]]),
        r"2 \(c\.png\): \[rotation \| position\]: mirrored",
    ),
    (
        "splat",
        lambda r: (r / "after.ply").write_bytes((r / "point_cloud.ply").read_bytes()),
        r"several splats \(after\.ply, point_cloud\.ply\); wanted one",
    ),
]


@pytest.mark.parametrize(("kind", "damage", "wanted"), BROKEN, ids=[f"{k}-{w[:40]}" for k, _, w in BROKEN])
def test_errors_of_broken_captures_are_one_line(kind, damage, wanted, tmp_path):
    root = WRITERS[kind](tmp_path / "thing")
    damage(root)
    text = message(lambda: open_capture(root))
    assert re.search(wanted, text), text
    assert str(root) in text


@pytest.mark.parametrize("kind", ["transforms", "blender", "colmap", "llff"])
def test_a_truncated_image_is_named_when_it_is_loaded(kind, tmp_path):
    root = WRITERS[kind](tmp_path)
    file = next(root.rglob("a.png"))
    rng = np.random.default_rng(0)
    write_image(file, rng.uniform(size=(32, 48, 4 if kind == "blender" else 3)))
    cut(file)
    view = next(view for view in open_capture(root).views if "a" in view.name.rpartition("/")[2])
    assert f"{file}: cannot be decoded" in message(view.load)


def test_an_image_that_changed_after_opening_is_an_error(tmp_path):
    root = WRITERS["transforms"](tmp_path)
    view = open_capture(root).view("a.png")
    write_image(root / "images" / "a.png", np.zeros((16, 24, 3)))
    assert "changed while in use (now 24x16)" in message(view.load)


def test_folders_and_files_without_a_capture_are_errors(tmp_path):
    assert "no such file or folder" in message(lambda: open_capture(tmp_path / "absent"))
    text = message(lambda: open_capture(tmp_path))
    assert "it contains nothing" in text
    for word in ("transforms.json", "transforms_train.json", "COLMAP", "LLFF", "3DGS .ply"):
        assert word in text
    (tmp_path / "notes.txt").write_text("x")
    writers.write_llff(tmp_path / "inner")
    text = message(lambda: open_capture(tmp_path))
    assert "it contains inner/, notes.txt" in text
    assert "inner/ is a capture: pass that folder" in text
    (tmp_path / "1K" / "0a").mkdir(parents=True)
    (tmp_path / "inner").rename(tmp_path / "1K" / "0a" / "nerfstudio")
    assert "1K/0a/nerfstudio/ is a capture: pass that folder" in message(lambda: open_capture(tmp_path))
    (tmp_path / "1K" / "0a" / "nerfstudio").rename(tmp_path / "inner")
    assert "a file of no known capture" in message(lambda: open_capture(tmp_path / "notes.txt"))
    assert "longest_side_px is 0" in message(lambda: open_capture(tmp_path / "inner", longest_side_px=0))
