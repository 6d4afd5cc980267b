"""Noise kernels: integer hashes, value noise, and sums of its octaves (Ebert et al., Texturing and Modeling, 2003).

All values come from integer hashes in float64, so that they are the same on every machine.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from splatfix.jit import kernel
from splatfix.shapes import Float

MASK, SHIFT = np.uint64(0xFFFFFFFF), np.uint64(16)
FIRST, SECOND = np.uint64(0x7FEB352D), np.uint64(0x846CA68B)
X, Y, Z, W = 73856093, 19349663, 83492791, 2654435761  # primes that tell apart the coordinates and the seed


@kernel()
def _mix(h):
    """Mix the bits of an integer of 32 bits (Wellons' lowbias32)."""
    h = np.uint64(h) & MASK
    h = ((h ^ (h >> SHIFT)) * FIRST) & MASK
    h = ((h ^ (h >> np.uint64(15))) * SECOND) & MASK
    return np.int64(h ^ (h >> SHIFT))


@kernel()
def uniform_at(x, y, z, seed):
    """Return a number in [0, 1) that four integers determine."""
    return _mix(x * X ^ y * Y ^ z * Z ^ seed * W) * (1.0 / 4294967296.0)


@kernel()
def value_noise(x, y, z, seed):
    """Interpolate random values of the integer lattice smoothly; about [-1, 1], with features of size 1."""
    fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
    i0, j0, k0, s = np.int64(fx) * X, np.int64(fy) * Y, np.int64(fz) * Z, seed * W
    i1, j1, k1 = i0 + X, j0 + Y, k0 + Z
    u, v, w = x - fx, y - fy, z - fz
    u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
    a = _mix(i0 ^ j0 ^ k0 ^ s) * (1 - u) + _mix(i1 ^ j0 ^ k0 ^ s) * u
    b = _mix(i0 ^ j1 ^ k0 ^ s) * (1 - u) + _mix(i1 ^ j1 ^ k0 ^ s) * u
    c = _mix(i0 ^ j0 ^ k1 ^ s) * (1 - u) + _mix(i1 ^ j0 ^ k1 ^ s) * u
    d = _mix(i0 ^ j1 ^ k1 ^ s) * (1 - u) + _mix(i1 ^ j1 ^ k1 ^ s) * u
    return 2 * ((a * (1 - v) + b * v) * (1 - w) + (c * (1 - v) + d * v) * w) * (1.0 / 4294967296.0) - 1


@kernel()
def octave_noise(x, y, z, octaves, gain, footprint, seed):
    """Sum octaves of value noise, each of twice the frequency and ``gain`` times the amplitude; about [-1, 1].

    Octaves whose features are smaller than ``footprint`` (the size of a sample in units of x) fade out: the sum is
    antialiased.
    """
    total, amplitude, norm = 0.0, 1.0, (1 - gain**octaves) / (1 - gain)
    for octave in range(octaves):
        fade = min(1.0, max(0.0, 2.0 - 2.0 * footprint))
        if fade <= 0:
            break
        total += fade * amplitude * value_noise(x, y, z, seed + octave)
        # a rotation about (1, 1, 1) hides the lattice
        x, y, z = (
            2.02 * (0.911 * x - 0.244 * y + 0.333 * z),
            2.02 * (0.333 * x + 0.911 * y - 0.244 * z),
            2.02 * (-0.244 * x + 0.333 * y + 0.911 * z),
        )
        footprint *= 2.02
        amplitude *= gain
    return total / norm


@kernel()
def _fill_noise(points, octaves, gain, seed, values):
    for i in range(len(points)):
        values[i] = octave_noise(points[i, 0], points[i, 1], points[i, 2], octaves, gain, 0.0, seed)


def sample_noise(points: Float[ndarray, "*N 3"], octaves: int, seed: int, gain: float = 0.5) -> Float[ndarray, "*N"]:
    """Evaluate `octave_noise` at points, in float64."""
    flat = np.ascontiguousarray(points, np.float64).reshape(-1, 3)
    values = np.empty(len(flat))
    _fill_noise(flat, octaves, gain, seed, values)
    return values.reshape(points.shape[:-1])
