"""The command that estimates cameras."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional

from splatfix.command_line import command, show

if TYPE_CHECKING:
    from splatfix.sfm import PoseConfig


@command(
    config="splatfix.sfm:PoseConfig",
    shown=(
        *("frames", "size_px", "max_keypoints", "camera_model", "cameras", "focal_mm", "matching", "mapping"),
        *("threads", "seed"),
    ),
    examples=[
        "splatfix pose photos/ --out scenes/mine",
        "splatfix pose walk.mp4 --out scenes/walk --frames 80",
    ],
)
def pose(
    source: Positional[Annotated[str, tyro.conf.arg(metavar="PHOTOS_OR_VIDEO")]],
    *,
    out: Annotated[Path, tyro.conf.arg(metavar="CAPTURE")],
    fresh: bool,
    settings: "PoseConfig",
) -> None:
    """Estimate the cameras of photos or of a video, for captures that have none.

    Writes a COLMAP capture (images/ and sparse/0), which fit and loop take, pose.json, and the page pose.html: which
    photos have a camera now, how well it fits, and what to photograph where some have none.

    Args:
        source: folder of photos, or a video.
        out: folder of the capture.
    """
    from splatfix.report.pose import update_pose_page
    from splatfix.report.terminal import describe_pose
    from splatfix.sfm import pose_photos

    record = pose_photos(source, out, settings, fresh=fresh)
    show(describe_pose(record, update_pose_page(out)))
