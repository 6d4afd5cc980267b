"""What a browser gets from the viewer, over a real connection."""

import sys
import urllib.request

import numpy as np
import pytest
import torch

from splatfix import viewer
from splatfix.gaussians import SH_C0
from splatfix.viewer import Viewer, ViewerScene, open_scene
from splatfix.viewer import server as servers
from splatfix.viewer.drawing import compute_colors, make_camera, seconds_to_wait
from tests.viewer.scenes import a_camera, a_run, a_splat, some_gaussians

pytest.importorskip("viser")

from tests.viewer.browser import Browser


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    """The viewer of a finished loop."""
    shown = Viewer(open_scene([a_run(tmp_path_factory.mktemp("viewer") / "run")]), port=8765)
    yield shown
    shown.stop()


@pytest.fixture
def browser(loop):
    with Browser(loop.server.get_port()) as connected:
        connected.wait_for(lambda: "/splat" in connected.nodes)
        yield connected


def to_uint8(colors: np.ndarray) -> np.ndarray:
    return (colors * 255).astype(np.uint8)


def seen_colors(seed: int, position: tuple[float, float, float]) -> np.ndarray:
    return to_uint8(compute_colors(some_gaussians(seed=seed), np.array(position)))


def shows_colors(browser: Browser, seed: int, position: tuple[float, float, float]) -> bool:
    difference = np.abs(browser.colors().astype(int) - seen_colors(seed, position))
    return difference.max() <= 1  # the file is in other units


def test_the_page_is_served(loop):
    with urllib.request.urlopen(f"http://127.0.0.1:{loop.server.get_port()}", timeout=10) as answer:
        assert b"<html" in answer.read(2000).lower()


def test_splats_are_switched_by_list_and_by_keys(browser):
    assert browser.control("splat")["options"] == ["before", "control", "after"]
    assert browser.control("splat")["value"] == "after"
    position = (0.0, 0.0, -5.0)
    browser.wait_for(lambda: shows_colors(browser, 2, position))
    browser.wait_for(lambda: browser.says("the fit retrained with repaired views"))
    browser.choose("splat", "before")
    browser.wait_for(lambda: shows_colors(browser, 0, position))
    browser.wait_for(lambda: browser.says("the sparse fit from the training photos"))
    browser.press("2")
    browser.wait_for(lambda: shows_colors(browser, 1, position))
    browser.press("N")
    browser.wait_for(lambda: browser.control("splat")["value"] == "after")


def test_colors_follow_the_camera(browser):
    here, there = (0.0, 0.0, -5.0), (5.0, 0.0, 0.0)
    browser.wait_for(lambda: shows_colors(browser, 2, here))
    browser.wait_for(lambda: browser.says("SH degree 1. The last update took"))  # comes after the colors
    browser.move(there)
    browser.wait_for(lambda: shows_colors(browser, 2, there))
    assert not shows_colors(browser, 2, here)
    browser.choose("color by direction", False)
    browser.wait_for(lambda: browser.says("Base color only: SH degree 0 of the stored degree 1"))
    base = (0.5 + SH_C0 * some_gaussians(seed=2).sh0[:, 0]).clamp(0, 1).numpy()
    browser.wait_for(lambda: np.abs(browser.colors().astype(int) - to_uint8(base)).max() <= 1)


def test_colors_are_those_of_the_harmonics():
    g, position = some_gaussians(20), np.array([1.0, 2.0, -4.0])
    x, y, z = torch.nn.functional.normalize(g.means - torch.tensor(position, dtype=torch.float32)).T[:, :, None]
    basis = 0.4886025119029199 * torch.cat([-y, z, -x], dim=1)  # degree 1, as in 3DGS
    expected = 0.5 + SH_C0 * g.sh0[:, 0] + (basis[:, :, None] * g.sh_rest).sum(1)
    np.testing.assert_allclose(compute_colors(g, position), expected.clamp(0, 1), atol=1e-5)


def test_updates_leave_time_for_other_work():
    assert seconds_to_wait(1000, 0.001) == 0.15
    assert seconds_to_wait(1000, 0.5) == 2.0
    assert seconds_to_wait(1_000_000, 0.01) == pytest.approx(3.2)  # 32 MB at 10 MB/s


def test_a_difference_replaces_the_splat_while_the_camera_rests(browser):
    num = len(browser.backgrounds)
    assert not browser.says("mean absolute difference")
    browser.press("M")
    browser.wait_for(lambda: browser.says("|after - control|, 480 x 360 px, in"))
    browser.wait_for(lambda: browser.nodes["/splat"].get("visible") is False)
    assert browser.says("mean absolute difference of the channels")
    assert browser.backgrounds[num][:2] == b"\xff\xd8"  # a JPEG
    browser.choose("minus", "before")
    browser.wait_for(lambda: browser.says("|after - before|"))
    browser.move((0.0, 0.0, -6.0))
    browser.wait_for(lambda: browser.nodes["/splat"]["visible"] is True)
    browser.wait_for(lambda: browser.nodes["/splat"]["visible"] is False)
    browser.press("B")
    browser.wait_for(lambda: browser.nodes["/splat"]["visible"] is True)
    assert not browser.says("mean absolute difference")


def test_cameras_are_told_apart_and_clicked(browser):
    frustums = {name: node for name, node in browser.nodes.items() if name.startswith("/cameras/")}
    assert len(frustums) == 4
    training, test, *repaired = (tuple(node["color"]) for _, node in sorted(frustums.items()))
    assert len({training, test, repaired[0]}) == 3 and repaired[0] == repaired[1]
    for words in ("1 training photos", "1 test photos", "1 repaired, round 1", "1 repaired, round 2"):
        browser.wait_for(lambda words=words: browser.says(words))
    browser.wait_for(lambda: browser.nodes["/cameras/0001"].get("_image_data"))  # of the test photo
    assert not browser.nodes["/cameras/0000"].get("_image_data")
    browser.choose("repaired, round 2", False)
    browser.wait_for(lambda: browser.nodes["/cameras/0003"].get("visible") is False)
    assert browser.nodes["/cameras/0002"].get("visible", True)
    browser.click("/cameras/0001")
    center = a_camera("1.jpg", 1).center
    browser.wait_for(lambda: np.allclose(browser.camera.get("position", np.inf), center, atol=1e-4))
    browser.wait_for(lambda: browser.control("look from")["value"] == "1.jpg")
    browser.wait_for(lambda: browser.nodes["/cameras/0001"].get("visible") is False)  # it would hide the splat
    browser.move((0.0, 0.0, -5.0))
    browser.wait_for(lambda: browser.nodes["/cameras/0001"].get("visible") is True)
    browser.press("C")
    browser.wait_for(lambda: browser.nodes["/cameras/0000"].get("visible") is False)


def test_a_browser_looks_through_the_same_camera_as_the_rasterizer():
    class Handle:
        wxyz, fov, aspect = np.array([0.5, 0.5, 0.5, 0.5]), np.pi / 2, 2.0
        position = np.array([1.0, 2.0, 3.0])

    camera = make_camera(Handle, 400)
    assert (camera.width_px, camera.height_px, camera.intrinsics[1, 1]) == (400, 200, pytest.approx(100.0))
    np.testing.assert_allclose(camera.center, Handle.position)
    np.testing.assert_allclose(camera.axis, [1, 0, 0], atol=1e-12)  # that quaternion turns x to y to z to x
    assert make_camera(Handle, 5000).width_px == 960


def test_browsers_choose_for_themselves(loop, browser):
    with Browser(loop.server.get_port()) as other:
        other.choose("splat", "before")
        other.wait_for(lambda: shows_colors(other, 0, (0.0, 0.0, -5.0)))
        assert shows_colors(browser, 2, (0.0, 0.0, -5.0))
    browser.wait_for(lambda: len(loop.sessions) == 1)


def test_a_splat_without_harmonics_and_alone():
    shown = Viewer(ViewerScene("one", {"one": a_splat(degree=0)}), port=8795)
    try:
        with Browser(shown.server.get_port()) as browser:
            browser.wait_for(lambda: browser.says("It stores one color per Gaussian"))
            assert browser.control("color by direction")["disabled"]
            browser.press("M")
            browser.wait_for(lambda: browser.says("A difference needs two splats"))
            browser.press("R")
            browser.wait_for(lambda: browser.says("Rendered exactly, 480 x 360 px"))
    finally:
        shown.stop()


def test_an_error_in_one_browser_leaves_the_others(loop, browser, monkeypatch, caplog):
    with Browser(loop.server.get_port()) as other:
        other.wait_for(lambda: len(loop.sessions) == 2)
        broken = loop.sessions[max(loop.sessions)]
        monkeypatch.setattr(broken, "step", lambda _: 1 / 0)
        browser.wait_for(lambda: broken not in loop.sessions.values())
    assert "the viewer cannot update browser" in caplog.text
    browser.press("1")
    browser.wait_for(lambda: shows_colors(browser, 0, (0.0, 0.0, -5.0)))


def test_a_taken_port_is_not_fatal(loop):
    second = Viewer(ViewerScene("one", {"one": a_splat()}), port=loop.server.get_port())
    try:
        assert second.server.get_port() != loop.server.get_port()
    finally:
        second.stop()


def test_view_says_where_and_how_to_stop(monkeypatch):
    def interrupt(_seconds):
        raise KeyboardInterrupt

    said: list[str] = []
    monkeypatch.setattr(servers.time, "sleep", interrupt)
    scene = ViewerScene("one", {"one": a_splat(mode="antialiased")}, notes=("a note",))
    viewer.view(scene, port=8825, say=said.append)
    assert said[0].startswith("one: one (50 Gaussians) at http://localhost:") and "Ctrl-C" in said[0]
    assert said[-2:] == ["a note", "stopped"]


def test_a_page_needs_no_server():
    page = viewer.make_page(a_splat(background=(1.0, 1.0, 1.0)))
    assert "<html" in page[:500].lower() and len(page) > 100_000


def test_without_viser_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(ValueError, match=r"the viewer needs it: pip install .*\[viewer\]'"):
        Viewer(ViewerScene("one", {"one": a_splat()}))


def test_an_empty_splat_is_an_error():
    with pytest.raises(ValueError, match="no Gaussians"):
        Viewer(ViewerScene("none", {"none": a_splat(0)}))
