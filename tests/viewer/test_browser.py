"""The viewer in Chromium, with WebGL in software: what is drawn."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from splatfix.viewer import Viewer, ViewerScene, open_scene
from tests.viewer.scenes import a_run, a_splat

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader --disable-background-networking"
)


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api")
    pytest.importorskip("viser")
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield browser
        browser.close()


def open_page(chromium, shown: Viewer):
    page = chromium.new_page(viewport={"width": 900, "height": 700})
    page.goto(f"http://localhost:{shown.server.get_port()}")
    page.wait_for_selector("text=color by direction", timeout=60_000)
    page.wait_for_timeout(3000)
    return page


def look(page) -> np.ndarray:
    """The middle of the scene, left of the panel, RGB in [0, 1]."""
    shot = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), np.float32) / 255
    return shot[250:600, 50:500]


def press(page, key: str) -> np.ndarray:
    page.mouse.move(300, 400)
    page.keyboard.press(key)
    page.wait_for_timeout(2500)
    return look(page)


def test_splats_and_differences_are_drawn(tmp_path, chromium):
    shown = Viewer(open_scene([a_run(tmp_path / "run")]), port=8885)
    try:
        page = open_page(chromium, shown)
        after = press(page, "c")  # without the cameras
        assert after.std() > 0.05
        before = press(page, "1")
        assert np.abs(before - after).mean() > 0.02
        exact = press(page, "r")
        assert np.abs(exact - before).mean() < 0.5 * np.abs(before - after).mean()
        difference = press(page, "m")
        assert page.inner_text("body").count("|before - control|") == 1
        assert difference[..., 0].mean() > difference[..., 2].mean()  # of the color map
        page.close()
    finally:
        shown.stop()


def test_colors_by_direction_match_the_rasterizer(chromium):
    shown = Viewer(ViewerScene("one", {"one": a_splat(30, degree=3, background=(1.0, 1.0, 1.0))}), port=8905)
    try:
        page = open_page(chromium, shown)
        seen = look(page)
        exact = press(page, "r")
        press(page, "b")
        page.get_by_label("color by direction").click()
        page.wait_for_timeout(2500)
        base = look(page)
        error, base_error = np.abs(seen - exact).mean(), np.abs(base - exact).mean()
        assert error < 0.02 and error < 0.5 * base_error
        page.close()
    finally:
        shown.stop()
