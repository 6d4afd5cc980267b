"""Options of the diffusion restorers, as configs and sweeps give them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from splatfix.config import to_tree
from splatfix.restoration import RESTORERS, RestorerChoice, restorer_options
from splatfix.restoration.choice import parse_choice


@pytest.mark.parametrize("name", ["flux-controlnet", "img2img"])
def test_defaults_survive_a_config(name: str) -> None:
    options = restorer_options(name)
    again = restorer_options(RestorerChoice(name=name, options=to_tree(options)))
    assert again == options == RESTORERS[name].options()


def test_yaml_on_the_command_line_sets_nested_options() -> None:
    options = restorer_options(
        parse_choice("{name: flux-controlnet, options: {strength: 0.4, loading: {offload: model}}}")
    )
    assert (options.strength, options.loading.offload, options.loading.dtype) == (0.4, "model", "auto")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("flux-controlnet", {"strength": 1.5}, "strength = 1.5: wanted 0 to 1"),
        ("flux-controlnet", {"edge_end": -0.1}, "edge_end = -0.1: wanted 0 to 1"),
        ("flux-controlnet", {"depth_scale": -1}, "depth_scale = -1.0: wanted a number of at least 0"),
        ("flux-controlnet", {"steps": 0}, "steps = 0: wanted"),
        ("flux-controlnet", {"canny_low": 210}, "canny_low = 210.0: wanted 0 to canny_high"),
        ("flux-controlnet", {"depth": "guessed"}, "depth = 'guessed'"),
        ("flux-controlnet", {"loading": {"views_per_batch": 0}}, "loading.views_per_batch = 0: wanted"),
        ("flux-controlnet", {"loading": {"gguf": "a.gguf", "quantization": "torchao-int8"}}, "wanted none beside"),
        ("flux-controlnet", {"loading": {"offlod": "model"}}, "did you mean loading.offload"),
        ("flux-controlnet", {"size": {"max_side_px": 100}}, "size.max_side_px = 100: wanted"),
        ("img2img", {"strength": 2}, "strength = 2.0: wanted 0 to 1, or null"),
        ("img2img", {"pipeline": "os.system"}, "pipeline = 'os.system': wanted"),
        ("img2img", {"arguments": {"prompt": "x"}}, "arguments.prompt = 'x': wanted"),
        ("img2img", {"num_references": 0}, "num_references = 0: wanted"),
    ],
)
def test_wrong_options_are_named_in_one_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^restorer '{name}': ") as caught:
        restorer_options(RestorerChoice(name=name, options=options))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_are_read_without_the_model_libraries() -> None:
    code = (
        "import sys; from splatfix.restoration import restorer_options, RESTORERS\n"
        "[restorer_options(name) for name in ('flux-controlnet', 'img2img')]\n"
        "print({'diffusers', 'transformers', 'cv2'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)
    assert done.stdout.strip() == "set()", done.stderr
