from splatfix.api import FittedCapture, evaluate, fit_capture, render_flawed, repair, retrain
from splatfix.captures import Capture, open_capture
from splatfix.flawed import FlawedView
from splatfix.gaussians import Gaussians, Splat, read_splat, write_splat
from splatfix.loop import LoopConfig, RepairConfig, run_loop
from splatfix.restoration import Repaired, Restorer, RestorerChoice
from splatfix.sample import sample_path
from splatfix.sfm import PoseConfig, pose_photos
from splatfix.splats.train import FitConfig
from splatfix.views import Split, ViewsConfig

__version__: str
__all__ = [
    "Capture",
    "FitConfig",
    "FittedCapture",
    "FlawedView",
    "Gaussians",
    "LoopConfig",
    "PoseConfig",
    "RepairConfig",
    "Repaired",
    "Restorer",
    "RestorerChoice",
    "Splat",
    "Split",
    "ViewsConfig",
    "evaluate",
    "fit_capture",
    "open_capture",
    "pose_photos",
    "read_splat",
    "render_flawed",
    "repair",
    "retrain",
    "run_loop",
    "sample_path",
    "write_splat",
]
