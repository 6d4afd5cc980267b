"""Cameras for photos or a video that have none: structure from motion, as an ordinary COLMAP capture.

`pose_photos` goes from the files to the folder of a capture. A `Poser` estimates the cameras: COLMAP, or a plugin.
"""

from splatfix.sfm.config import FirstPosesConfig, PoseConfig
from splatfix.sfm.poser import PhotoInfo, PosedModel, Poser, PoseTask
from splatfix.sfm.record import POSE_RECORD, PhotoRecord, PoseRecord, describe_poses, read_pose_record
from splatfix.sfm.run import pose_photos
from splatfix.sfm.source import count_photos, needs_poses

__all__ = [
    "POSE_RECORD",
    "FirstPosesConfig",
    "PhotoInfo",
    "PhotoRecord",
    "PoseConfig",
    "PoseRecord",
    "PoseTask",
    "PosedModel",
    "Poser",
    "count_photos",
    "describe_poses",
    "needs_poses",
    "pose_photos",
    "read_pose_record",
]
