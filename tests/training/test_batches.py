"""Crops stay aligned, batches hold the network's inputs, and jitter changes colors alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from splatfix.buffers import NUM_PLANES, PLANES
from splatfix.pairs.pair import build_pair
from splatfix.restoration.nafnet.network import network_inputs, warps_in
from splatfix.training.batches import (
    ByteBatch,
    Crop,
    JitterConfig,
    decode_batch,
    jitter_colors,
    make_batch,
    random_color_change,
    random_crop,
)
from splatfix.training.losses import edge_loss
from splatfix.training.nafnet import NafnetInputs
from tests.restoration.scenery import pair, random_mask, rendered_view
from tests.training.small import INPUTS, NETWORK

UNCHANGED = np.array([1, 1, 1, 1, 1, 0, 1, 2], np.float32)


def test_crops_keep_every_plane_aligned():
    one = pair(1)
    y, x = np.mgrid[0:30, 0:40].astype(np.uint8)
    marked = one.map_images(lambda image: np.stack([y + x] * image.shape[2], -1) if image.ndim == 3 else y + x)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(20):
        crop = random_crop(marked, 16, rng)
        assert crop.alpha.shape == (16, 16)
        for plane in (crop.artifact[..., 0], crop.clean[..., 2], crop.nearness, *(warp[..., 3] for warp in crop.warps)):
            np.testing.assert_array_equal(plane, crop.alpha)
        seen.add((int(crop.alpha[0, 0]), int(crop.alpha[0, -1]), int(crop.alpha[-1, 0])))
    assert len(seen) > 10


@pytest.mark.parametrize("references", [0, 1, 2, 3])
@pytest.mark.parametrize("planes", [True, False])
def test_a_batch_holds_the_inputs_of_the_network_in_the_loop(references, planes):
    network = replace(NETWORK, num_references=references, alpha=planes, depth=planes)
    mask = random_mask()
    pairs = [pair(i, mask=mask if i else None) for i in range(3)]
    inputs = NafnetInputs(network)
    batch = decode_batch(make_batch([Crop(one, UNCHANGED) for one in pairs], inputs), inputs)
    expected = torch.stack([network_inputs(one.conditioning(), network) for one in pairs])
    torch.testing.assert_close(batch.inputs, expected, atol=0, rtol=0)
    for i, one in enumerate(pairs):
        clean, weight = one.target()
        assert torch.equal(batch.clean[i].permute(1, 2, 0), clean) and torch.equal(batch.weight[i, 0], weight)


def test_flips_turn_the_normals_with_the_image():
    """A flip in x negates the normal's x; a transposition swaps x and y. Empty pixels stay 0."""
    one = pair(1)
    height, width = one.alpha.shape
    buffers = np.full((height, width, NUM_PLANES), 100, np.uint8)
    buffers[..., 0], buffers[..., 1] = 200, 60
    buffers[:2] = 0  # empty at the top, where no photo sees anything
    buffers[:2, :, PLANES["angle"]] = 255
    found = set()
    rng = np.random.default_rng(0)
    for _ in range(60):
        crop = random_crop(replace(one, buffers=buffers), 30, rng).buffers
        empty = crop[..., PLANES["angle"].start] == 255
        assert not crop[empty][:, :2].any()
        assert (crop[~empty][:, 2:] == 100).all()
        is_transposed, is_flipped_y = bool(empty[:, 0].all() or empty[:, -1].all()), bool(empty[-1].all())
        (x, y) = (int(value) for value in crop[~empty][0, :2])
        if is_transposed:  # rows of the photo are columns now
            x, y = y, x
            is_flipped_y = bool(empty[:, -1].all())
        assert y == (195 if is_flipped_y else 60) and x in (200, 55)
        found.add((x, y, is_transposed))
    assert len(found) == 8


def test_a_batch_holds_the_buffers_that_the_network_is_given():
    network = replace(NETWORK, buffers=("seen", "footprint"))
    view = rendered_view()
    pairs = [build_pair(view, torch.rand_like(view.rgb), scene=name, fit="f0") for name in "ab"]
    inputs = NafnetInputs(network)
    batch = decode_batch(make_batch([Crop(one, UNCHANGED) for one in pairs], inputs), inputs)
    expected = torch.stack([network_inputs(one.conditioning(), network) for one in pairs])
    torch.testing.assert_close(batch.inputs, expected, atol=0, rtol=0)
    with pytest.raises(ValueError, match=r"plane-f0-photos_001_png: has no buffers.png, since an earlier version"):
        inputs.encode([pair(1)])


@pytest.mark.parametrize("depth", [True, False])
def test_a_batch_is_sent_as_the_bytes_of_the_shards(depth):
    network = replace(NETWORK, depth=depth)
    batch = make_batch([Crop(pair(i), UNCHANGED) for i in range(3)], NafnetInputs(network))
    images, num_pixels = batch[:3], 3 * 30 * 40
    assert all(image.dtype == torch.uint8 for image in images)
    assert sum(image.nbytes for image in images) == num_pixels * (network.in_channels + depth + 4)


def test_decoded_images_are_channels_last():
    batch = decode_batch(make_batch([Crop(pair(i), UNCHANGED) for i in range(3)], INPUTS), INPUTS)
    assert all(image.is_contiguous(memory_format=torch.channels_last) for image in batch[:3])


def test_chunks_of_a_batch_are_its_crops_in_order():
    batch = make_batch([Crop(pair(i), UNCHANGED) for i in range(3)], INPUTS)
    first, second = batch.chunks(2)
    assert (len(first.inputs), len(second.inputs)) == (2, 1)
    for whole, *parts in zip(batch, first, second, strict=True):
        assert torch.equal(torch.cat(parts), whole)
    assert isinstance(first, ByteBatch)


def test_small_images_are_padded_and_masked():
    crop = random_crop(pair(1), 64, np.random.default_rng(0))
    assert crop.alpha.shape == (64, 64)
    assert (crop.mask == 255).sum() == 30 * 40
    batch = decode_batch(make_batch([Crop(crop, UNCHANGED)], INPUTS), INPUTS)
    assert batch.weight.sum() == 30 * 40
    assert edge_loss(batch.clean, batch.clean, batch.weight) == 0


def test_jitter_changes_all_colors_alike_and_nothing_else():
    rng = np.random.default_rng(0)
    always = JitterConfig(probability=1.0)
    crops = [Crop(pair(i), random_color_change(always, rng)) for i in range(4)]
    batch = decode_batch(make_batch(crops, INPUTS), INPUTS)
    clean = batch.inputs[:, :3].clone()  # then render and photo must stay equal
    jittered = jitter_colors(batch._replace(clean=clean), INPUTS)
    torch.testing.assert_close(jittered.inputs[:, :3], jittered.clean)
    assert (jittered.clean - clean).abs().mean() > 0.01
    before, after = warps_in(batch.inputs, 2), warps_in(jittered.inputs, 2)
    assert (after[:, :, :3] - before[:, :, :3]).abs().mean() > 0.01
    torch.testing.assert_close(after[:, :, 3], before[:, :, 3])
    assert (after[:, :, :3].amax(2)[before[:, :, 3] == 0] == 0).all()
    torch.testing.assert_close(jittered.inputs[:, 11:], batch.inputs[:, 11:])
    never = random_color_change(JitterConfig(probability=0.0), rng)
    np.testing.assert_array_equal(never, UNCHANGED)
    same = jitter_colors(batch._replace(colors=torch.from_numpy(never).expand(4, 8)), INPUTS)
    torch.testing.assert_close(same.inputs, batch.inputs, atol=1e-4, rtol=0)
