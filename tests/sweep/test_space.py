"""The search space: the checks of its fields, and its grid."""

from __future__ import annotations

from dataclasses import replace

import pytest

from splatfix.config import build_config, load_config
from splatfix.sweep.config import SweepConfig
from splatfix.sweep.parameter import Parameter
from splatfix.sweep.settings import default_values
from splatfix.sweep.space import check_space, grid_points
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
        ({"repair.views": {"uniform": [8, 48]}}, r"s.yaml: space: repair.views = 23.*wanted a whole number"),
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
            "s.yaml: space.restorer.options.sigma: restorer 'nafnet': unknown option 'sigma'; known: strength, "
            "max_correction, calibrated, tile_px",
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
def test_an_unusable_space_is_refused_in_one_line(space, wanted):
    with pytest.raises(ValueError, match=wanted) as caught:
        checked(space)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["sweep", "sweep_cluster"])
def test_the_shipped_spaces_pass(name):
    path = ROOT / "configs" / f"{name}.yaml"
    config = load_config(SweepConfig, path)
    check_space(config.space, replace(config.loop, device="cpu"), source=str(path))
    values = default_values(config.space, config.loop)
    assert all(config.space[field].contains(value) for field, value in values.items())  # so that it is the first trial


def test_a_grid_contains_each_combination_once():
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
