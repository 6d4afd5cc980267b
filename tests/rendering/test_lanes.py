"""The vectors of 16 numbers that kernels compute with, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from numba import float32, int64, uint64

from splatfix.jit import kernel
from splatfix.rendering.cpu import lanes
from splatfix.rendering.cpu.lanes import (
    LANES,
    allocate_aligned,
    bits,
    broadcast,
    count_bits,
    exp2,
    load,
    load_part,
    lowest_bit,
    maximum,
    minimum,
    prefetch,
    select,
    square_root,
    store,
    store_part,
    sum_lanes,
)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.normal(size=LANES).astype(np.float32), random.normal(size=LANES).astype(np.float32)


@kernel()
def _every(a, b, number, out):
    x, y = load(a, uint64(0)), load(b, uint64(0))
    changed = x + y
    changed -= number
    changed *= y
    results = (
        *(x + y, x - number, number * y, x / y, changed, minimum(x, y), maximum(x, number)),
        *(square_root(x * x), select(x > y, x, number), select((x >= y) & (x < number), x, y), broadcast(number)),
    )
    i = uint64(0)
    for result in results:
        store(out, i, result)
        i += uint64(LANES)
    return bits(x <= y)


def test_operations(pair) -> None:
    a, b = pair
    number, out = np.float32(0.3), np.empty(11 * LANES, np.float32)
    found = _every(a, b, number, out)
    expected = [
        *(a + b, a - number, number * b, a / b, (a + b - number) * b, np.minimum(a, b), np.maximum(a, number)),
        *(np.abs(a), np.where(a > b, a, number), np.where((a >= b) & (a < number), a, b), np.full(LANES, number)),
    ]
    np.testing.assert_allclose(out.reshape(11, LANES), np.stack(expected), rtol=1e-6, atol=1e-6)
    assert found == sum(1 << lane for lane in range(LANES) if a[lane] <= b[lane])


@kernel()
def _powers(a, out):
    store(out, uint64(0), exp2(load(a, uint64(0))))


def test_powers_of_two() -> None:
    for low in range(-120, 120, 10):
        a = np.random.default_rng(low + 120).uniform(low, low + 10, LANES).astype(np.float32)
        out = np.empty(LANES, np.float32)
        _powers(a, out)
        np.testing.assert_allclose(out, 2.0 ** a.astype(np.float64), rtol=3e-7)


@kernel()
def _sum_two(a, out):
    x = load(a, uint64(0))
    store(out, uint64(0), sum_lanes(x, x * x))


@kernel()
def _sum_sixteen(a, out):
    x = load(a, uint64(0))
    y = x + float32(1)
    store(out, uint64(0), sum_lanes(x, y, x, y, x, y, x, y, x, y, x, y, x, y, x, x + x))


def test_sums_are_in_the_order_of_the_arguments(pair) -> None:
    a, _ = pair
    total = a.sum(dtype=np.float64)
    out = np.empty(LANES, np.float32)
    _sum_two(a, out)
    np.testing.assert_allclose(out, [total, (a.astype(np.float64) ** 2).sum(), *[0] * 14], atol=1e-5)
    _sum_sixteen(a, out)
    np.testing.assert_allclose(out, [*[total, total + LANES] * 7, total, 2 * total], atol=1e-5)


@kernel()
def _copy_part(a, out, num):
    prefetch(a, uint64(3))  # only a hint
    store(out, uint64(0), load_part(a, uint64(3), num))
    store_part(out, uint64(LANES), load(a, uint64(0)), num)


@pytest.mark.parametrize("num", [0, 1, 7, 15, 16])
def test_parts(num: int) -> None:
    a, out = np.arange(1, 25, dtype=np.float32), np.full(2 * LANES, -1, np.float32)
    _copy_part(a, out, int64(num))
    np.testing.assert_array_equal(out[:LANES], [*a[3 : 3 + num], *[0] * (LANES - num)])
    np.testing.assert_array_equal(out[LANES:], [*a[:num], *[-1] * (LANES - num)])


@kernel()
def _bit_counts(number):
    return lowest_bit(number), count_bits(number)


def test_bits_of_a_number() -> None:
    assert _bit_counts(np.uint64(0b1011000)) == (3, 3)
    assert _bit_counts(np.uint64(1 << 63)) == (63, 1)


def test_aligned_arrays() -> None:
    for num in (1, 16, 100):
        array = allocate_aligned(num)
        assert len(array) == num
        assert array.ctypes.data % 64 == 0


def test_outside_of_kernels() -> None:
    with pytest.raises(TypeError, match="in compiled kernels only"):
        lanes.broadcast(1.0)
