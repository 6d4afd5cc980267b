"""Every kind of page in a real browser: nothing overflows, and everything can be read, reached and moved.

``SPLATFIX_CHROMIUM`` names the browser; without it, Chromium is looked for on the path and where Debian installs it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.report.make_pages import MAKERS

CHROMIUM = "SPLATFIX_CHROMIUM"
PLACES = ("chromium", "chromium-browser", "google-chrome", "/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WIDTHS_PX = (1400, 800, 400)
FIND_FAULTS = (Path(__file__).parent / "find_faults.js").read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; skips where none is installed."""
    named = os.environ.get(CHROMIUM)
    program = shutil.which(named) if named else next(filter(None, map(shutil.which, PLACES)), None)
    if program is None:
        wanted = f"{CHROMIUM} = {named} is no program" if named else f"no Chromium; install it, or set {CHROMIUM}"
        pytest.skip(f"{wanted}: pages are not tested in a browser")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def make_page(tmp_path_factory) -> Callable[[str], Path]:
    """Make the page of a kind, once."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            made[kind] = MAKERS[kind](folder)
        return made[kind]

    return make


def open_page(browser: Browser, file: Path, width_px: int, scheme: str) -> tuple[Page, list[str]]:
    """Open a page; the list gathers its errors, and what it loads from elsewhere."""
    page = browser.new_page(viewport={"width": width_px, "height": 900}, color_scheme=scheme)
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: faults.append(request.url) if _is_outside(request.url, file) else None)
    page.goto(file.as_uri())
    page.evaluate("Promise.allSettled([...document.images].map((image) => image.decode()))")
    return page, faults


def _is_outside(url: str, file: Path) -> bool:
    return url != file.as_uri() and not url.startswith("data:")


def find_faults(browser: Browser, file: Path, width_px: int, scheme: str) -> list[str]:
    page, faults = open_page(browser, file, width_px, scheme)
    faults += page.evaluate(FIND_FAULTS)
    page.close()
    return [f"{width_px} px, {scheme}: {fault}" for fault in faults]


def test_a_run_is_whole_on_a_phone_at_night(browser, make_page):
    assert not find_faults(browser, make_page("fit"), 400, "dark")


@pytest.mark.slow
@pytest.mark.parametrize("kind", MAKERS)
def test_a_page_is_whole_at_every_width_in_light_and_dark(browser, make_page, kind):
    file = make_page(kind)
    assert not [
        fault
        for width_px in WIDTHS_PX
        for scheme in ("light", "dark")
        for fault in find_faults(browser, file, width_px, scheme)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("width_px", [*WIDTHS_PX, 900])
def test_the_figure_of_a_headline_stays_beside_the_picture(browser, make_page, width_px):
    page, _ = open_page(browser, make_page("run"), width_px, "light")
    figure, column = (page.locator(f".headline{inner}").first.bounding_box() for inner in (" .figure strong", ""))
    assert figure is not None and column is not None
    assert figure["x"] + figure["width"] <= column["x"] + column["width"] + 1
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("width_px", WIDTHS_PX)
@pytest.mark.parametrize("kind", ["run", "portrait"])
def test_sliders_move_by_mouse_and_keyboard(browser, make_page, kind, width_px):
    page, faults = open_page(browser, make_page(kind), width_px, "light")
    sliders = page.locator(".slider")
    assert sliders.count() > 2
    for k in range(sliders.count()):
        slider = sliders.nth(k)
        slider.scroll_into_view_if_needed()

        def at(element=slider) -> float:
            return float(element.evaluate("e => parseFloat(getComputedStyle(e).getPropertyValue('--at'))"))

        box = slider.bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
        by_mouse = at()
        assert 15 < by_mouse < 35
        page.keyboard.press("ArrowRight")
        assert at() == by_mouse + 1
        rule = slider.locator(".rule").bounding_box()
        assert rule is not None and rule["x"] == pytest.approx(box["x"] + box["width"] * at() / 100, abs=3)
    assert not faults
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("button", [".zoom", ".enlarge"])
def test_pictures_are_enlarged_by_mouse_and_keyboard_and_closed_by_escape(browser, make_page, button):
    page, faults = open_page(browser, make_page("run"), 800, "light")
    opener, dialog = page.locator(button).first, page.locator("#zoomed")
    for opens in (opener.click, lambda: opener.press("Enter")):
        opens()
        picture = dialog.locator("img").last.bounding_box()
        small = page.locator(f"figure:has({button}) img").first
        assert dialog.is_visible() and picture is not None
        assert picture["width"] <= 800 and picture["height"] <= 900
        assert picture["width"] >= small.evaluate("e => e.getBoundingClientRect().width")
        page.keyboard.press("Escape")
        assert not dialog.is_visible()
        assert opener.evaluate("e => e === document.activeElement")  # the keyboard goes on where it was
    assert not faults
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("<p style='width: 900px'>wide</p>", "the page is"),
        ("<p style='color: #999'>faint</p>", "contrast 2.85, wanted 4.5"),
        ("<p style='color: #999; font-size: 24px'>faint</p>", "contrast 2.85, wanted 3"),
        ("<div class='panel' style='width: 90px'><table><td>unreachable_figures</table></div>", "outside its panel"),
        ("<img src='data:image/png;base64,AAAA' alt='gone'>", "is broken: gone"),
    ],
)
def test_faults_are_found(browser, tmp_path, body, fault):
    """Each kind of fault, on a page that has nothing else."""
    file = tmp_path / "page.html"
    file.write_text(f"<!doctype html><body style='background: #fff'><main>{body}</main>")
    assert any(fault in found for found in find_faults(browser, file, 400, "light"))


@pytest.mark.slow
def test_errors_and_requests_of_a_page_are_found(browser, tmp_path):
    file = tmp_path / "page.html"
    file.write_text("<!doctype html><script>missing()</script><img src='http://127.0.0.1:9/x.png'>")
    faults = find_faults(browser, file, 400, "light")
    assert any("missing is not defined" in fault for fault in faults)
    assert any("http://127.0.0.1:9/x.png" in fault for fault in faults)
