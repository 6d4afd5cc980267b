"""YAML to configs: round trip, and errors that name the field; every shipped file loads."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from splatfix.compare.config import CompareConfig
from splatfix.config import build_config, load_config, parse_yaml, to_yaml
from splatfix.evaluation.run import EvaluateConfig
from splatfix.fit import FitRunConfig
from splatfix.loop import LoopConfig
from splatfix.pairs.config import GenerateConfig
from splatfix.sweep.config import SweepConfig
from splatfix.training.config import TrainConfig

CONFIGS = Path(__file__).parent.parent / "configs"
KINDS = {
    "demo": LoopConfig,
    "evaluate": EvaluateConfig,
    "fit": FitRunConfig,
    "generate": GenerateConfig,
    "loop": LoopConfig,
    "compare": CompareConfig,
    "sweep": SweepConfig,
    "train": TrainConfig,
}


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A part."""

    steps: int = 3
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outer:
    """A whole."""

    rate: float = 0.5
    inner: Inner = field(default_factory=Inner)


def test_yaml_fills_the_config(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("rate: 2\ninner:\n  name: x\n")
    assert load_config(Outer, path) == Outer(rate=2.0, inner=Inner(name="x"))
    assert load_config(Outer, None) == Outer()
    path.write_text("")
    assert load_config(Outer, path) == Outer()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rat: 2", r"unknown field rat; did you mean rate\?"),
        ("inner:\n  step: 2", r"unknown field inner\.step; did you mean inner\.steps\?"),
        ("inner:\n  steps: many", r"inner\.steps = 'many'"),
        ("- 1", "wanted a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_errors_name_file_and_field(tmp_path, text, words):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        load_config(Outer, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_errors_name_the_field_of_a_config_that_may_be_null():
    @dataclass(frozen=True, kw_only=True)
    class Optional:
        inner: Inner | None = None

    assert build_config(Optional, {"inner": None}, source="a").inner is None
    with pytest.raises(ValueError, match=r"^a: unknown field inner\.step; did you mean inner\.steps\?"):
        build_config(Optional, {"inner": {"step": 2}}, source="a")
    with pytest.raises(ValueError, match=r"^a: inner\.steps = 'many': "):
        build_config(Optional, {"inner": {"steps": "many"}}, source="a")


def test_a_retired_field_is_an_error_with_its_new_name():
    with pytest.raises(ValueError, match=r"^a: unknown field launch; it is called workers now"):
        build_config(TrainConfig, {"launch": {"num": 2}}, source="a")
    with pytest.raises(ValueError, match=r"^a: unknown field workers.max_failures; it is called workers.attempts now"):
        build_config(TrainConfig, {"workers": {"max_failures": 2}}, source="a")


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"nope\.yaml: no such config file"):
        load_config(Outer, tmp_path / "nope.yaml")


@pytest.mark.parametrize("kind", sorted(set(KINDS.values()), key=lambda kind: kind.__name__))
def test_what_a_run_writes_reads_back_equal(tmp_path, kind):
    config = kind()
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert load_config(kind, path) == config


def test_unsafe_yaml_is_not_executed(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("rate: !!python/object/apply:os.system ['true']")
    with pytest.raises(ValueError, match="not valid YAML"):
        load_config(Outer, path)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_loads(path):
    load_config(KINDS[path.stem.split("_")[0]], path)


def test_there_is_a_config_for_every_stage():
    assert KINDS.keys() <= {path.stem for path in CONFIGS.glob("*.yaml")}
    assert build_config(Outer, {}, source="nothing") == Outer()


def bomb(levels: int) -> str:
    """YAML in which each level repeats that below it nine times."""
    lines = ["seed:", "  - &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"  - &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, levels)]
    return "\n".join(lines)


def tower() -> str:
    """YAML of 40 lists in each other, repeated in itself by aliases: 1,000 levels."""
    lines = [f"- &a0 {'[' * 40}{']' * 40}"]
    lines += [f"- &a{k} {'[' * 40}*a{k - 1}{']' * 40}" for k in range(1, 25)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (bomb(8), r"aliases \(\*name\) repeat more than 10000 values"),
        (tower(), "nested more than 50 levels deep"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested more than 50 levels deep"),
        ("a: " + "{b: " * 3000 + "}" * 3000, "nested more than 50 levels deep"),
        ("a: &a [*a]", "repeats the value that it is in"),
        ('a: !!int ""', "not valid YAML"),
        ("a: 2001-99-99", "not valid YAML: month must be in 1..12"),
        ("a: " + "9" * 5000, "not valid YAML"),
    ],
    ids=["bomb", "tower", "lists", "mappings", "in itself", "no digits", "no date", "many digits"],
)
def test_yaml_beyond_the_limits_is_refused_in_a_short_line(text, words):
    start = time.monotonic()
    with pytest.raises(ValueError, match=words) as refused:
        parse_yaml(text, "a.yaml")
    assert str(refused.value).startswith("a.yaml: ")
    assert len(str(refused.value)) < 500
    assert "\n" not in str(refused.value)
    assert time.monotonic() - start < 5


def test_large_yaml_is_refused_and_aliases_are_read(monkeypatch):
    assert parse_yaml("a: &a {b: 1}\nc: *a\nd: *a", "a.yaml") == {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1}}
    monkeypatch.setattr("splatfix.config.MAX_YAML_BYTES", 2**20)
    with pytest.raises(ValueError, match=r"a\.yaml: 2 MB of YAML; wanted at most 1 MB"):
        parse_yaml("# " + "x" * 2**21, "a.yaml")
