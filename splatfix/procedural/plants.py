"""Plants: trees, bushes, grass, potted plants, and stones, all of which stand on the origin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy import ndarray

from splatfix.procedural.materials import Material, draw_leaf, draw_paint, draw_palette, draw_stone, draw_wood
from splatfix.procedural.meshes import Mesh, join, make_ellipsoid, make_lathe, make_leaves, make_tube
from splatfix.procedural.stage import Stage
from splatfix.shapes import Float


def _draw_directions(rng: np.random.Generator, num: int, rise: float = 0.0) -> Float[ndarray, "N 3"]:
    directions = rng.normal(size=(num, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions + np.array([0, 0, rise])


def _bend_path(rng: np.random.Generator, start: ndarray, end: ndarray, sway: float, num: int = 7) -> ndarray:
    t = np.linspace(0, 1, num)[:, None]
    swing = sway * np.linalg.norm(end - start) * rng.normal(size=3)
    return start + t * (end - start) + np.sin(np.pi * t) * swing


def make_tree(stage: Stage, height: float, *, num_leaves: int = 2200) -> Mesh:
    """Make a tree: a trunk, branches, and leaves around their ends; or, now and then, none."""
    rng = stage.rng
    bark = stage.paint(make_tube(np.array([[0, 0, 0], [0, 0, 0.1]]), 0.1), draw_wood(rng, 0.4 * height)).materials[0]
    thickness = height * rng.uniform(0.02, 0.04)
    top = np.array([*(0.08 * height * rng.normal(size=2)), 0.75 * height])
    trunk = _bend_path(rng, np.zeros(3), top, 0.04, 9)
    parts = [make_tube(trunk, thickness * np.linspace(1, 0.35, len(trunk)), 10).paint(int(bark))]
    ends = []
    for _ in range(int(rng.integers(9, 16))):
        start = trunk[int(rng.integers(3, len(trunk)))]
        reach = height * rng.uniform(0.2, 0.42)
        direction = rng.normal(size=3) * np.array([1, 1, 0.4]) + np.array([0, 0, 0.5])
        end = start + reach * direction / np.linalg.norm(direction)
        branch = _bend_path(rng, start, end, 0.1)
        parts.append(make_tube(branch, 0.4 * thickness * np.linspace(1, 0.25, len(branch)), 5).paint(int(bark)))
        ends += [branch[3], branch[5], branch[6]]
    if rng.random() < 0.9:
        centers = np.array(ends)[rng.integers(len(ends), size=num_leaves)]
        roots = centers + 0.09 * height * rng.normal(size=(num_leaves, 3)) * np.array([1, 1, 0.8])
        roots[:, 2] = np.maximum(roots[:, 2], 0.05 * height)
        lengths = height * rng.uniform(0.025, 0.06, num_leaves)
        leaves = make_leaves(roots, _draw_directions(rng, num_leaves), lengths, rng, slimness=rng.uniform(0.3, 0.7))
        parts.append(stage.paint(leaves, draw_leaf(rng)))
    return join(parts)


def make_bush(stage: Stage, size: float, *, num_leaves: int = 1200) -> Mesh:
    """Make a bush or hedge of leaves in a lump."""
    rng = stage.rng
    directions = _draw_directions(rng, num_leaves)
    depth = rng.uniform(0.55, 1.0, num_leaves)[:, None] ** 0.5
    shape = np.array([rng.uniform(0.7, 1.2), rng.uniform(0.7, 1.2), rng.uniform(0.6, 1.1)]) * 0.5 * size
    roots = directions * depth * shape + np.array([0, 0, 0.8 * shape[2]])
    keep = roots[:, 2] > 0
    roots, directions = roots[keep], directions[keep] + 0.6 * rng.normal(size=(int(keep.sum()), 3))
    lengths = size * rng.uniform(0.05, 0.12, len(roots))
    return stage.paint(make_leaves(roots, directions, lengths, rng, slimness=rng.uniform(0.25, 0.7)), draw_leaf(rng))


def make_grass(stage: Stage, roots: Float[ndarray, "N 3"], height: float) -> Mesh:
    """Make blades of grass, and some flowers, at given roots."""
    rng, num = stage.rng, len(roots)
    directions = 0.35 * rng.normal(size=(num, 3)) + np.array([0, 0, 1.0])
    lengths = height * rng.uniform(0.4, 1.2, num)
    blades = make_leaves(roots, directions, lengths, rng, slimness=rng.uniform(0.08, 0.16), droop=rng.uniform(0, 0.3))
    parts = [stage.paint(blades, draw_leaf(rng))]
    flowers = roots[: num // 12] + np.array([0, 0, 0.8 * height])
    if len(flowers) and rng.random() < 0.6:
        around = np.repeat(flowers, 5, axis=0)
        petals = _draw_directions(rng, len(around), 0.3)
        sizes = np.full(len(around), 0.35 * height)
        parts.append(stage.paint(make_leaves(around, petals, sizes, rng, slimness=0.7, droop=0.1), draw_petals(rng)))
    return join(parts)


def draw_petals(rng: np.random.Generator) -> Material:
    """Draw the material of petals: leaves in strong colors."""
    colors = draw_palette(rng, saturation=rng.uniform(0.2, 0.9), value=0.8, spread=0.12)
    return replace(draw_leaf(rng), colors=colors)


def make_potted_plant(stage: Stage, size: float) -> Mesh:
    """Make a pot with long leaves or a small bush."""
    rng = stage.rng
    pot = np.array([(0, 0), (0.13, 0), (0.2, 0.3), (0.22, 0.3), (0.22, 0.34), (0.17, 0.34), (0.16, 0.28), (0, 0.28)])
    parts = [stage.paint(make_lathe(size * pot), (draw_paint if rng.random() < 0.5 else draw_stone)(rng, 0.4 * size))]
    if rng.random() < 0.5:
        num = int(rng.integers(40, 120))
        roots = np.zeros((num, 3)) + np.array([0, 0, 0.27 * size]) + 0.05 * size * rng.normal(size=(num, 3)) * [1, 1, 0]
        lengths = size * rng.uniform(0.35, 0.75, num)
        leaves = make_leaves(roots, _draw_directions(rng, num, 1.2), lengths, rng, slimness=0.14, droop=0.35)
        parts.append(stage.paint(leaves, draw_leaf(rng)))
    else:
        parts.append(make_bush(stage, 0.7 * size, num_leaves=500).place((0, 0, 0.25 * size)))
    return join(parts)


def make_stone(stage: Stage, size: float) -> Mesh:
    """Make a rock: a ball that noise displaces."""
    rng = stage.rng
    rock = make_ellipsoid(resolution=36, displacement=0.35, frequency=1.3, seed=int(rng.integers(10**6)))
    scale = 0.5 * size * np.array([rng.uniform(0.7, 1.1), rng.uniform(0.7, 1.1), rng.uniform(0.5, 0.9)])
    rock = stage.paint(rock, draw_stone(rng, 1.0))
    return rock.place((0, 0, 0.6 * scale[2]), scale=scale.tolist(), turn_rad=rng.uniform(0, 6))
