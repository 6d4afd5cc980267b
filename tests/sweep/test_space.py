"""The search space: what it may hold, and what it says of what it may not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from splatfix.config import build_config, load_config
from splatfix.loop import LoopConfig, RepairConfig
from splatfix.restoration import RestorerChoice
from splatfix.sweep.config import SweepConfig
from splatfix.sweep.space import Parameter, apply, check_space, default_values, grid_points, nest_settings
from tests.conftest import ROOT


def checked(space: dict) -> None:
    config = build_config(SweepConfig, {"space": space}, source="s.yaml")
    check_space(config.space, config.loop, source="s.yaml")


def test_a_good_space_passes():
    checked(
        {
            "repair.weight": {"loguniform": [0.1, 2]},
            "repair.views": {"integer": [8, 48], "log": True},
            "repair.spread_scale": {"choice": [None, 0.1], "when": {"restorer": ["nafnet"]}},
            "restorer": {"choice": ["nafnet", "warp"]},
            "restorer.options.strength": {"uniform": [0.2, 1], "when": {"restorer": "nafnet"}},
            "restorer.options.num_references": {"integer": [1, 4], "when": {"restorer": ["warp"]}},
        }
    )
    checked({"restorer.options.tile_px": {"choice": [256, 512]}})  # of the default's restorer


@pytest.mark.parametrize(
    ("space", "wanted"),
    [
        ({}, "s.yaml: space is empty"),
        (
            {"repair.weights": {"uniform": [0, 1]}},
            r"s.yaml: space: unknown field repair.weights; did you mean repair.weight",
        ),
        ({"fit.steps": {"integer": [1, 9]}}, "s.yaml: space.fit.steps: cannot be searched"),
        ({"fit.stepz": {"integer": [1, 9]}}, "s.yaml: space: unknown field fit.stepz; did you mean fit.steps"),
        ({"views.size_px": {"choice": [64]}}, "s.yaml: space.views.size_px: cannot be searched"),
        ({"seed": {"integer": [0, 9]}}, "s.yaml: space.seed: cannot be searched"),
        ({"repair": {"choice": [1]}}, "s.yaml: space.repair: cannot be searched"),
        ({"repair.probability": {"uniform": [0.2, 1.5]}}, r"s.yaml: space: repair.probability = 1.5: wanted a share"),
        ({"repair.views": {"uniform": [8, 48]}}, r"s.yaml: space: repair.views = 23.*integer"),
        ({"repair.views": {"choice": [8, "many"]}}, r"s.yaml: space: repair.views = 'many'"),
        (
            {"repair.weight": {"uniform": [2, 1]}},
            r"s.yaml: space.repair.weight: uniform = \[2.0, 1.0\]: .*low below high",
        ),
        ({"repair.weight": {"loguniform": [0, 1]}}, r"s.yaml: space.repair.weight: loguniform = .*low above 0"),
        ({"repair.weight": {}}, "s.yaml: space.repair.weight: kinds = .*exactly one of choice, uniform"),
        ({"repair.weight": {"uniform": [0, 1], "choice": [1]}}, "exactly one of choice"),
        ({"repair.weight": {"normal": [0, 1]}}, "s.yaml: unknown field space.repair.weight.normal"),
        ({"repair.weight": {"choice": [1, 1]}}, "each value once"),
        (
            {"repair.weight": {"uniform": [0, 1], "when": {"restorer": "warp"}}},
            "s.yaml: space.repair.weight.when: 'restorer': wanted a searched field that is a choice",
        ),
        (
            {"restorer": {"choice": ["warp"]}, "repair.weight": {"uniform": [0, 1], "when": {"restorer": "nafnet"}}},
            r"s.yaml: space.repair.weight.when.restorer = 'nafnet': is never chosen, of \['warp'\]",
        ),
        (
            {"restorer.options.sigma": {"uniform": [0, 1]}},
            "s.yaml: space.restorer.options.sigma: restorer 'nafnet': unknown option 'sigma'; known: strength, tile_px",
        ),
        (
            {"restorer": {"choice": ["nafnet", "warp"]}, "restorer.options.strength": {"uniform": [0, 1]}},
            r"s.yaml: space.restorer.options.strength: restorer 'warp': unknown option 'strength'; known: "
            r"num_references, sigma_color; `when: \{restorer: ...\}` searches it with some restorers alone",
        ),
        (
            {"restorer.options.strength": {"uniform": [0, 2]}},
            "s.yaml: space.restorer.options.strength: restorer 'nafnet': strength = 2.0: wanted 0 to 1",
        ),
        ({"restorer.name": {"choice": ["warp"]}}, r"s.yaml: space.restorer.name: cannot be searched.*restorer.options"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(space, wanted):
    with pytest.raises(ValueError, match=wanted) as caught:
        checked(space)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["sweep", "sweep_cluster"])
def test_the_shipped_spaces_are_good(name):
    path = ROOT / "configs" / f"{name}.yaml"
    config = load_config(SweepConfig, path)
    check_space(config.space, replace(config.loop, device="cpu"), source=str(path))
    values = default_values(config.space, config.loop)
    assert all(config.space[field].contains(value) for field, value in values.items())  # so that it is the first trial


def test_values_are_applied_to_the_default():
    default = LoopConfig(repair=RepairConfig(views=7))
    assert apply(default, {"restorer": "warp", "repair.weight": 0.5}) == LoopConfig(
        restorer="warp", repair=RepairConfig(views=7, weight=0.5)
    )


def test_options_are_applied_to_the_restorer_that_has_them():
    strength, references = "restorer.options.strength", "restorer.options.num_references"
    plain = LoopConfig()
    given = LoopConfig(restorer=RestorerChoice(name="nafnet", options={"strength": 0.5, "tile_px": 512}))
    assert apply(plain, {"repair.weight": 1.0}) == plain
    assert apply(given, {"repair.weight": 1.0}) == given
    assert apply(plain, {strength: 0.7}).restorer == RestorerChoice(name="nafnet", options={"strength": 0.7})
    assert apply(given, {strength: 0.7}).restorer.options == {"strength": 0.7, "tile_px": 512}
    assert apply(given, {"restorer": "nafnet"}) == given
    assert apply(given, {"restorer": "warp"}).restorer == "warp"
    warp = apply(given, {references: 1, "restorer": "warp"}).restorer
    assert warp == RestorerChoice(name="warp", options={"num_references": 1})
    assert given.restorer.options == {"strength": 0.5, "tile_px": 512}  # the default stays as it was


def test_settings_of_a_trial_name_the_restorer_with_all_its_options():
    given = LoopConfig(restorer=RestorerChoice(name="nafnet", options={"tile_px": 512}))
    values = {"repair.weight": 1.0, "restorer.options.strength": 0.7, "repair.views": 4}
    assert nest_settings(given, values) == {
        "repair": {"weight": 1.0, "views": 4},
        "restorer": {"name": "nafnet", "options": {"tile_px": 512, "strength": 0.7}},
    }
    assert nest_settings(given, {"restorer": "warp"}) == {"restorer": "warp"}
    assert nest_settings(given, {"repair.views": 4}) == {"repair": {"views": 4}}


def test_default_values_of_options_are_those_of_the_restorer():
    space = {
        "restorer": Parameter(choice=("nafnet", "warp")),
        "restorer.options.num_references": Parameter(integer=(1, 4), when={"restorer": "warp"}),
        "restorer.options.strength": Parameter(uniform=(0.0, 1.0), when={"restorer": "nafnet"}),
    }
    strength, references = "restorer.options.strength", "restorer.options.num_references"
    assert default_values(space, LoopConfig(restorer="warp")) == {"restorer": "warp", references: 2}
    nafnet = RestorerChoice(name="nafnet", options={"strength": 0.5})
    assert default_values(space, LoopConfig(restorer=nafnet)) == {"restorer": "nafnet", strength: 0.5}


def test_a_field_is_active_where_its_condition_holds():
    space = {
        "restorer": Parameter(choice=("nafnet", "warp")),
        "repair.weight": Parameter(uniform=(0.0, 2.0), when={"restorer": ["warp"]}),
    }
    assert default_values(space, LoopConfig()) == {"restorer": "nafnet"}
    assert default_values(space, LoopConfig(restorer="warp")) == {"restorer": "warp", "repair.weight": 1.0}


def test_a_grid_holds_each_combination_once():
    space = {
        "repair.weight": Parameter(loguniform=(0.1, 10.0), points=3, when={"restorer": "warp"}),
        "restorer": Parameter(choice=("nafnet", "warp")),
        "repair.views": Parameter(integer=(2, 4), points=2),
    }
    points = list(grid_points(space, source="s"))
    assert len(points) == 2 * (1 + 3) and len({repr(sorted(point.items())) for point in points}) == len(points)
    weights = sorted({point["repair.weight"] for point in points if point["restorer"] == "warp"})
    assert weights == pytest.approx([0.1, 1.0, 10.0])
    assert not any("repair.weight" in point for point in points if point["restorer"] == "nafnet")
    with pytest.raises(ValueError, match=r"space\.repair\.views: a grid wants `points: N`"):
        list(grid_points({"repair.views": Parameter(integer=(2, 4))}, source="s"))
