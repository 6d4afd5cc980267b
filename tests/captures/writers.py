"""Writes one small capture in every format, so that all readers can be held to the same cameras."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import torch

from splatfix.cameras import Camera, look_at, quaternion_from_rotation
from splatfix.gaussians import Gaussians, write_ply
from splatfix.images import write_image
from splatfix.similarity import Similarity

WIDTH, HEIGHT, FOCAL = 48, 32, 60.0
NAMES = ("a.png", "b.png", "c.png", "d.png")
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
FRAME = {"fl_x": FOCAL, "fl_y": FOCAL, "w": WIDTH, "h": HEIGHT}


def cameras() -> list[Camera]:
    """Four cameras around the origin, with the principal point at the center."""
    intrinsics = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    up = np.array([0.1, -1.0, 0.2])
    made = []
    for index, name in enumerate(NAMES):
        center = np.array([np.cos(index), -0.3 * index, np.sin(index)]) * 3
        made.append(Camera(name, WIDTH, HEIGHT, intrinsics, look_at(center, np.zeros(3), up)))
    return made


def points() -> np.ndarray:
    """World points near the origin, ``[P, 3]``."""
    return np.random.default_rng(0).normal(size=(12, 3)) * 0.2


def picture(index: int, width: int = WIDTH, height: int = HEIGHT, channels: int = 3) -> np.ndarray:
    """A smooth picture that differs per view; a fourth channel is a disc of alpha."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    rgb = np.stack([x, y, np.full_like(x, index / 4)], axis=-1)
    if channels == 3:
        return rgb.astype(np.float32)
    disc = np.hypot(x - x.mean(), y - y.mean()) < 0.25
    return np.concatenate([rgb, disc[..., None]], axis=-1).astype(np.float32)


def write_pictures(folder: Path, width: int = WIDTH, height: int = HEIGHT, channels: int = 3) -> None:
    """One picture per view."""
    for index, name in enumerate(NAMES):
        write_image(folder / name, picture(index, width, height, channels))


def write_json(path: Path, value: object) -> None:
    """JSON, with NaN as Python writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def edit_json(path: Path, change) -> None:
    """Load, change in place, write."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def move_transforms(root: Path, move: Similarity) -> None:
    """Express the poses of ``transforms.json`` in another world."""

    def change(tree):
        for frame in tree["frames"]:
            pose = np.array(frame["transform_matrix"])
            pose[:3, 3] = move.apply(pose[:3, 3])
            frame["transform_matrix"] = pose.tolist()

    edit_json(root / "transforms.json", change)


def opengl(camera: Camera) -> list[list[float]]:
    """Camera-to-world with OpenGL axes."""
    return (camera.world_from_camera @ OPENGL).tolist()


def write_transforms(root: Path) -> Path:
    """nerfstudio: transforms.json and images/."""
    write_pictures(root / "images")
    frames = [{"file_path": f"images/{c.name}", "transform_matrix": opengl(c)} for c in cameras()]
    write_json(root / "transforms.json", {**FRAME, "frames": frames})
    return root


def write_blender(root: Path) -> Path:
    """NeRF-synthetic: two splits, RGBA, no suffixes."""
    write_pictures(root / "train", channels=4)
    (root / "test").mkdir()
    angle = 2 * np.arctan(WIDTH / 2 / FOCAL)
    for split, members in (("train", cameras()[:3]), ("test", cameras()[3:])):
        frames = [{"file_path": f"./{split}/{c.name[0]}", "transform_matrix": opengl(c)} for c in members]
        write_json(root / f"transforms_{split}.json", {"camera_angle_x": angle, "frames": frames})
    (root / "train" / "d.png").rename(root / "test" / "d.png")
    return root


def write_llff(root: Path) -> Path:
    """LLFF: poses_bounds.npy and images/."""
    write_pictures(root / "images")
    rows = []
    for camera in cameras():
        c2w = camera.world_from_camera
        right, down, forward, center = c2w[:3, 0], c2w[:3, 1], c2w[:3, 2], c2w[:3, 3]
        table = np.stack([down, right, -forward, center, [HEIGHT, WIDTH, FOCAL]], axis=1)
        rows.append([*table.ravel(), 1.0, 9.0])
    np.save(root / "poses_bounds.npy", np.array(rows))
    return root


def write_colmap(root: Path, lens: tuple = (1, (FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2))) -> Path:
    """COLMAP, binary, PINHOLE; every point is seen by the first two views, even ones also by the last."""
    write_pictures(root / "images")
    model = root / "sparse" / "0"
    model.mkdir(parents=True)
    model_id, params = lens
    (model / "cameras.bin").write_bytes(struct.pack(f"<QIiQQ{len(params)}d", 1, 1, model_id, WIDTH, HEIGHT, *params))
    images = struct.pack("<Q", len(NAMES))
    for index, camera in enumerate(cameras()):
        pose = [*quaternion_from_rotation(camera.rotation), *camera.camera_from_world[:3, 3]]
        images += struct.pack("<I7dI", index + 1, *pose, 1) + camera.name.encode() + b"\0"
        images += struct.pack("<Qddq", 1, 1.0, 2.0, -1)
    (model / "images.bin").write_bytes(images)
    cloud = struct.pack("<Q", len(points()))
    for index, point in enumerate(points()):
        track = [1, 0, 2, 0] + [4, 0] * (index % 2 == 0)
        cloud += struct.pack("<Q3d3BdQ", index + 1, *point, 255, 0, 51, 0.5, len(track) // 2)
        cloud += struct.pack(f"<{len(track)}I", *track)
    (model / "points3D.bin").write_bytes(cloud)
    return root


def write_colmap_text(root: Path) -> Path:
    """COLMAP, text; one image has an empty line of 2D points, a name has a space in it."""
    write_pictures(root / "images")
    model = root / "sparse" / "0"
    model.mkdir(parents=True)
    (model / "cameras.txt").write_text(f"# cameras\n1 PINHOLE {WIDTH} {HEIGHT} {FOCAL} {FOCAL} 24 16\n")
    lines = ["# images"]
    for index, camera in enumerate(cameras()):
        pose = [*quaternion_from_rotation(camera.rotation), *camera.camera_from_world[:3, 3]]
        lines += [
            f"{index + 1} {' '.join(map(repr, map(float, pose)))} 1 {camera.name}",
            "" if index == 1 else "1 2 -1",
        ]
    (model / "images.txt").write_text("\n".join(lines) + "\n")
    rows = [
        f"{i + 1} {p[0]} {p[1]} {p[2]} 255 0 51 0.5 1 0 2 0" + " 4 0" * (i % 2 == 0) for i, p in enumerate(points())
    ]
    (model / "points3D.txt").write_text("# points\n" + "\n".join(rows) + "\n")
    return root


def write_splat(root: Path) -> Path:
    """INRIA: point_cloud.ply and cameras.json."""
    root.mkdir(parents=True, exist_ok=True)
    write_ply(root / "point_cloud.ply", gaussians())
    listed = [
        {
            "id": index,
            "img_name": camera.name,
            "width": WIDTH,
            "height": HEIGHT,
            "position": camera.center.tolist(),
            "rotation": camera.rotation.T.tolist(),
            "fx": FOCAL,
            "fy": FOCAL,
        }
        for index, camera in enumerate(cameras())
    ]
    write_json(root / "cameras.json", listed)
    return root


def gaussians() -> Gaussians:
    """A dozen opaque red blobs near the origin."""
    means = torch.from_numpy(points()).float()
    count = len(means)
    return Gaussians(
        means=means,
        log_scales=torch.full((count, 3), -2.0),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        opacity_logits=torch.full((count,), 4.0),
        sh0=torch.tensor([1.7, -1.7, -1.7]).repeat(count, 1, 1),
        sh_rest=torch.zeros(count, 0, 3),
    )


WRITERS = {
    "transforms": write_transforms,
    "blender": write_blender,
    "colmap": write_colmap,
    "colmap_text": write_colmap_text,
    "llff": write_llff,
    "splat": write_splat,
}
