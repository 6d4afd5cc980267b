"""Loading models: caching, downloads that are announced, and failures in one line."""

from __future__ import annotations

import logging
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from splatfix.extras import install_line
from splatfix.restoration.flux import failures, hub, loading
from splatfix.restoration.flux.failures import ModelError, describe
from splatfix.restoration.flux.options import LoadingOptions
from tests.restoration.flux.runs import open_flux
from tests.restoration.flux.tiny import TinyModels

pytest.importorskip("diffusers")
CPU = torch.device("cpu")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub's client refuses to connect, as with HF_HUB_OFFLINE."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def message(call: Any) -> str:
    """The error of a call: a ValueError of one line."""
    with pytest.raises(ValueError, match=r"\w") as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
def test_a_pipeline_is_loaded_once_for_options_that_do_not_change_it(tiny: TinyModels) -> None:
    first = open_flux(tiny)
    assert open_flux(tiny, strength=0.75, loading={"views_per_batch": 2}).pipeline is first.pipeline
    assert open_flux(tiny, loading={"vae_slicing": True}).pipeline is not first.pipeline
    assert first.estimator[1] is open_flux(tiny).estimator[1]


def test_a_pipeline_is_let_go_before_another_one_is_loaded(tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the real size would not fit into the memory of one GPU."""
    first = weakref.ref(open_flux(tiny).pipeline)
    alive: list[bool] = []
    real = loading._load_pipeline
    monkeypatch.setattr(loading, "_load_pipeline", lambda *key: alive.append(first() is not None) or real(*key))
    open_flux(tiny, loading={"vae_slicing": True})
    assert alive == [False]


def test_auto_is_bfloat16_on_cuda_alone() -> None:
    assert loading.choose_dtype(LoadingOptions(), torch.device("cuda")) == torch.bfloat16
    assert loading.choose_dtype(LoadingOptions(), CPU) == torch.float32
    assert loading.choose_dtype(LoadingOptions(dtype="float16"), CPU) == torch.float16


@pytest.mark.usefixtures("offline")
def test_without_a_network_the_download_and_the_remedy_are_named(tiny: TinyModels) -> None:
    text = message(lambda: open_flux(tiny, edge_controlnet="InstantX/FLUX.1-dev-Controlnet-Canny"))
    assert text.startswith(
        "model 'InstantX/FLUX.1-dev-Controlnet-Canny' (license FLUX.1 [dev] Non-Commercial, about 3.58 GB)"
    )
    assert "HF_HUB_OFFLINE" in text and "hf download" in text
    text = message(lambda: open_flux(tiny, depth_model="someone/unknown", loading={"local_files_only": True}))
    assert "'someone/unknown': not in the cache" in text and "set it to false" in text


def test_wrong_folders_are_named(tiny: TinyModels, tmp_path: Path) -> None:
    assert "no such folder" in message(lambda: open_flux(tiny, model=str(tmp_path / "none")))
    assert "no such folder" in message(lambda: open_flux(tiny, edge_controlnet="canny"))
    assert "no file named model_index.json" in message(lambda: open_flux(tiny, model=tiny.edge))
    assert "no file named config.json" in message(lambda: open_flux(tiny, edge_controlnet=tiny.flux))


def test_pickled_weights_are_not_read(tiny: TinyModels, tmp_path: Path) -> None:
    controlnet = tmp_path / "edge"
    shutil.copytree(tiny.edge, controlnet)
    weights = controlnet / "diffusion_pytorch_model.safetensors"
    weights.rename(controlnet / "diffusion_pytorch_model.bin")
    assert "no file named diffusion_pytorch_model.safetensors" in message(
        lambda: open_flux(tiny, edge_controlnet=str(controlnet))
    )
    for part, file in (("vae", "diffusion_pytorch_model"), ("text_encoder_2", "model")):
        pipeline = tmp_path / part
        shutil.copytree(tiny.flux, pipeline)
        (pipeline / part / f"{file}.safetensors").rename(pipeline / part / f"{file}.bin")
        assert "safetensors" in message(lambda place=pipeline: open_flux(tiny, model=str(place)))


def test_broken_weights_are_named(tiny: TinyModels, tmp_path: Path) -> None:
    controlnet = tmp_path / "edge"
    shutil.copytree(tiny.edge, controlnet)
    (controlnet / "diffusion_pytorch_model.safetensors").write_bytes(b"interrupted")
    assert "a weights file is broken" in message(lambda: open_flux(tiny, edge_controlnet=str(controlnet)))


def test_missing_packages_are_named(tiny: TinyModels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "find_spec", lambda name: None if name in ("diffusers", "torchao", "gguf") else True)
    assert install_line("diffusion") in message(lambda: open_flux(tiny))
    monkeypatch.setattr(failures, "find_spec", lambda name: None if name in ("torchao", "gguf") else True)
    assert "pip install torchao" in message(lambda: open_flux(tiny, loading={"quantization": "torchao-int8"}))
    assert "pip install gguf" in message(lambda: open_flux(tiny, loading={"gguf": "model.gguf"}))
    monkeypatch.setattr(failures, "find_spec", lambda _name: True)
    assert "'model.gguf': no such file" in message(lambda: open_flux(tiny, loading={"gguf": "model.gguf"}))


def test_refusals_of_the_hub_have_remedies() -> None:
    from huggingface_hub import errors

    def refused(kind: type[BaseException]) -> str:
        error = OSError("does not appear to have a file")
        error.__cause__ = kind.__new__(kind)
        return describe(error, "owner/name@v2")

    assert "hf auth login" in refused(errors.GatedRepoError) and "huggingface.co/owner/name " in refused(
        errors.GatedRepoError
    )
    assert "no such model" in refused(errors.RepositoryNotFoundError)
    assert "no such revision" in refused(errors.RevisionNotFoundError)
    assert "loading.offload" in describe(torch.OutOfMemoryError("CUDA out of memory"), "owner/name")


class Info:
    """What the Hub says about a pipeline, as `huggingface_hub.ModelInfo`."""

    class card_data:  # noqa: N801
        license, license_name = "other", "some-license"

    gated = "auto"

    class File:
        def __init__(self, rfilename: str, size: int) -> None:
            self.rfilename, self.size = rfilename, size

    siblings = (
        File("model.safetensors", 5_000_000_000),
        File("unet/a-00001.safetensors", 2_000_000_000),
        File("unet/a-00002.safetensors", 1_000_000_000),
        File("unet/a.fp16.safetensors", 1_500_000_000),
        File("unet/a.bin", 3_000_000_000),
    )


def test_license_and_size_are_logged_before_a_download(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_args, **_more: Info)
    monkeypatch.setattr(logging.getLogger("splatfix"), "propagate", True)
    events: list[Any] = []

    def load(place: str, **more: Any) -> str:
        events.append((place, more.get("local_files_only", False), more["revision"], len(caplog.records)))
        assert more["use_safetensors"] is True and more["trust_remote_code"] is False
        if more.get("local_files_only"):
            raise OSError("not cached")
        return "loaded"

    with caplog.at_level(logging.INFO, logger="splatfix"):
        assert loading._from_pretrained(load, "owner/name@v2", local_files_only=False, is_pipeline=True) == "loaded"
    assert events == [("owner/name", True, "v2", 0), ("owner/name", False, "v2", 1)]
    [record] = caplog.records
    assert "owner/name (license some-license, gated, about 3 GB)" in record.getMessage()
    assert hub.ask_hub("owner/name", None, is_pipeline=False).size_gb == 5.0


def test_what_is_cached_is_loaded_without_asking_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_more: Any) -> None:
        raise AssertionError("asked the Hub")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fail)
    assert loading._from_pretrained(lambda *_args, **_more: "cached", "owner/name", False) == "cached"


def test_unknown_pipeline_classes_list_near_names() -> None:
    with pytest.raises(ModelError, match=r"FluxKontextPip.*FluxKontextPipeline"):
        loading.find_pipeline_class("FluxKontextPip")
    with pytest.raises(ModelError, match="no such class"):
        loading.find_pipeline_class("utils")
