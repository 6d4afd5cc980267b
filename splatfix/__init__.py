"""splatfix: render, repair, retrain for 3D Gaussian splats from few photos.

The names of the Python API (docs/python-api.md) are attributes of this package. They are imported when they are first
used, so that ``import splatfix`` stays fast; ``__init__.pyi`` tells type checkers about them.
"""

import os
from importlib import import_module
from typing import Any

# numba and torch take turns inside every training step. With OpenMP's default active waiting each hand-over
# costs milliseconds on a busy machine; this must be set before either library loads its OpenMP runtime.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# numba ignores OMP_NUM_THREADS, and its kernels run in the same OpenMP pool: with more threads than that, they raise
# torch's number of threads, too.
if os.environ.get("OMP_NUM_THREADS", "").isdecimal():
    os.environ.setdefault("NUMBA_NUM_THREADS", os.environ["OMP_NUM_THREADS"])

__version__ = "0.1.0"

_MODULES = {
    "splatfix.api": ("FittedCapture", "evaluate", "fit_capture", "render_flawed", "repair", "retrain"),
    "splatfix.cameras": ("Camera",),
    "splatfix.captures": ("Capture", "open_capture"),
    "splatfix.evaluation.results": ("Results", "Summary"),
    "splatfix.flawed": ("FlawedView",),
    "splatfix.gaussians": ("Gaussians", "Splat", "read_splat", "write_splat"),
    "splatfix.loop": ("LoopConfig", "RepairConfig", "run_loop"),
    "splatfix.rendering": ("Rendering", "render"),
    "splatfix.report": ("write_report",),
    "splatfix.restoration": ("Repaired", "Restorer", "RestorerChoice"),
    "splatfix.sample": ("sample_path",),
    "splatfix.sfm": ("PoseConfig", "PoseRecord", "pose_photos"),
    "splatfix.splats.train": ("FitConfig",),
    "splatfix.views": ("Split", "ViewsConfig", "make_split"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'splatfix' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
