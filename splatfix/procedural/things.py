"""Things: ornaments, furniture, houses, fences and poles, all of which stand on the origin."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from splatfix.procedural.materials import (
    draw_bricks,
    draw_fabric,
    draw_material,
    draw_metal,
    draw_paint,
    draw_painting,
    draw_print,
    draw_stone,
    draw_wood,
)
from splatfix.procedural.meshes import (
    Mesh,
    join,
    make_box,
    make_cylinder,
    make_ellipsoid,
    make_lathe,
    make_surface,
    make_torus,
    make_tube,
)
from splatfix.procedural.plants import make_potted_plant, make_stone
from splatfix.procedural.stage import Stage

ACROSS = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # a rotation that takes z to x


def make_vase(stage: Stage, size: float) -> Mesh:
    """Make a vase or jug with a random outline, and now and then a handle."""
    rng = stage.rng
    heights = np.linspace(0, 1, 24)
    knots = rng.uniform(0.12, 0.42, 5)
    radii = np.interp(heights, np.linspace(0, 1, 5), knots)
    radii = np.convolve(np.pad(radii, 3, mode="edge"), np.ones(7) / 7, mode="valid")
    outer = np.stack([radii, heights], axis=1)
    profile = np.concatenate([[(0, 0)], outer, [(radii[-1] - 0.03, 1.0), (radii[-1] - 0.04, 0.9), (0, 0.85)]])
    parts = [make_lathe(size * profile)]
    if rng.random() < 0.4:
        bow = np.linspace(-1.2, 1.2, 12)
        reach = float(radii[12:18].mean())
        loop = np.stack([reach + 0.22 * np.cos(bow), 0 * bow, 0.62 + 0.25 * np.sin(bow)], axis=1)
        parts.append(make_tube(size * loop, 0.03 * size))
    return stage.paint(join(parts), draw_material(stage.rng, size))


def make_books(stage: Stage, size: float) -> Mesh:
    """Make a pile of books or boxes, each turned a little."""
    rng, height, parts = stage.rng, 0.0, []
    for _ in range(int(rng.integers(2, 6))):
        x, y, z = rng.uniform(0.6, 1.0) * size, rng.uniform(0.4, 0.7) * size, rng.uniform(0.06, 0.22) * size
        book = stage.paint(make_box((x, y, z)), (draw_print if rng.random() < 0.6 else draw_material)(rng, 0.8 * size))
        parts.append(book.place((*(0.04 * size * rng.normal(size=2)), height + z / 2), turn_rad=0.25 * rng.normal()))
        height += z
    return join(parts)


def make_frame(stage: Stage, size: float) -> Mesh:
    """Make a crate or cage of thin bars, with something in it."""
    rng, half, parts = stage.rng, 0.5 * size * stage.rng.uniform(0.6, 1.0, 3), []
    thickness = size * rng.uniform(0.015, 0.04)
    for a in (-1, 1):
        for b in (-1, 1):
            parts.append(
                make_tube(np.array([[a * half[0], b * half[1], 0], [a * half[0], b * half[1], 2 * half[2]]]), thickness)
            )
            for z in (thickness, 2 * half[2]):
                parts.append(make_tube(np.array([[-half[0], b * half[1], z], [half[0], b * half[1], z]]), thickness))
                parts.append(make_tube(np.array([[a * half[0], -half[1], z], [a * half[0], half[1], z]]), thickness))
    inner = make_ellipsoid(float(rng.uniform(0.4, 1.0))).place((0, 0, 0.9 * half.min()), scale=0.75 * float(half.min()))
    bars = stage.paint(join(parts), (draw_metal if rng.random() < 0.5 else draw_wood)(rng, 0.3 * size))
    return join([bars, stage.paint(inner, draw_material(rng, 1.0))])


def make_ring(stage: Stage, size: float) -> Mesh:
    """Make a ring that stands or lies."""
    rng = stage.rng
    thickness = rng.uniform(0.1, 0.3)
    ring, scale = make_torus(1.0, thickness), 0.5 * size / (1 + thickness)
    if rng.random() < 0.5:
        ring = ring.place((0, 0, 0.5 * size), rotation=ACROSS, scale=scale)
    else:
        ring = ring.place((0, 0, thickness * scale), scale=scale)
    return stage.paint(ring, draw_material(rng, 2.0))


def make_ball(stage: Stage, size: float) -> Mesh:
    """Make a ball, an egg or a rounded box; now and then lumpy."""
    rng = stage.rng
    lumps = float(rng.choice([0.0, 0.15, 0.3]))
    ball = make_ellipsoid(
        float(rng.choice([1.0, 0.4, 0.7])), displacement=lumps, frequency=1.5, seed=int(rng.integers(10**6))
    )
    scale = 0.5 * size * rng.uniform(0.7, 1.0, 3)
    return stage.paint(ball, draw_material(rng, 1.5)).place((0, 0, 0.95 * scale[2]), scale=scale.tolist())


def make_can(stage: Stage, size: float) -> Mesh:
    """Make a can, barrel, cone or cup."""
    rng = stage.rng
    height, radius = size * rng.uniform(0.6, 1.0), size * rng.uniform(0.2, 0.4)
    can = make_cylinder(radius, height, top=float(rng.choice([1.0, 1.0, 0.1, 0.7, 1.25])))
    return stage.paint(can, draw_material(rng, size))


def make_block(stage: Stage, size: float) -> Mesh:
    """Make a box of any proportions."""
    rng = stage.rng
    x, y, z = size * rng.uniform(0.35, 0.9, 3)
    return stage.paint(make_box((x, y, z)), draw_material(rng, size)).place((0, 0, z / 2))


def make_figure(stage: Stage, size: float) -> Mesh:
    """Make a doll of a few rounded parts with arms."""
    rng = stage.rng
    parts = [make_ellipsoid(0.8).place((0, 0, 0.3 * size), scale=[0.2 * size, 0.16 * size, 0.3 * size])]
    head = make_ellipsoid(displacement=0.08, seed=int(rng.integers(999))).place((0, 0, 0.74 * size), scale=0.17 * size)
    for side in (-1, 1):
        hand = np.array([side * 0.36 * size, 0.1 * size * rng.normal(), rng.uniform(0.2, 0.8) * size])
        shoulder = np.array([side * 0.15 * size, 0, 0.48 * size])
        parts.append(make_tube(np.linspace(shoulder, hand, 5), 0.045 * size))
    return join([stage.paint(join(parts), draw_fabric(rng, size)), stage.paint(head, draw_material(rng, size))])


Maker = Callable[[Stage, float], Mesh]
ORNAMENTS: tuple[Maker, ...] = (
    *(make_vase, make_vase, make_books, make_frame, make_ring, make_ball, make_can, make_block, make_figure),
    *(make_stone, make_potted_plant),
)


def make_ornament(stage: Stage, size: float) -> Mesh:
    """Make a random thing of about a given size, turned at random."""
    maker = ORNAMENTS[int(stage.rng.integers(len(ORNAMENTS)))]
    return maker(stage, size).place(turn_rad=stage.rng.uniform(0, 2 * np.pi))


def scatter_ornaments(stage: Stage, num: int, half: tuple[float, float], size: float, height: float) -> Mesh:
    """Put things of about ``size`` on a rectangle at a height, apart from each other where there is room."""
    rng, placed, parts = stage.rng, list[np.ndarray](), []
    for _ in range(num):
        tries = rng.uniform(-1, 1, (12, 2)) * np.array(half)
        gaps = [min((float(np.linalg.norm(each - other)) for other in placed), default=9e9) for each in tries]
        best = tries[int(np.argmax(np.minimum(gaps, 1.3 * size)))]
        placed.append(best)
        parts.append(make_ornament(stage, size * rng.uniform(0.6, 1.15)).place((*best, height)))
    return join(parts)


def make_table(stage: Stage, size: tuple[float, float], height: float) -> Mesh:
    """Make a table or desk with four legs."""
    x, y = size
    parts = [make_box((x, y, 0.05), solid=True).place((0, 0, height - 0.025))]
    for a in (-1, 1):
        for b in (-1, 1):
            leg = make_box((0.06, 0.06, height - 0.05), solid=True)
            parts.append(leg.place((a * (x / 2 - 0.06), b * (y / 2 - 0.06), (height - 0.05) / 2)))
    return stage.paint(join(parts), (draw_wood if stage.rng.random() < 0.75 else draw_material)(stage.rng, 1.0))


def make_chair(stage: Stage) -> Mesh:
    """Make a chair with a back of bars."""
    rng, parts = stage.rng, list[Mesh]()
    for a in (-0.2, 0.2):
        parts.append(make_tube(np.array([[a, -0.2, 0], [a, -0.2, 0.45]]), 0.02))
        parts.append(make_tube(np.array([[a, 0.2, 0], [a, 0.2, 0.5], [a, 0.25, 0.95]]), 0.02))
    for z in np.linspace(0.6, 0.93, int(rng.integers(2, 5))):
        parts.append(make_tube(np.array([[-0.2, 0.2 + 0.1 * (z - 0.5), z], [0.2, 0.2 + 0.1 * (z - 0.5), z]]), 0.016))
    seat = make_box((0.46, 0.46, 0.05)).place((0, 0, 0.46))
    return join([stage.paint(join(parts), draw_wood(rng, 0.5)), stage.paint(seat, draw_fabric(rng, 0.6))])


def make_shelf(stage: Stage, width: float, height: float) -> Mesh:
    """Make a shelf with rows of books and things; its back is at y = 0, and it opens to -y."""
    rng, depth = stage.rng, 0.32
    wood = draw_wood(rng, 1.0)
    frame = [make_box((width, 0.02, height), solid=True).place((0, -0.01, height / 2))]
    for x in (-width / 2, width / 2):
        frame.append(make_box((0.03, depth, height), solid=True).place((x, -depth / 2, height / 2)))
    levels = np.linspace(0.03, height - 0.02, round(height / 0.4) + 1)
    frame += [make_box((width, depth, 0.03), solid=True).place((0, -depth / 2, z)) for z in levels]
    parts = [stage.paint(join(frame), wood)]
    covers = [stage.paint(make_box((1, 1, 1)), draw_print(rng, 0.3)).materials[0] for _ in range(4)]
    covers += [stage.paint(make_box((1, 1, 1)), draw_paint(rng, 0.4)).materials[0] for _ in range(4)]
    for z, above in pairwise(levels):
        x, room = -width / 2 + 0.04, above - z - 0.03
        while x < width / 2 - 0.12:
            if rng.random() < 0.07:
                size = min(0.22, 0.8 * room)
                parts.append(make_ornament(stage, size).place((x + size / 2, -depth / 2, z + 0.015)))
                x += 1.2 * size
                continue
            thick, tall = rng.uniform(0.018, 0.06), room * rng.uniform(0.6, 0.95)
            book = make_box((thick, 0.2, tall)).place(
                (x + thick / 2, -0.13 - 0.04 * rng.random(), z + 0.015 + tall / 2)
            )
            parts.append(book.paint(int(covers[int(rng.integers(len(covers)))])))
            x += thick + 0.003
    return join(parts)


def make_sofa(stage: Stage, width: float) -> Mesh:
    """Make a sofa or bed of rounded cushions; its back is at y = 0."""
    rng = stage.rng
    cloth = draw_fabric(rng, 1.0)

    def cushion(x: float, y: float, z: float, size: tuple[float, float, float]) -> Mesh:
        return make_ellipsoid(0.3, 32).place((x, y, z), scale=[0.5 * each for each in size])

    base = [cushion(0, -0.45, 0.22, (width, 0.9, 0.44)), cushion(0, -0.12, 0.5, (width, 0.28, 0.8))]
    base += [cushion(side * width / 2, -0.45, 0.32, (0.22, 0.9, 0.62)) for side in (-1, 1)]
    parts = [stage.paint(join(base), cloth)]
    for _ in range(int(rng.integers(1, 4))):
        pillow = cushion(rng.uniform(-0.35, 0.35) * width, -0.36, 0.62, (0.45, 0.2, 0.42))
        parts.append(stage.paint(pillow, draw_fabric(rng, 0.5)))
    return join(parts)


def make_picture(stage: Stage, size: tuple[float, float]) -> Mesh:
    """Make a framed picture or poster in the plane y = 0 that faces -y; its middle is the origin."""
    x, z = size
    frame = make_box((x + 0.06, 0.03, z + 0.06), solid=True)
    sheet = make_box((x, 0.036, z))
    draw = draw_print if stage.rng.random() < 0.5 else draw_painting
    return join([
        stage.paint(frame, draw_wood(stage.rng, 0.5)), stage.paint(sheet, draw(stage.rng, float(max(size))))
    ])  # fmt: skip


def make_curtain(stage: Stage, width: float, height: float) -> Mesh:
    """Make a curtain with folds, hung at y = 0; its middle below is the origin."""
    x, z = np.linspace(-width / 2, width / 2, 60), np.linspace(0, height, 6)
    folds = 0.04 * np.sin(2 * np.pi * x / 0.16 + stage.rng.uniform(0, 6))
    points = np.stack([*np.meshgrid(x, z, indexing="ij"), np.broadcast_to(folds[:, None], (60, 6))], axis=2)
    return stage.paint(make_surface(points[..., [0, 2, 1]]), draw_fabric(stage.rng, 0.8))


def make_house(stage: Stage, size: tuple[float, float, float]) -> Mesh:
    """Make a house with windows, a door and a gable or flat roof."""
    rng, (x, y, z) = stage.rng, size
    wall = (draw_bricks(rng, 0.5) if rng.random() < 0.6 else draw_stone(rng, 1.5))  # fmt: skip
    parts = [stage.paint(make_box(size), wall).place((0, 0, z / 2))]
    glass, sill = draw_paint(rng, 2.0), draw_stone(rng, 1.0)
    panes, sills = [], []
    for side, (width, depth) in enumerate(((x, y), (y, x), (x, y), (y, x))):
        for column in np.arange(-width / 2 + 0.9, width / 2 - 0.5, 1.8):
            for row in np.arange(1.4, z - 0.4, 2.4):
                turn = side * np.pi / 2
                spot = np.array([column, -depth / 2, row])
                c, s = np.cos(turn), np.sin(turn)
                place = (c * spot[0] - s * spot[1], s * spot[0] + c * spot[1], spot[2])
                panes.append(make_box((0.8, 0.06, 1.1)).place(place, turn_rad=turn))
                sills.append(make_box((1.0, 0.16, 0.1)).place((place[0], place[1], place[2] - 0.6), turn_rad=turn))
    if panes:
        parts += [stage.paint(join(panes), glass), stage.paint(join(sills), sill)]
    roof = draw_bricks(rng, 0.35)
    if rng.random() < 0.7:
        slope = rng.uniform(0.4, 0.8)
        rise = 0.5 * y * slope
        gable = np.array([[-x / 2, x / 2], [x / 2, x / 2]])
        slabs = []
        for side in (-1, 1):
            length = 0.55 * y * np.hypot(1, slope)
            angle = -side * np.arctan(slope)
            tilted = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
            slabs.append(
                make_box((x + 0.5, length, 0.12)).place((0, side * 0.27 * y, z + 0.46 * rise), rotation=tilted)
            )
        for end in gable[:, 0]:  # the walls below the roof, as a stack of narrowing boxes
            for level in np.linspace(0, 1, 8)[:-1]:
                layer = make_box((0.2, y * (1 - level) - 0.1, rise / 7))
                slabs.append(layer.place((end - 0.1 * np.sign(end), 0, z + rise * (level + 1 / 14))))
        parts.append(stage.paint(join(slabs), roof))
    else:
        parts.append(stage.paint(make_box((x + 0.3, y + 0.3, 0.2)), draw_stone(rng, 1.5)).place((0, 0, z + 0.1)))
    return join(parts)


def make_fence(stage: Stage, length: float, height: float) -> Mesh:
    """Make a fence of posts with rails, pickets or wires along x."""
    rng = stage.rng
    xs = np.arange(-length / 2, length / 2 + 0.01, 1.2)
    posts = [make_cylinder(0.05, height, segments=10).place((x, 0, 0)) for x in xs]
    kind = int(rng.integers(3))
    ends = np.array([[-length / 2, 0, 0], [length / 2, 0, 0]])
    if kind == 0:
        posts += [make_tube(ends + np.array([0, 0, z]), 0.012, 6) for z in np.linspace(0.25, 0.95, 4) * height]
    else:
        posts += [make_box((length, 0.03, 0.08), solid=True).place((0, 0, z * height)) for z in (0.3, 0.8)]
    if kind == 2:
        slats = np.arange(-length / 2, length / 2, 0.16)
        posts += [make_box((0.09, 0.02, 0.9 * height), solid=True).place((x, -0.03, 0.5 * height)) for x in slats]
    return stage.paint(join(posts), (draw_wood if rng.random() < 0.7 else draw_metal)(rng, 0.4))


def make_pole(stage: Stage, height: float) -> Mesh:
    """Make a lamp post or a mast with wires."""
    rng = stage.rng
    parts = [make_cylinder(0.02 * height, height, top=0.6, segments=12)]
    for _ in range(int(rng.integers(1, 4))):
        angle, reach = rng.uniform(0, 2 * np.pi), height * rng.uniform(0.2, 0.9)
        t = np.linspace(0, 1, 9)[:, None]
        end = np.array([reach * np.cos(angle), reach * np.sin(angle), height * rng.uniform(0, 1)])
        wire = np.array([0, 0, 0.97 * height]) * (1 - t) + end * t - np.array([0, 0, 0.1 * height]) * np.sin(np.pi * t)
        wire[:, 2] = np.maximum(wire[:, 2], 0.02)
        parts.append(make_tube(wire, 0.004 * height, 5))
    lamp = make_ellipsoid(0.6, 20).place((0, 0, height), scale=0.06 * height)
    return join(
        [stage.paint(join(parts), draw_metal(rng, 0.5 * height)), stage.paint(lamp, draw_paint(rng, 0.3 * height))]
    )
