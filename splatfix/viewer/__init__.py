"""Splats and cameras in the browser, with viser (an extra: ``pip install 'splatfix[viewer]'``).

``scene`` finds what is shown, ``live`` watches a run that trains, ``drawing`` computes colors and pictures, ``panel``
has the controls, ``frustums`` the cameras, ``session`` serves one browser, and ``server`` all of them.
"""

from splatfix.viewer.live import RunWatcher, wait_for_run
from splatfix.viewer.scene import ShownView, ViewerScene, find_live_run, open_scene
from splatfix.viewer.server import Viewer, make_page, view

__all__ = [
    "RunWatcher",
    "ShownView",
    "Viewer",
    "ViewerScene",
    "find_live_run",
    "make_page",
    "open_scene",
    "view",
    "wait_for_run",
]
