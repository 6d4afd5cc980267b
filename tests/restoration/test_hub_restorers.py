"""Restorers on the Hugging Face Hub: published, fetched by commit, whole in the cache, and refused with a remedy."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from splatfix.restoration import RestorerChoice, absolute_choice, hub, open_restorer, pin_choice
from splatfix.restoration.checkpoint import CARD, CONFIG
from splatfix.restoration.identity import describe_training_overlap, restorer_input
from splatfix.restoration.nafnet.checkpoint import WEIGHTS, CheckpointConfig, save_checkpoint
from splatfix.restoration.publish import prepare, publish, write_draft
from tests.fake_hub import TOKEN, Repository, environment, use_hub
from tests.restoration.networks import SMALL, random_network
from tests.restoration.scenery import flawed_view
from tests.trickling import trickling_server

NAME = "hf:octocat/restorer"


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def repair(choice: str | Path | RestorerChoice) -> torch.Tensor:
    return open_restorer(choice, "cpu").repair([flawed_view(0)], seed=0)[0].rgb


def push(checkpoint: Path, **more: object) -> hub.HubPlace:
    return publish(prepare(str(checkpoint), NAME, license="cc-by-4.0"), **more)


def other_weights(checkpoint: Path) -> None:
    save_checkpoint(checkpoint, random_network(1), CheckpointConfig(network=SMALL, strength=0.75))


def test_what_is_pushed_repairs_as_the_folder(checkpoint, hub_server):
    pinned = push(checkpoint)
    repository = hub_server.repositories["octocat/restorer"]
    assert set(repository.commits[repository.refs["main"]]) == {".gitattributes", CARD, CONFIG, WEIGHTS}
    assert pinned.revision == repository.refs["main"] and not repository.private
    for name in (NAME, str(pinned), "octocat/restorer"):
        assert torch.equal(repair(name), repair(checkpoint))
    half = {"strength": 0.5}
    expected = repair(RestorerChoice(name=str(checkpoint), options=half))
    assert torch.equal(repair(RestorerChoice(name=NAME, options=half)), expected)
    assert hub_server.num_requests("GET /cdn/") == 1, "the weights are downloaded once"


def test_a_commit_is_pinned_and_never_asked_for_again(checkpoint, hub_server):
    first = push(checkpoint, tag="v1")
    assert pin_choice(NAME) == absolute_choice(NAME) == pin_choice(f"{NAME}@v1") == str(first)
    options = {"strength": 1.0}
    pinned = pin_choice(RestorerChoice(name="octocat/restorer", options=options))
    assert pinned == RestorerChoice(name=str(first), options=options)
    expected = repair(str(first))
    other_weights(checkpoint)
    second = push(checkpoint)
    assert second != first and pin_choice(NAME) == str(second) and pin_choice(f"{NAME}@v1") == str(first)
    num = len(hub_server.requests)
    assert torch.equal(repair(str(first)), expected)
    assert len(hub_server.requests) == num, "what is in the cache needs no network"
    assert not torch.equal(repair(NAME), expected)
    inputs = [restorer_input(str(place))["restorer"] for place in (first, second)]
    assert inputs[0].path == str(first) and inputs[0].digest != inputs[1].digest


def test_a_cached_restorer_works_without_a_network(checkpoint, hub_server, monkeypatch):
    pinned = push(checkpoint)
    expected = repair(NAME)
    hub_server.status = 503
    assert pin_choice(NAME) == str(pinned)
    go_offline(monkeypatch)
    num = len(hub_server.requests)
    assert torch.equal(repair(NAME), expected) and torch.equal(repair(str(pinned)), expected)
    assert len(hub_server.requests) == num
    with pytest.raises(
        ValueError, match=r"not in the cache .*, and HF_HUB_OFFLINE forbids downloads; unset it, or copy"
    ):
        open_restorer("hf:octocat/other")
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE forbids downloads"):
        open_restorer(f"{NAME}@v9")


def test_refusals_are_one_line_with_the_remedy_and_without_the_token(checkpoint, hub_server, monkeypatch):
    push(checkpoint, private=True)
    assert torch.equal(repair(NAME), repair(checkpoint))

    def message(name: str) -> str:
        with pytest.raises(ValueError, match=r"^restorer ") as caught:
            open_restorer(name, "cpu")
        text = str(caught.value)
        assert "\n" not in text and TOKEN not in text
        return text

    assert "it has no such revision; wanted a branch, tag or commit" in message(f"{NAME}@v9")
    assert "no such restorer on the Hugging Face Hub, or a private one" in message("hf:octocat/nothing")
    hub_server.repositories["octocat/empty"] = Repository()
    hub_server.repositories["octocat/empty"].commit({CARD: b"# nothing"})
    assert "its repository has no config.json or weights" in message("hf:octocat/empty")
    for text in ("hf:octocat", "hf:", "hf:a/b/c", "hf:a/b@", "hf:a/b@../../x", "hf:a/b@x@y"):
        assert "wanted hf:USER/NAME or hf:USER/NAME@REVISION" in message(text)
    hub_server.status = 500
    assert "the Hub answers with an error (500)" in message("hf:octocat/never-seen")
    hub_server.status = None
    monkeypatch.delenv("HF_TOKEN")
    assert "log in with `hf auth login` (or set HF_TOKEN)" in message(f"{NAME}@other")
    use_hub(monkeypatch, "http://127.0.0.1:9", Path("nowhere"))
    assert "the Hub cannot be reached; check the network, HTTPS_PROXY and HF_ENDPOINT" in message(NAME)


def test_a_hub_that_answers_byte_by_byte_is_given_up(tmp_path, monkeypatch):
    with trickling_server() as url:
        use_hub(monkeypatch, url, tmp_path)
        monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.5)
        monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", slow_metadata(url))
        with pytest.raises(ValueError, match="the Hub cannot be reached"):
            open_restorer(NAME)


def slow_metadata(url: str):
    """Ask by GET, whose answer never ends; the server does not know HEAD."""

    def ask(_url: str, timeout: float) -> object:
        from huggingface_hub.utils import get_session

        return get_session().get(url, timeout=timeout)

    return ask


def test_files_that_are_too_large_are_refused_before_they_are_downloaded(checkpoint, hub_server, monkeypatch):
    push(checkpoint)
    monkeypatch.setitem(hub.MAX_BYTES, ".safetensors", 1000)
    with pytest.raises(ValueError, match=r"restorer\.safetensors has \d+ bytes: wanted at most 1000; is it a restorer"):
        open_restorer(NAME)
    assert hub_server.num_requests("GET /cdn/") == 0
    monkeypatch.setitem(hub.MAX_BYTES, ".json", 10)
    with pytest.raises(ValueError, match=r"config\.json has \d+ bytes"):
        open_restorer(NAME)


def test_only_config_and_safetensors_are_read(checkpoint, hub_server):
    push(checkpoint)
    repository = hub_server.repositories["octocat/restorer"]
    files = repository.commits[repository.refs["main"]]
    repository.commit({**files, "pytorch_model.bin": b"\x80\x04", "restorer.pt": b"\x80\x04"})
    assert torch.equal(repair(NAME), repair(checkpoint))
    read = {request.split("/resolve/")[1].split("/", 1)[1] for request in hub_server.requests if "/resolve/" in request}
    assert read == {CONFIG, WEIGHTS}


def test_weights_that_do_not_fit_their_config_are_refused(checkpoint, hub_server):
    push(checkpoint)
    repository = hub_server.repositories["octocat/restorer"]
    files = dict(repository.commits[repository.refs["main"]])
    tree = json.loads(files[CONFIG])
    tree["network"]["width"] = 16
    repository.commit({**files, CONFIG: json.dumps(tree).encode()})
    with pytest.raises(ValueError, match=r"its tensors do not fit config\.json"):
        open_restorer(NAME)
    repository.commit({**files, WEIGHTS: files[WEIGHTS][:-100]})
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        open_restorer(NAME)


def test_the_card_has_yaml_and_the_command_and_keeps_what_was_written(checkpoint, hub_server):
    (checkpoint / CARD).write_text(
        "---\nlicense: mit\ntags: [mine]\nlanguage: en\n---\n\n# Mine\n\nsplatfix loop CAPTURE --restorer THIS_FOLDER\n"
    )
    publish(prepare(str(checkpoint), NAME, license=None))
    repository = hub_server.repositories["octocat/restorer"]
    card = repository.commits[repository.refs["main"]][CARD].decode()
    _, front, body = card.split("---\n", 2)
    fields = yaml.safe_load(front)
    assert (fields["license"], fields["library_name"], fields["language"]) == ("mit", "splatfix", "en")
    assert {"mine", "3d-gaussian-splatting", "nafnet"} <= set(fields["tags"])
    assert body == f"\n# Mine\n\nsplatfix loop CAPTURE --restorer {NAME}\n"
    again = prepare(str(checkpoint), NAME, license="cc0-1.0").card
    assert yaml.safe_load(again.split("---\n")[1])["license"] == "cc0-1.0" and again.count("---\n") == 2


def test_the_shipped_restorer_takes_its_data_and_credits_along():
    card = prepare("nafnet", NAME, license="apache-2.0").card
    assert "- train groups: banana" in card and "pierotofy/dataset_banana" in card and "+0.45" in card
    assert f"splatfix loop CAPTURE --restorer {NAME} --out RUN" in card


def test_a_push_that_cannot_work_is_refused(checkpoint, hub_server, monkeypatch):
    def refused(message: str, **more: object) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            push(checkpoint, **more)
        assert "\n" not in str(caught.value) and TOKEN not in str(caught.value)

    with pytest.raises(ValueError, match=r"--license is missing: wanted an identifier of the Hub such as apache-2\.0"):
        prepare(str(checkpoint), NAME, license=None)
    with pytest.raises(ValueError, match="wanted hf:USER/NAME, without a revision; --tag names one"):
        prepare(str(checkpoint), f"{NAME}@main", license="mit")
    with pytest.raises(ValueError, match="no such folder"):
        prepare("nobody/nothing", NAME, license="mit")
    hub_server.writable = False
    refused(r"does not let you write there \(403\); log in with `hf auth login`")
    hub_server.writable = True
    with pytest.raises(ValueError, match=r"the Hub refuses the files or the model card .*license"):
        publish(prepare(str(checkpoint), NAME, license="nonsense"))
    push(checkpoint, tag="v1")
    other_weights(checkpoint)
    refused(
        r"choose another --tag.*the files are published without the tag, as hf:octocat/restorer@[0-9a-f]{40}", tag="v1"
    )
    refused("is public already; make it private on its page", private=True)
    monkeypatch.delenv("HF_TOKEN")
    refused(r"does not let you write there \(401\); log in")
    (checkpoint / WEIGHTS).write_bytes(b"damaged")
    refused("cannot be read as safetensors")


def test_something_else_is_overwritten_only_if_told(checkpoint, hub_server):
    repository = hub_server.repositories["octocat/restorer"] = Repository()
    repository.commit({".gitattributes": b"", CARD: b"# empty"})
    push(checkpoint)
    files = repository.commits[repository.refs["main"]]
    repository.commit({**files, CONFIG: json.dumps({"format": "splatfix-restorer", "kind": "magic"}).encode()})
    with pytest.raises(
        ValueError, match=r"a restorer of kind 'magic', not 'nafnet'; choose another name, or --replace"
    ):
        push(checkpoint)
    repository.commit({"config.json": b"{}", "model.safetensors": b"x"})
    with pytest.raises(ValueError, match="a model that is no restorer of splatfix"):
        push(checkpoint)
    repository.commit({"model.bin": b"x"})
    with pytest.raises(ValueError, match=r"holds other files, such as model\.bin"):
        push(checkpoint)
    push(checkpoint, replace=True)
    assert torch.equal(repair(NAME), repair(checkpoint))


def test_a_draft_of_the_card_asks_no_network_and_replaces_no_file(checkpoint, hub_server, tmp_path):
    publication, draft = prepare(str(checkpoint), NAME, license="mit"), tmp_path / "card.md"
    write_draft(publication, draft)
    assert hub_server.requests == []
    with pytest.raises(ValueError, match="exists already"):
        write_draft(publication, draft)
    draft.write_text(draft.read_text() + "\nEdited.\n")
    card = prepare(str(checkpoint), NAME, license=None, card=draft).card
    assert card.endswith("Edited.\n") and card.count("---\n") == 2 and "license: mit" in card


@pytest.mark.usefixtures("hub_server")
def test_what_trained_a_restorer_on_the_hub_is_named(checkpoint):
    tree = json.loads((checkpoint / CONFIG).read_text())
    tree["provenance"] = {"train_groups": ["kitchen"]}
    (checkpoint / CONFIG).write_text(json.dumps(tree))
    pinned = push(checkpoint)
    assert len(describe_training_overlap(str(pinned), "kitchen")) == 1
    assert describe_training_overlap(str(pinned), "garden") == []


def run_python(code: str, variables: dict[str, str]) -> subprocess.Popen:
    hidden = {name for name in os.environ if name.startswith(("HF_", "HUGGING"))}
    inherited = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [sys.executable, "-c", code]
    return subprocess.Popen(
        command, env=inherited | variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_a_killed_download_leaves_nothing_half(checkpoint, hub_server, tmp_path):
    push(checkpoint)
    home = tmp_path / "fresh"
    code = f"from splatfix.restoration import open_restorer; open_restorer({NAME!r}, 'cpu'); print('opened')"
    hub_server.stall_bytes = 5000
    process = run_python(code, environment(hub_server, home))
    assert hub_server.stalls.wait(60)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert [path for path in home.glob("hub/**/snapshots/**/*.safetensors") if path.exists()] == []
    hub_server.stall_bytes = None
    done = run_python(code, environment(hub_server, home))
    assert "opened" in done.communicate(timeout=120)[0]
    [weights] = home.glob("hub/**/snapshots/**/*.safetensors")
    assert weights.read_bytes() == (checkpoint / WEIGHTS).read_bytes()
    shutil.rmtree(home)
