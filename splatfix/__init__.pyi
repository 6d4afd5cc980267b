from splatfix.api import FittedCapture, evaluate, fit_capture, render_flawed, repair, retrain
from splatfix.cameras import Camera
from splatfix.captures import Capture, open_capture
from splatfix.evaluation.results import Results, Summary
from splatfix.flawed import FlawedView
from splatfix.gaussians import Gaussians, Splat, read_splat, write_splat
from splatfix.loop import LoopConfig, RepairConfig, run_loop
from splatfix.rendering import Rendering, render
from splatfix.report import write_report
from splatfix.restoration import Repaired, Restorer, RestorerChoice
from splatfix.sample import sample_path
from splatfix.sfm import PoseConfig, PoseRecord, pose_photos
from splatfix.splats.train import FitConfig
from splatfix.views import Split, ViewsConfig, make_split

__version__: str
__all__ = [
    "Camera",
    "Capture",
    "FitConfig",
    "FittedCapture",
    "FlawedView",
    "Gaussians",
    "LoopConfig",
    "PoseConfig",
    "PoseRecord",
    "Rendering",
    "RepairConfig",
    "Repaired",
    "Restorer",
    "RestorerChoice",
    "Results",
    "Splat",
    "Split",
    "Summary",
    "ViewsConfig",
    "evaluate",
    "fit_capture",
    "make_split",
    "open_capture",
    "pose_photos",
    "read_splat",
    "render",
    "render_flawed",
    "repair",
    "retrain",
    "run_loop",
    "sample_path",
    "write_report",
    "write_splat",
]
