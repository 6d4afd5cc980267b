"""The page on the restorer ``command`` is true: its example repairs views, and its configs can be read."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml

from splatfix.config import build_config
from splatfix.loop.config import LoopConfig
from splatfix.restoration import RestorerChoice, open_restorer, restorer_options
from splatfix.restoration.command import CommandOptions
from tests.restoration.scenery import flawed_view

PAGE = Path(__file__).parents[3] / "docs" / "command-restorer.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The first config and the program of the page, in a folder where they run."""
    monkeypatch.chdir(tmp_path)
    (program,) = blocks("python")
    assert len(program.splitlines()) <= 20
    Path("my_repair.py").write_text(program)
    options = yaml.safe_load(blocks("yaml")[0])["restorer"]["options"]
    options["argv"][0] = sys.executable
    return options | {"cache": None, "folder": str(tmp_path / "calls")}


def test_the_example_repairs_views(example, tmp_path):
    views = [flawed_view(0), flawed_view(1)]
    repaired = open_restorer(RestorerChoice(name="command", options=example), "cpu").repair(views, seed=3)
    for result, view in zip(repaired, views, strict=True):
        assert result.rgb.shape == view.rgb.shape and not torch.equal(result.rgb, view.rgb)
        torch.testing.assert_close(result.confidence, view.alpha, atol=0.5 / 255 + 1e-6, rtol=0)
    (call,) = (tmp_path / "calls").iterdir()
    assert (call / "log.txt").read_text().startswith("repaired photos/000.png")


def test_the_page_names_every_file_and_field(example, tmp_path):
    view = flawed_view(0)
    open_restorer(RestorerChoice(name="command", options=example), "cpu").repair([view], seed=3)
    (call,) = (tmp_path / "calls").iterdir()
    text = PAGE.read_text()
    files = {path.relative_to(call / "input").as_posix() for path in (call / "input").rglob("*.*")}
    assert not [name for name in files if f"`{name}`" not in text and not name.split("/")[0].endswith("_2")]
    (record,) = json.loads((call / "input/views.json").read_text())["views"]
    assert not [key for key in {**record, **record["references"][0]} if f"`{key}`" not in text]


def test_the_page_has_every_option_with_its_default():
    text = PAGE.read_text()
    for field in fields(CommandOptions):
        assert f"| `{field.name}` |" in text
    defaults = CommandOptions(argv=("x", "{input}", "{output}"))
    for name in ("timeout_seconds", "cache"):
        value = getattr(defaults, name)
        shown = f"`{value}`" if isinstance(value, str) else f"{value:g}"
        assert f"| `{name}` | {shown} |" in text


@pytest.mark.parametrize("number", range(3))
def test_the_configs_of_the_page_can_be_read(number):
    config = build_config(LoopConfig, yaml.safe_load(blocks("yaml")[number]), source=PAGE.name)
    assert RestorerChoice.of(config.restorer).name == "command"
    assert restorer_options(config.restorer).argv
