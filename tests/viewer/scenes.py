"""Small splats, captures and run folders for the tests of the viewer."""

from pathlib import Path

import numpy as np
import torch

from splatfix.cameras import Camera, look_at
from splatfix.captures.capture import Capture, Photo, View
from splatfix.evaluation.layout import image_path, repair_path
from splatfix.evaluation.results import ViewResult
from splatfix.evaluation.view_cameras import locate_views, write_view_cameras
from splatfix.files import write_json
from splatfix.gaussians import Gaussians, Splat, write_splat
from splatfix.images import write_image
from splatfix.runs import RECORD
from splatfix.similarity import Similarity
from splatfix.views import Split

WORLD = Similarity(2.0, (100.0, 0.0, 0.0))


def some_gaussians(num: int = 50, *, degree: int = 1, seed: int = 0) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.randn(num, 3, generator=generator),
        log_scales=torch.randn(num, 3, generator=generator) - 2,
        quats=torch.randn(num, 4, generator=generator),
        opacity_logits=torch.randn(num, generator=generator),
        sh0=torch.randn(num, 1, 3, generator=generator),
        sh_rest=0.3 * torch.randn(num, (degree + 1) ** 2 - 1, 3, generator=generator),
    )


def a_splat(num: int = 50, *, degree: int = 1, seed: int = 0, **drawn) -> Splat:
    return Splat(some_gaussians(num, degree=degree, seed=seed), **drawn)


def a_camera(name: str, angle: float) -> Camera:
    center = 3 * np.array([np.cos(angle), -0.3, np.sin(angle)])
    intrinsics = np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])
    return Camera(name, 64, 48, intrinsics, look_at(center, np.zeros(3), np.array([0.0, -1, 0])))


def a_capture(**more) -> Capture:
    views = [
        View(a_camera(f"{k}.jpg", k), lambda k=k: Photo(np.full((48, 64, 3), 0.1 + 0.2 * k, np.float32)))
        for k in range(4)
    ]
    return Capture("test", Path("test"), "colmap", tuple(views), **more)


def a_run(folder: Path, *, arms: tuple[str, ...] = ("before", "control", "after"), capture: str = "/gone") -> Path:
    """A finished loop on `a_capture` in another world: photo 0 to train on, 1 to test on, a repaired view per round."""
    write_json(
        folder / RECORD,
        {
            **{"command": "loop", "inputs": {"capture": {"path": capture, "digest": "0"}}, "files": []},
            **{"settings": {"fit": {"mode": "classic"}}, "finished": "2026-01-01T00:00:00+00:00"},
        },
    )
    split = Split(("0.jpg",), ("1.jpg",), 64)
    write_json(folder / "split.json", split.to_json())
    for number, arm in enumerate(arms):
        write_splat(folder / f"{arm}.ply", a_splat(seed=number), file_from_world=WORLD)
    repairs = [(number, a_camera("novel_0", 0.5 * number)) for number in (1, 2)]
    tested = ViewResult(name="1.jpg", band="near", distance=0.5, before=None, control=None, after=None, post=None)
    write_view_cameras(folder, locate_views(a_capture(file_from_world=WORLD), split, [tested], repairs))
    write_image(image_path(folder, "1.jpg", "photo"), np.full((48, 64, 3), 0.3, np.float32))
    for number, camera in repairs:
        write_image(repair_path(folder, number, camera.name, "repaired"), np.full((48, 64, 3), 0.4, np.float32))
    return folder
