"""The commands that publish a restorer and use one of the Hugging Face Hub, as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from splatfix import cli
from splatfix.compare.entry import label_restorers
from splatfix.restoration import pin_choice
from splatfix.restoration.nafnet.checkpoint import WEIGHTS, CheckpointConfig, save_checkpoint
from splatfix.restoration.publish import prepare, publish
from splatfix.sample import sample_path
from tests.fake_hub import TOKEN, FakeHub, environment
from tests.restoration.networks import SMALL, random_network

NAME = "hf:octocat/restorer"
FAST = [
    "--views.size-px",
    "48",
    "--fit.steps",
    "12",
    "--repair.rounds",
    "1",
    "--repair.views",
    "2",
    "--repair.steps",
    "6",
]
FAST += ["--views.max-test", "2", "--choose.no-enabled", "--repair.siblings", "0", "--device", "cpu", "--no-video"]


def test_push_says_what_it_publishes_and_how_to_use_it(checkpoint, hub_server, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["push", str(checkpoint), NAME]
    assert cli.main([*arguments, "--license", "mit", "--private", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert hub_server.requests == [] and "license: mit" in Path("restorer.md").read_text()
    assert f"not published: would go to {hub_server.url}/octocat/restorer\ncard: restorer.md" in shown
    command = f"push {checkpoint} {NAME} --card restorer.md --private"
    assert f"next:   splatfix {command}" in shown
    assert cli.main([*command.split(), "--tag", "v1"]) == 0
    shown = capsys.readouterr()
    pinned = pin_choice(NAME)
    assert [line.split()[0] for line in shown.out.splitlines()[:3]] == ["README.md", "config.json", WEIGHTS]
    assert shown.out.splitlines()[3:] == [
        f"page: {hub_server.url}/octocat/restorer",
        f"this version: {pinned}",
        f"next:   splatfix loop CAPTURE --restorer {NAME}@v1",
    ]
    assert hub_server.repositories["octocat/restorer"].private
    assert TOKEN not in shown.out + shown.err
    assert cli.main(["push", str(checkpoint), "octocat/restorer", "--license", "mit"]) == 2
    assert "wanted hf:USER/NAME" in capsys.readouterr().err


def test_comparisons_label_a_restorer_of_the_hub_by_its_name():
    [label] = label_restorers((f"{NAME}@{'0' * 40}",))
    assert label.startswith("restorer-") and len(label) == len("restorer-") + 6


def run(hub_server: FakeHub, home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess:
    """Run a command in a process with its own cache of the Hub."""
    hidden = {name for name in os.environ if name.startswith(("HF_", "HUGGING"))}
    inherited = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [sys.executable, "-m", "splatfix", *arguments]
    variables = inherited | environment(hub_server, home, **more)
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=400)


@pytest.mark.slow
def test_a_loop_from_the_hub_gives_the_bytes_of_the_folder(checkpoint, hub_server, tmp_path):
    publish(prepare(str(checkpoint), NAME, license="mit"), private=True)
    loop = ["loop", str(sample_path()), *FAST]
    done = run(hub_server, tmp_path / "b", *loop, "--restorer", str(checkpoint), "--out", str(tmp_path / "folder"))
    assert done.returncode == 0, done.stderr
    out = tmp_path / "hub"
    home, command = tmp_path / "fresh", [*loop, "--restorer", NAME, "--out", str(out)]
    refused = run(hub_server, home, *command)
    assert refused.returncode == 2 and "log in with `hf auth login` (or set HF_TOKEN)" in refused.stderr
    done = run(hub_server, home, *command, HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    for name in ("before.ply", "control.ply", "after.ply"):
        assert (out / name).read_bytes() == (tmp_path / "folder" / name).read_bytes(), name
    commit = hub_server.repositories["octocat/restorer"].refs["main"]
    pinned = f"{NAME}@{commit}"
    assert yaml.safe_load((out / "config.yaml").read_text())["restorer"] == pinned
    assert json.loads((out / "results.json").read_text())["restorer"] == pinned
    assert json.loads((out / "run.json").read_text())["inputs"]["restorer"]["path"] == pinned
    written = [path for path in [*out.rglob("*"), *tmp_path.joinpath("folder").rglob("*")] if path.is_file()]
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    assert TOKEN not in done.stdout + done.stderr

    save_checkpoint(checkpoint, random_network(1), CheckpointConfig(network=SMALL, strength=0.75))
    publish(prepare(str(checkpoint), NAME, license="mit"))
    refused = run(hub_server, home, *command, HF_TOKEN=TOKEN)
    assert refused.returncode == 2 and f"restorer was {pinned}, now it is {NAME}@" in refused.stderr
    num = len(hub_server.requests)
    done = run(hub_server, home, *loop, "--out", str(out), HF_HUB_OFFLINE="1")  # the stored settings name the commit
    assert done.returncode == 0 and len(hub_server.requests) == num, done.stderr
