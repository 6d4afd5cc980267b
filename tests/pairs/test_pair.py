"""Pairs are encoded without loss, and nothing but PNG and JSON is decoded."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from splatfix.conditioning import compute_conditioning, compute_nearness, depth_from_nearness
from splatfix.pairs.pair import build_pair, decode, encode
from splatfix.restoration.nafnet.network import NetworkConfig, network_inputs
from tests.restoration.scenery import flawed_view, pair, random_mask, rendered_view
from tests.test_warping import painted


def test_encode_and_decode_lose_nothing():
    before = pair(1, mask=random_mask(), group="planes", distance=0.25)
    after = decode(encode(before))
    for name in ("artifact", "clean", "alpha", "nearness", "mask"):
        a, b = getattr(before, name), getattr(after, name)
        assert a.dtype == b.dtype, name
        np.testing.assert_array_equal(a, b, err_msg=name)
    assert len(before.warps) == len(after.warps) == 2
    for a, b in zip(before.warps, after.warps, strict=True):
        np.testing.assert_array_equal(a, b)
    assert after.meta == before.meta
    assert (after.scene, after.fit, after.view) == ("plane", "f0", "photos/001.png")
    assert after.meta["group"] == "planes"


def test_the_network_gets_equal_inputs_from_a_view_and_from_its_shard():
    config = NetworkConfig()
    view = flawed_view(3)
    stored = decode(encode(pair(3)))
    live = network_inputs(compute_conditioning(view, config.num_references), config)
    read = network_inputs(stored.conditioning(), config)
    eight_bits, sixteen_bits = 0.5 / 255 + 1e-6, 0.5 / 65535 + 1e-6
    assert (live[:-1] - read[:-1]).abs().max() <= eight_bits
    assert (live[-1] - read[-1]).abs().max() <= sixteen_bits
    assert ((live[6] > 0) == (read[6] > 0)).all(), "a warped pixel is missing in one of the two"


def test_buffers_of_a_rendered_view_are_stored_and_read_unless_left_out():
    config = NetworkConfig(buffers=("normal", "footprint", "angle"))
    view = rendered_view()
    stored = build_pair(view, torch.rand_like(view.rgb), scene="s", fit="f0")
    sample = encode(stored)
    read = decode(sample)
    np.testing.assert_array_equal(read.buffers, stored.buffers)
    assert len(sample["buffers.png"]) < stored.buffers.size * 0.6
    live = network_inputs(compute_conditioning(view, 2, with_buffers=True), config)
    difference = (live - network_inputs(read.conditioning(), config)).abs()
    assert difference[12:18].max() <= 2.5 / 255 + 1e-6  # 64 levels
    without = decode(sample, with_buffers=False)
    assert without.buffers is None and without.conditioning().buffers is None


def test_a_damaged_buffers_file_is_named():
    view = rendered_view()
    sample = encode(build_pair(view, torch.rand_like(view.rgb), scene="s", fit="f0"))
    with pytest.raises(ValueError, match=r"s-f0-new: buffers.png is L"):
        decode(sample | {"buffers.png": sample["alpha.png"]})


def test_keys_have_no_dots_slashes_or_great_length():
    odd = replace(pair(0), scene="a.b/c", view="images/" + "x" * 90 + ".jpg")
    assert "." not in odd.key
    assert "/" not in odd.key
    assert len(odd.key) <= 80
    assert odd.key != replace(odd, view="images/" + "x" * 91 + ".jpg").key


def test_nearness_is_bounded_unitless_and_invertible():
    depth = torch.rand(20, 30) * 5 + 0.2
    depth[:3] = 0
    nearness, scale = compute_nearness(depth)
    assert nearness.min() >= 0
    assert nearness.max() < 1
    assert (nearness[:3] == 0).all()
    torch.testing.assert_close(depth_from_nearness(nearness, scale), depth, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(compute_nearness(depth * 100)[0], nearness)
    assert compute_nearness(torch.zeros(4, 4))[1] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clean.png": None}, "clean.png is missing"),
        ({"meta.json": b"[1]"}, "wanted a mapping at the top"),
        ({"meta.json": b"{}"}, "scene is missing"),
        ({"meta.json": b"[" * 50_000}, "nested more than 100 levels deep"),
        ({"meta.json": b'{"artifact_psnr": "loud"}'}, "artifact_psnr = 'loud'"),
        ({"meta.json": b'{"fit_settings": 3}'}, "fit_settings = 3"),
        ({"alpha.png": b"cos\nsystem\n(S'true'\ntR."}, "alpha.png cannot be read as PNG"),
        ({"depth.png": "alpha.png"}, "depth.png is L"),
        ({"warp0.png": None}, "warp0.png is missing"),
    ],
)
def test_errors_name_the_broken_sample(change, message):
    sample = encode(pair(0))
    for name, content in change.items():
        if content is None:
            del sample[name]
        else:
            sample[name] = sample[content] if isinstance(content, str) else content
    with pytest.raises(ValueError, match=message) as caught:
        decode(sample, "some.tar")
    assert "some.tar" in str(caught.value)


def test_different_sizes_are_errors():
    sample = encode(pair(0)) | {"clean.png": encode(pair(0, width_px=20))["clean.png"]}
    with pytest.raises(ValueError, match=r"clean\.png is RGB \(30, 20\), wanted RGB \(30, 40\)"):
        decode(sample)


def test_meta_is_plain_json():
    meta = json.loads(encode(pair(0))["meta.json"])
    assert meta["camera"]["width_px"] == 40
    assert 5 < meta["artifact_psnr"] < 40
    assert meta["band"] == "near"


def test_ignored_pixels_do_not_count_in_the_psnr_of_the_artifact():
    view, mask = flawed_view(1), random_mask()
    clean = painted(view.camera)
    given = {"scene": "plane", "fit": "f0", "mask": mask}
    pairs = [build_pair(view, torch.where(mask[..., None] > 0, clean, color), **given) for color in (0.0, 1.0)]
    psnrs = [pair.meta["artifact_psnr"] for pair in pairs]
    assert psnrs[0] == psnrs[1] != build_pair(view, clean, **{**given, "mask": None}).meta["artifact_psnr"]
    assert build_pair(view, clean, **{**given, "mask": torch.zeros_like(mask)}).meta["artifact_psnr"] is None
