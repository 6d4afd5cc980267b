"""Repaired views on disk: nothing is repaired twice, and nothing is mistaken."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from splatfix.restoration import Repaired
from splatfix.restoration.repair_cache import RepairCache
from tests.restoration.scenery import flawed_view


class Counting:
    """Inverts views and counts them; raises at the view with this number."""

    def __init__(self, stop_at: int | None = None):
        self.names: list[str] = []
        self.stop_at = stop_at

    def repair(self, views, *, seed):
        results = []
        for view in views:
            if self.stop_at is not None and len(self.names) >= self.stop_at:
                raise KeyboardInterrupt
            self.names.append(view.camera.name)
            results.append(Repaired(1 - view.rgb, view.alpha * (seed + 1) / 10, view.alpha > 0.5))
        return results


@pytest.fixture
def views():
    return [flawed_view(seed) for seed in range(2)]


def test_a_kept_view_is_not_repaired_again_and_is_the_same(views, tmp_path):
    restorer = Counting()
    first = RepairCache(restorer, tmp_path, identity="a").repair(views, seed=1)
    again = Counting()
    cache = RepairCache(again, tmp_path, identity="a")
    second = cache.repair(views, seed=1)
    assert again.names == []
    assert cache.seconds_per_view is not None
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.rgb, other.rgb)
        assert torch.equal(one.confidence, other.confidence)
        assert torch.equal(one.mask, other.mask) and other.mask.dtype == torch.bool


def test_an_interrupted_repair_resumes_after_the_last_whole_batch(views, tmp_path):
    views = [replace(views[0], rgb=views[0].rgb * share) for share in (0.2, 0.4, 0.6, 0.8, 1.0)]
    with pytest.raises(KeyboardInterrupt):
        RepairCache(Counting(stop_at=3), tmp_path, identity="a", batch_views=1).repair(views, seed=0)
    rest = Counting()
    results = RepairCache(rest, tmp_path, identity="a", batch_views=1).repair(views, seed=0)
    assert len(rest.names) == 2
    assert [float(result.rgb.mean()) for result in results] == [float((1 - view.rgb).mean()) for view in views]


@pytest.mark.parametrize("change", ["seed", "identity", "pixels", "reference"])
def test_another_seed_restorer_or_view_is_repaired(views, tmp_path, change):
    view = views[0]
    RepairCache(Counting(), tmp_path, identity="a").repair([view], seed=0)
    if change == "pixels":
        view = replace(view, rgb=view.rgb * 0.999)
    if change == "reference":
        view = replace(view, references=view.references[:-1])
    restorer = Counting()
    cache = RepairCache(restorer, tmp_path, identity="b" if change == "identity" else "a")
    cache.repair([view], seed=1 if change == "seed" else 0)
    assert len(restorer.names) == 1


def test_a_broken_file_is_repaired_again(views, tmp_path):
    RepairCache(Counting(), tmp_path, identity="a").repair(views[:1], seed=0)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-50])
    restorer = Counting()
    (result,) = RepairCache(restorer, tmp_path, identity="a").repair(views[:1], seed=0)
    assert len(restorer.names) == 1
    assert torch.equal(result.rgb, 1 - views[0].rgb)
