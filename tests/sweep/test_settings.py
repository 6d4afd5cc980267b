"""Settings of a trial: values of searched fields in the loop's config."""

from __future__ import annotations

from splatfix.loop import LoopConfig, RepairConfig
from splatfix.restoration import RestorerChoice
from splatfix.sweep.parameter import Parameter
from splatfix.sweep.settings import apply, default_values, flatten_fields, nest_fields, nest_settings


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


def test_flattening_inverts_nesting():
    values = {"repair.weight": 0.5, "repair.views": 4, "restorer": "warp"}
    assert nest_fields(values) == {"repair": {"weight": 0.5, "views": 4}, "restorer": "warp"}
    assert flatten_fields(nest_fields(values)) == values
