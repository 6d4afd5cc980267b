"""Checkpoints: who may resume one, and how the others are refused."""

from dataclasses import dataclass, field, make_dataclass, replace

import pytest
import torch

from splatfix.config import changed_fields
from splatfix.splats.checkpoints import read_checkpoint, write_checkpoint
from splatfix.splats.densify import DensifyConfig
from splatfix.splats.initial_points import InitializationConfig
from splatfix.splats.losses import TrainingView
from splatfix.splats.scene import fit_identity, load_fit, start_fit
from splatfix.splats.train import FitConfig, advance
from tests.splats.scene import small_scene

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Growth:
    """A nested config."""

    cap: int = 10


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A config."""

    steps: int = 5
    growth: Growth = field(default_factory=Growth)


@pytest.fixture(scope="module")
def scene():
    return small_scene()


def test_a_new_field_with_a_default_keeps_the_identity(scene):
    wider_growth = make_dataclass(
        "Growth", [("cap", int, 10), ("every", int, 3)], frozen=True, kw_only=True, namespace={"__module__": __name__}
    )
    wider = make_dataclass(
        "Settings",
        [("steps", int, 5), ("mode", str, "classic"), ("growth", wider_growth, field(default_factory=wider_growth))],
        frozen=True,
        kw_only=True,
    )
    assert fit_identity(scene, fit=wider()) == fit_identity(scene, fit=Settings())
    ours = Settings(steps=7, growth=Growth(cap=2))
    assert fit_identity(scene, fit=wider(steps=7, growth=wider_growth(cap=2))) == fit_identity(scene, fit=ours)


def test_a_renamed_class_keeps_the_identity(scene):
    renamed = make_dataclass("Renamed", [("steps", int, 5), ("growth", Growth, field(default_factory=Growth))])
    assert fit_identity(scene, fit=renamed(steps=6)) == fit_identity(scene, fit=Settings(steps=6))


def test_another_value_changes_the_identity(scene):
    fits = [FitConfig(), FitConfig(dropout=0.1), FitConfig(densify=DensifyConfig(max_gaussians=7))]
    identities = {fit_identity(scene, fit=fit, seed=0) for fit in fits}
    identities |= {fit_identity(scene, fit=FitConfig(), seed=1), fit_identity(scene, fit=FitConfig())}
    identities |= {fit_identity(replace(scene, cameras=scene.cameras[:2], photos=scene.photos[:2]), fit=FitConfig())}
    identities |= {fit_identity(replace(scene, photos=tuple(1 - photo for photo in scene.photos)), fit=FitConfig())}
    assert len(identities) == 7


def test_only_fields_that_differ_from_their_default_count():
    assert changed_fields(Settings()) == {}
    assert changed_fields(Settings(growth=Growth(cap=3))) == {"growth": {"cap": 3}}
    assert changed_fields({"sizes": (1, 2)}) == {"sizes": [1, 2]}
    with pytest.raises(TypeError, match="is not a setting"):
        changed_fields(object())


def test_checkpoints_of_other_fits_and_damaged_ones_are_errors(tmp_path):
    path = tmp_path / "a.pt"
    write_checkpoint(path, "one", {"step": 3})
    assert read_checkpoint(path, "one", CPU) == {"step": 3}
    with pytest.raises(ValueError, match=r"a\.pt: checkpoint of another fit .* delete it to start again"):
        read_checkpoint(path, "other", CPU)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"a\.pt: damaged checkpoint .* delete it to start again"):
        read_checkpoint(path, "one", CPU)


def test_a_full_memory_is_no_damaged_checkpoint(tmp_path, monkeypatch):
    """A fit that is told to delete its checkpoint loses its work."""
    path = tmp_path / "a.pt"
    write_checkpoint(path, "one", {"params": {"means": torch.zeros(3)}, "list": [(torch.ones(2), 1)]})

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "to", full)
        with pytest.raises(torch.OutOfMemoryError):
            read_checkpoint(path, "one", torch.device("cuda"))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
        with pytest.raises(MemoryError):
            read_checkpoint(path, "one", CPU)
    on_meta = read_checkpoint(path, "one", torch.device("meta"))
    assert on_meta["params"]["means"].is_meta and on_meta["list"][0][0].is_meta and on_meta["list"][0][1] == 1


@pytest.mark.parametrize("schema", [None, 99])
def test_checkpoints_of_another_version_are_errors(schema, tmp_path):
    path = tmp_path / "a.pt"
    checkpoint = {"identity": "0123456789abcdef", "state": {"step": 3}}
    torch.save(checkpoint if schema is None else {**checkpoint, "schema": schema}, path)
    with pytest.raises(ValueError, match=r"a\.pt: checkpoint of another version of splatfix .* delete it") as caught:
        read_checkpoint(path, "0123456789abcdef", CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state["params"].pop("means"), "'means' is missing"),
        (lambda state: state["params"].update(quats=torch.zeros(2, 4)), "quats"),
        (lambda state: state["params"].update(means=None), "means|NoneType"),
        (lambda state: state.pop("optimizers"), "'optimizers' is missing"),
        (lambda state: state.update(losses=None), "NoneType"),
        (
            lambda state: next(iter(state["optimizers"]["means"]["state"].values())).update(exp_avg=torch.zeros(3)),
            r"exp_avg of means is \(3,\), wanted",
        ),
    ],
)
def test_a_checkpoint_whose_parts_do_not_fit_is_one_line(change, reason, scene, tmp_path):
    path, config = tmp_path / "a.pt", FitConfig()
    fit = start_fit(scene, config, InitializationConfig(sources=("random",)), seed=0)
    advance(fit, [TrainingView(c, p) for c, p in zip(scene.cameras, scene.photos, strict=True)], 1, seed=0)
    more = {"scene_scale": fit.scene_scale, "background": None, "device": CPU}
    fit.save(path, "one")
    assert load_fit(path, "one", config, **more).step == 1
    state = fit.copy().state()
    change(state)
    write_checkpoint(path, "one", state)
    for load in (lambda: fit.load(path, "one"), lambda: load_fit(path, "one", config, **more)):
        with pytest.raises(ValueError, match=rf"a\.pt: damaged checkpoint \(.*({reason}).*\); delete it") as caught:
            load()
        assert "\n" not in str(caught.value)
