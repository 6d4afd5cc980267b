"""Estimated cameras against given ones: ``python -m tests.benchmarks.bench_pose [--psnr] [CAPTURE ...]``.

Photos of each capture are posed without their cameras, and compared with these: rotation in degrees after the best
common rotation, position after a similarity (Umeyama, "Least-squares estimation of transformation parameters", 1991) as
a share of the scene's depth. With ``--psnr`` the same photos are then fitted with both, and measured on the same
others.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from splatfix.cameras import Camera
from splatfix.captures import Capture, Points, open_capture
from splatfix.captures.photos import PhotoFile
from splatfix.files import write_json
from splatfix.fit import FitRunConfig, run_fit
from splatfix.sfm import PoseConfig, PoseRecord, pose_photos
from splatfix.views import ViewsConfig, pick_evenly, scene_depth

SCENES = Path(os.environ.get("SPLATFIX_SCENES", "../shared/scenes"))
CAPTURES = (
    *("banana", "bonsai", "brighton_aerial", "bronze_axe", "building_site", "castle", "cyprus_arch", "dunes", "entry"),
    *("flower", "fountain", "fox", "lund_street", "monstree", "plush", "relief", "sceaux", "statue"),
)
NUM_FIT, NUM_STEPS, FIT_SIZE_PX = 6, 400, 200
COLUMNS = ("registered", "rotation", "max", "position", "max", "error px", "seconds", "before", "given")


@dataclass(frozen=True, kw_only=True)
class PoseErrors:
    """Errors of estimated cameras: rotation in degrees, position as a share of the scene's depth, one per camera."""

    rotation_deg: np.ndarray
    position: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captures", nargs="*", default=[str(SCENES / name) for name in CAPTURES])
    parser.add_argument("--max-photos", type=int, default=30)
    parser.add_argument("--size-px", type=int, default=640)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench_pose"), help="folder for photos, captures and fits"
    )
    parser.add_argument("--psnr", action="store_true", help="fit the photos with estimated and with given cameras")
    options = parser.parse_args()
    print(f"{'capture':16}", *(f"{name:>10}" for name in COLUMNS), " method", flush=True)
    for path in options.captures:
        try:
            print(measure(Path(path), options.out / Path(path).name, options), flush=True)
        except ValueError as error:
            print(f"{Path(path).name:16} {error}", flush=True)


def measure(path: Path, place: Path, options: argparse.Namespace) -> str:
    """A row of the table."""
    given = open_capture(path, longest_side_px=None)
    names = copy_photos(given, place / "photos", options.max_photos, options.size_px)
    record = pose_photos(place / "photos", place / "posed", PoseConfig(threads=options.threads))
    seconds = sum(record.seconds.values())
    estimated = open_capture(place / "posed", longest_side_px=None)
    cameras = {names[camera.name]: camera for camera in estimated.cameras}
    errors = compare_cameras([(given.view(name).camera, camera) for name, camera in cameras.items()], given.points)
    psnr = compare_fits(path, place, names, cameras) if options.psnr else (None, None)
    figures = (
        *(f"{len(record.registered)} of {len(record.photos)}", f"{np.median(errors.rotation_deg):.2f}"),
        *(f"{errors.rotation_deg.max():.2f}", f"{100 * np.median(errors.position):.2f} %"),
        *(f"{100 * errors.position.max():.2f} %", f"{record.error_px:.2f}", f"{seconds:.0f}"),
        *("-" if value is None else f"{value:.2f}" for value in psnr),
    )
    return " ".join([f"{path.name:16}", *(f"{figure:>10}" for figure in figures), f" {describe(record)}"])


def describe(record: PoseRecord) -> str:
    """How the cameras were found."""
    focals = ", ".join(f"{camera.focal_px:.0f}" for camera in record.cameras[:3])
    return f"{record.method}; focal {focals} px"


def copy_photos(capture: Capture, folder: Path, num: int, size_px: int) -> dict[str, str]:
    """Copy photos of a capture, evenly over their names, without their poses; maps new names to the view's."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {}
    for index, view in enumerate(pick_evenly(capture.views, num)):
        assert isinstance(view.load, PhotoFile)
        source = view.load.path
        name = f"{index:03d}{source.suffix.lower()}"
        with Image.open(source) as image:
            if max(image.size) <= size_px:
                shutil.copyfile(source, folder / name)
            else:
                image.thumbnail((size_px, size_px), Image.Resampling.LANCZOS)
                image.save(folder / name, quality=95, exif=image.getexif())
        names[name] = view.name
    return names


def compare_cameras(pairs: Sequence[tuple[Camera, Camera]], points: Points | None = None) -> PoseErrors:
    """Compare pairs of a given and an estimated camera; ``points`` of the given world say how deep the scene is."""
    mean = sum(reference.rotation.T @ camera.rotation for reference, camera in pairs)
    u, _, vt = np.linalg.svd(np.asarray(mean))
    common = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    turns = [reference.rotation @ common @ camera.rotation.T for reference, camera in pairs]
    angles = [np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))) for turn in turns]
    centers = [np.array([camera.center for camera in side]) for side in zip(*pairs, strict=True)]
    moved = align(centers[1], centers[0])
    depth = scene_depth([reference for reference, _ in pairs], points)
    return PoseErrors(rotation_deg=np.array(angles), position=np.linalg.norm(moved - centers[0], axis=1) / depth)


def align(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Move points onto targets by the similarity with the least squared distance (Umeyama 1991)."""
    a, b = points - points.mean(0), targets - targets.mean(0)
    u, singular, vt = np.linalg.svd(b.T @ a)
    sign = np.array([1, 1, np.linalg.det(u @ vt)])
    rotation = u @ np.diag(sign) @ vt
    scale = (singular * sign).sum() / max((a**2).sum(), 1e-12)
    return scale * a @ rotation.T + targets.mean(0)


def compare_fits(
    path: Path, place: Path, names: dict[str, str], cameras: dict[str, Camera]
) -> tuple[float | None, float | None]:
    """PSNR of ``before`` with estimated and with given cameras: the same photos, chosen by the given ones."""
    back = {view: name for name, view in names.items()}
    known = sorted(cameras)
    if len(known) <= NUM_FIT:
        return None, None
    train = pick_evenly(known, NUM_FIT)
    test = pick_evenly([name for name in known if name not in train], 8)
    sides = {
        "estimated": (place / "posed", [back[name] for name in train], [back[name] for name in test]),
        "given": (path, train, test),
    }
    found = []
    for side, (capture, train_ids, test_ids) in sides.items():
        split = place / f"{side}.json"
        write_json(split, {"train_ids": train_ids, "test_ids": test_ids, "size_px": FIT_SIZE_PX})
        config = FitRunConfig(views=ViewsConfig(split=split, size_px=FIT_SIZE_PX), video=False)
        results = run_fit(capture, place / side, config)
        found.append(results.summary.value("all", "before", "psnr"))
    return found[0], found[1]


if __name__ == "__main__":
    main()
