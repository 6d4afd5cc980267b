"""What the Hub refuses, against a server that answers as the Hub does; and code in a model's repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from splatfix.restoration import RestorerChoice, open_restorer
from tests.restoration.flux.tiny import TinyModels

GATED = "black-forest-labs/FLUX.1-dev"


class FakeHub(BaseHTTPRequestHandler):
    """Knows one model, which is gated: it tells about it and refuses its files."""

    def do_GET(self) -> None:
        known = GATED in self.path
        if known and "/api/models/" in self.path:
            files = [{"rfilename": "transformer/a.safetensors", "size": 23_800_000_000}, {"rfilename": "b.safetensors"}]
            card = {"license": "other", "license_name": "some-license"}
            body = {"id": GATED, "sha": "0" * 40, "gated": "auto", "siblings": files, "cardData": card}
            self.answer(200, json.dumps(body).encode(), {})
        else:
            self.answer(401, b"{}", {"X-Error-Code": "GatedRepo" if known else "RepoNotFound"})

    do_HEAD = do_GET  # noqa: N815

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    """The address of a `FakeHub`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def open_elsewhere(folder: Path, endpoint: str, model: str) -> str:
    """What is logged and raised when a model is opened in a process with an empty cache and without a token."""
    pytest.importorskip("diffusers")
    code = (
        "import logging, sys; logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stdout)\n"
        "from splatfix.restoration import RestorerChoice, open_restorer\n"
        f"options = {{'model': {model!r}, 'pipeline': 'FluxImg2ImgPipeline'}}\n"
        "try: open_restorer(RestorerChoice(name='img2img', options=options), 'cpu')\n"
        "except ValueError as error: print(error)\n"
    )
    hidden = {name for name in os.environ if name.startswith(("HF_", "HUGGING"))}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_gated_model_says_how_to_get_it_after_its_license_and_size(endpoint: str, tmp_path: Path) -> None:
    shown = open_elsewhere(tmp_path, endpoint, GATED)
    assert f"downloading {GATED} (license some-license, gated, about 23.8 GB) into {tmp_path}" in shown
    assert shown.splitlines()[-1] == (
        f"model {GATED!r}: gated on the Hugging Face Hub; accept its license at https://huggingface.co/{GATED} and run "
        "`hf auth login` (or set HF_TOKEN)"
    )


@pytest.mark.slow
def test_a_model_that_does_not_exist_and_a_hub_that_cannot_be_reached(endpoint: str, tmp_path: Path) -> None:
    shown = open_elsewhere(tmp_path, endpoint, "nobody/nothing")
    assert shown.splitlines()[-1].startswith("model 'nobody/nothing': no such model on the Hugging Face Hub")
    shown = open_elsewhere(tmp_path, "http://127.0.0.1:9", "nobody/nothing")
    assert "the Hub cannot be reached; check the network, HTTPS_PROXY and HF_ENDPOINT" in shown.splitlines()[-1]


def test_code_in_the_folder_of_a_model_is_never_run(tiny: TinyModels, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.turbo, tmp_path / "custom")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"_class_name": ["pipeline", "Custom"], "unet": ["unet_code", "CustomUnet"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    ran = tmp_path / "ran"
    for place in (folder / "pipeline.py", folder / "unet" / "unet_code.py"):
        place.write_text(f"open({str(ran)!r}, 'w').close()\nclass Custom: pass\nclass CustomUnet: pass\n")
    with pytest.raises(ValueError, match="cannot be loaded") as caught:
        open_restorer(RestorerChoice(name="img2img", options={"model": str(folder)}), "cpu")
    assert "\n" not in str(caught.value)
    assert not ran.exists()
