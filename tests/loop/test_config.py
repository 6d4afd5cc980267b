"""The restorer of a loop: in YAML, on the command line, in Python, and in the identity of its checkpoints."""

from __future__ import annotations

from typing import Annotated

import pytest
import tyro

from splatfix.config import build_config, load_config, to_tree, to_yaml
from splatfix.loop import LoopConfig
from splatfix.loop.rounds import repair_rounds
from splatfix.restoration import RestorerChoice
from splatfix.splats.scene import SparseScene, fit_identity

CHOICE = RestorerChoice(name="warp", options={"num_references": 1})


@pytest.mark.parametrize(
    ("text", "restorer"),
    [
        ("restorer: warp", "warp"),
        ("restorer: runs/mine", "runs/mine"),
        ("restorer: {name: warp}", RestorerChoice(name="warp")),
        ("restorer: {name: warp, options: {num_references: 1}}", CHOICE),
        ("{}", "nafnet"),
    ],
)
def test_yaml_names_the_restorer(tmp_path, text, restorer):
    path = tmp_path / "loop.yaml"
    path.write_text(text)
    config = load_config(LoopConfig, path)
    assert config == LoopConfig(restorer=restorer)
    path.write_text(to_yaml(config))
    assert load_config(LoopConfig, path) == config


def test_a_bare_name_is_written_as_a_bare_name():
    assert to_tree(LoopConfig(restorer="warp"))["restorer"] == "warp"


@pytest.mark.parametrize(
    ("restorer", "message"),
    [
        ({"name": "warp", "option": {}}, r"^a\.yaml: unknown field restorer\.option; did you mean restorer\.options\?"),
        ({"options": {}}, r"^a\.yaml: restorer\.name: is missing"),
        ({"name": "warp", "options": [1]}, r"^a\.yaml: restorer\.options = \[1\]: wanted a mapping"),
        (3, r"^a\.yaml: restorer = 3: "),
    ],
)
def test_a_restorer_that_cannot_be_one_is_refused_by_its_field(restorer, message):
    with pytest.raises(ValueError, match=message) as caught:
        build_config(LoopConfig, {"restorer": restorer}, source="a.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("default", ["nafnet", CHOICE])
@pytest.mark.parametrize(
    ("arguments", "restorer"),
    [
        (["--restorer", "identity"], "identity"),
        (["--restorer", "{name: warp, options: {num_references: 1}}"], CHOICE),
        ([], None),
    ],
)
def test_the_command_line_names_the_restorer(default, arguments, restorer):
    default = LoopConfig(restorer=default)

    def run(*, settings: Annotated[LoopConfig, tyro.conf.arg(name="")] = default) -> LoopConfig:
        return settings

    config = tyro.cli(run, args=arguments, config=(tyro.conf.AvoidSubcommands,))
    assert config.restorer == (default.restorer if restorer is None else restorer)


def test_checkpoints_depend_on_the_options(monkeypatch):
    class Asked(Exception):  # noqa: N818 - ends the loop where its checkpoints are identified
        pass

    def identity(config: LoopConfig) -> str:
        def capture(_scene: object, **settings: object) -> str:
            raise Asked(fit_identity(SparseScene((), (), (), (), None, None, 1.0), **settings))

        monkeypatch.setattr("splatfix.loop.rounds.fit_identity", capture)
        with pytest.raises(Asked) as caught:
            next(repair_rounds.__wrapped__(None, None, Before(), [], None, config))
        return str(caught.value)

    class Before:
        step = 1

        class exposure:  # noqa: N801 - an attribute
            device = "cpu"

    choices = ["warp", CHOICE, RestorerChoice(name="warp", options={"num_references": 2}), "nafnet"]
    assert len({identity(LoopConfig(restorer=choice)) for choice in choices}) == len(choices)
    assert identity(LoopConfig(restorer=RestorerChoice(name="warp"))) == identity(LoopConfig(restorer="warp"))
