"""Pairs of one fit: reproducible, from photos that the fit has not seen; and of several captures, resumed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from splatfix.captures import open_capture
from splatfix.pairs.generate import GenerateConfig, generate
from splatfix.pairs.make import PairsConfig, make_pairs
from splatfix.pairs.shards import read_pairs, verify_shards
from splatfix.sample import sample_path

SMALL = PairsConfig(size_px=48, num_train=(3, 4), num_fits=(1, 1), steps=(10, 20), num_random=(50, 100), max_views=3)


def pairs_of(seed: int, config: PairsConfig = SMALL):
    capture = open_capture(sample_path(), longest_side_px=48)
    return list(make_pairs(capture, 0, seed=seed, config=config, device=torch.device("cpu"), group="mug"))


def test_pairs_are_reproducible_and_unseen():
    first, again, other = pairs_of(0), pairs_of(0), pairs_of(1)
    assert 0 < len(first) <= 3
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.artifact, two.artifact)
        assert one.meta == two.meta
        assert one.view not in one.meta["fit_settings"]["train_ids"]
        assert one.meta["group"] == "mug"
        assert len(one.warps) == 2
    assert first[0].meta["fit_settings"] != other[0].meta["fit_settings"]


def test_several_fits_of_the_same_photos_are_paired_alone_and_as_their_mean():
    one = pairs_of(0)
    several = pairs_of(0, replace(SMALL, num_fits=(2, 2)))
    alone, mean = several[: len(one)], several[len(one) :]
    assert [pair.fit for pair in alone] == ["f000"] * len(one)
    assert [pair.fit for pair in mean] == ["f000m"] * len(mean) and mean
    assert {pair.view for pair in mean} <= {pair.view for pair in alone}
    for pair, same in zip(one, alone, strict=True):
        np.testing.assert_array_equal(pair.artifact, same.artifact)
    assert not np.array_equal(alone[0].artifact, mean[0].artifact)
    np.testing.assert_array_equal(alone[0].clean, mean[0].clean)
    assert [pair.meta["fit_settings"]["num_fits"] for pair in several] == [1] * len(alone) + [2] * len(mean)


def test_the_clean_image_is_the_photo():
    pair = pairs_of(0)[0]
    capture = open_capture(sample_path(), longest_side_px=48)
    np.testing.assert_allclose(pair.clean / 255, capture.view(pair.view).load().rgb, atol=1 / 255)
    assert pair.artifact.shape == pair.clean.shape


def test_a_rerun_does_only_what_is_missing(tmp_path):
    config = GenerateConfig(fits_per_capture=2, pairs=SMALL, device="cpu")
    done = generate([sample_path()], str(tmp_path), config)
    assert done["made"] + done["empty"] == 2
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    victim = next(tmp_path.glob("*f001.manifest.json"))
    victim.unlink()
    again = generate([sample_path()], str(tmp_path), config)
    assert again["found"] == 1 and again["samples"] == done["samples"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    verify_shards(str(tmp_path))
    assert len(list(read_pairs(str(tmp_path)))) == done["samples"]


def test_nothing_to_do_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no captures"):
        generate([], str(tmp_path), GenerateConfig())
    with pytest.raises(ValueError, match="nowhere"):
        generate([Path("nowhere")], str(tmp_path), GenerateConfig())
