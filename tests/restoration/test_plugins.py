"""Restorers of other distributions, as installed ones: a module and a ``dist-info`` folder on ``sys.path``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from splatfix.restoration import RestorerChoice, absolute_choice, open_restorer
from tests.restoration.scenery import flawed_view

MODULE = """
from dataclasses import dataclass
from splatfix.restoration import Repaired, RestorerFactory

@dataclass(frozen=True, kw_only=True)
class Brightness:
    gain: float = 2.0

    def repair(self, views, *, seed):
        return [Repaired((self.gain * view.rgb).clamp(0, 1)) for view in views]

FACTORY = RestorerFactory(options=Brightness, open=lambda options, device: options)
"""


def install(folder: Path, distribution: str, module: str, source: str, entry_points: dict[str, str]) -> None:
    """Write a distribution as pip would leave it in ``site-packages``."""
    info = folder / f"{distribution.replace('-', '_')}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    lines = [f"{name} = {value}" for name, value in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[splatfix.restorers]", *lines, ""]))
    (folder / f"{module}.py").write_text(source)


@pytest.fixture
def site_packages(tmp_path, monkeypatch):
    """A folder of installed distributions, first on ``sys.path``; modules imported from it are forgotten again."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


def test_a_plugin_is_opened_by_its_name_with_its_options(site_packages):
    install(site_packages, "splatfix-brightness", "brightness", MODULE, {"brightness": "brightness:FACTORY"})
    view = flawed_view(0)
    (doubled,) = open_restorer("brightness", "cpu").repair([view], seed=0)
    torch.testing.assert_close(doubled.rgb, (2 * view.rgb).clamp(0, 1))
    choice = RestorerChoice(name="brightness", options={"gain": 1})
    torch.testing.assert_close(open_restorer(choice, "cpu").repair([view], seed=0)[0].rgb, view.rgb.clamp(0, 1))
    with pytest.raises(ValueError, match="restorer 'brightness': unknown option 'strength'; known: gain"):
        open_restorer(RestorerChoice(name="brightness", options={"strength": 1}))
    with pytest.raises(
        ValueError,
        match=r"did you mean brightness\? Wanted one of identity, .*, brightness, a checkpoint's folder, or hf:",
    ):
        open_restorer("brightnes")


def test_a_plugin_is_a_name_even_beside_a_folder_of_that_name(site_packages, tmp_path, monkeypatch):
    install(site_packages, "splatfix-brightness", "brightness", MODULE, {"brightness": "brightness:FACTORY"})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "brightness").mkdir()
    assert absolute_choice("brightness") == "brightness"
    open_restorer("brightness", "cpu")


def test_a_broken_plugin_gets_one_line_and_breaks_no_other(site_packages):
    broken = {"broken": "broken:FACTORY", "typo": "brightness:FACTRY", "odd": "brightness:Brightness"}
    install(site_packages, "splatfix-brightness", "brightness", MODULE, {"brightness": "brightness:FACTORY"})
    install(site_packages, "splatfix-broken", "broken", "import a_missing_library\n", broken)
    messages = {
        "broken": r"broken:FACTORY of the distribution splatfix-broken 1\.2 cannot be imported \(ModuleNotFoundError: ",
        "typo": r"brightness:FACTRY of the distribution splatfix-broken 1\.2 cannot be imported \(AttributeError: ",
        "odd": r"brightness:Brightness of .* is <class .*>; wanted a splatfix\.restoration\.RestorerFactory",
    }
    for name, message in messages.items():
        with pytest.raises(ValueError, match=f"restorer '{name}': {message}") as caught:
            open_restorer(name)
        assert "\n" not in str(caught.value)
    for name in ("brightness", "warp"):
        open_restorer(name, "cpu")


def test_a_name_that_clashes_is_refused_and_names_the_distribution(site_packages):
    points = {"warp": "brightness:FACTORY", "brightness": "brightness:FACTORY"}
    install(site_packages, "splatfix-brightness", "brightness", MODULE, points)
    clash = "restorer 'warp': built into splatfix, but the distribution splatfix-brightness 1.2 declares the same name"
    with pytest.raises(ValueError, match=clash) as caught:
        open_restorer("warp")
    assert "\n" not in str(caught.value)
    open_restorer("classical", "cpu")
    install(site_packages, "splatfix-bright", "bright", MODULE, {"brightness": "bright:FACTORY"})
    message = "declared by the distribution splatfix-bright 1.2 and the distribution splatfix-brightness 1.2"
    with pytest.raises(ValueError, match=message):
        open_restorer("brightness")
