"""Layouts: the kinds of scene, each of which fills a stage with things, light, and where cameras go."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from splatfix.procedural.casting.noise import sample_noise
from splatfix.procedural.materials import draw_bricks, draw_fabric, draw_material, draw_soil, draw_stone, draw_wood
from splatfix.procedural.meshes import join, make_box, make_cylinder, make_lathe, make_surface, make_terrain
from splatfix.procedural.plants import make_bush, make_grass, make_potted_plant, make_stone, make_tree
from splatfix.procedural.stage import Stage, add_lamp, light_outdoors
from splatfix.procedural.things import (
    make_chair,
    make_curtain,
    make_fence,
    make_house,
    make_ornament,
    make_picture,
    make_pole,
    make_shelf,
    make_sofa,
    make_table,
    scatter_ornaments,
)
from splatfix.shapes import Float

LEFT, RIGHT = np.pi / 2, -np.pi / 2


def _add_room(stage: Stage, half: Float[np.ndarray, "2"], height: float) -> None:
    """Add floor, ceiling and walls of a room around the origin, one wall with a window, and its light."""
    rng, (x, y) = stage.rng, half
    light_outdoors(stage)
    floor = (draw_wood, draw_bricks, draw_fabric)[int(rng.integers(3))]
    floor_size = 0.45 if floor is draw_bricks else 1.0
    stage.add(stage.paint(make_box((2 * x, 2 * y, 0.2)), floor(rng, floor_size)).place((0, 0, -0.1)))
    stage.add(stage.paint(make_box((2 * x, 2 * y, 0.2)), draw_stone(rng, 2.0)).place((0, 0, height + 0.1)))
    paper = (draw_fabric, draw_stone, draw_stone, draw_bricks)[int(rng.integers(4))]
    wall = paper(rng, 0.4 if paper is draw_bricks else 1.0)
    other = draw_fabric(rng, 1.0) if rng.random() < 0.3 else wall
    for side in (-1, 1):
        stage.add(stage.paint(make_box((0.2, 2 * y + 0.4, height)), wall).place((side * (x + 0.1), 0, height / 2)))
    stage.add(stage.paint(make_box((2 * x, 0.2, height)), other).place((0, -y - 0.1, height / 2)))
    width, low, high = rng.uniform(0.5, 1.2) * x, 0.9, height - 0.35
    jambs = [
        make_box((x - width / 2, 0.2, height)).place((side * (x / 2 + width / 4), y + 0.1, height / 2))
        for side in (-1, 1)
    ]
    jambs += [make_box((width, 0.2, low)).place((0, y + 0.1, low / 2))]
    jambs += [make_box((width, 0.2, height - high)).place((0, y + 0.1, (high + height) / 2))]
    stage.add(stage.paint(join(jambs), wall))
    bars = [
        make_box((0.05, 0.06, high - low), solid=True).place((a * width, y + 0.1, (low + high) / 2))
        for a in (-0.5, 0, 0.5)
    ]
    bars += [
        make_box((width, 0.06, 0.05), solid=True).place((0, y + 0.1, z)) for z in (low, low + 0.6 * (high - low), high)
    ]
    stage.add(stage.paint(join(bars), draw_wood(rng, 0.5)))
    if rng.random() < 0.5:
        for side in (-1, 1):
            curtain = make_curtain(stage, 0.45, high - 0.2)
            stage.add(curtain.place((side * (width / 2 + 0.1), y - 0.07, 0.3)))
    # the sun shines through the window, not too steeply
    angle, turn = np.deg2rad(rng.uniform(20, 45)), np.deg2rad(rng.uniform(-50, 50))
    stage.lights[0][1:4] = [np.cos(angle) * np.sin(turn), np.cos(angle) * np.cos(turn), np.sin(angle)]
    stage.sky[12:15] = stage.lights[0][1:4]
    spot = np.array([rng.uniform(-0.4, 0.4) * x, rng.uniform(-0.4, 0.4) * y, height - rng.uniform(0.35, 0.6)])
    add_lamp(stage, spot, rng.uniform(0.8, 1.8))
    shade = make_lathe(np.array([(0.16, 0.0), (0.22, 0.02), (0.1, 0.2), (0.02, 0.22), (0.015, 0.8)]))
    stage.add(stage.paint(shade, draw_fabric(rng, 0.3)).place(spot + np.array([0, 0, 0.13])))
    stage.sky[16] = 0.25
    stage.box = np.array([[-x, -y, 0.0], [x, y, height]])


def _furnish(stage: Stage, half: Float[np.ndarray, "2"], height: float) -> None:
    """Put furniture along the walls of a room, and pictures on them."""
    rng, (x, y) = stage.rng, half
    walls = [((0.0, -1.0), np.pi, x, y), ((-1.0, 0.0), LEFT, y, x), ((1.0, 0.0), RIGHT, y, x)]
    for (nx, ny), turn, along, away in walls:
        spots = np.arange(-along + 0.9, along - 0.6, rng.uniform(1.4, 1.7))
        for spot in spots:
            place = np.array([nx * away + abs(ny) * spot, ny * away + abs(nx) * spot, 0.0])
            inward = np.array([-nx, -ny, 0.0])
            kind = rng.choice(["shelf", "shelf", "sofa", "table", "table", "plant", "cupboard", "chair"])
            if kind == "shelf":
                tall = rng.uniform(1.1, min(2.1, height - 0.3))
                stage.add(make_shelf(stage, rng.uniform(0.8, 1.4), tall).place(place, turn_rad=turn))
            elif kind == "sofa":
                stage.add(make_sofa(stage, 1.3).place(place, turn_rad=turn))
            elif kind == "table":
                desk = make_table(stage, (1.2, 0.6), 0.75)
                load = scatter_ornaments(stage, int(rng.integers(2, 5)), (0.45, 0.2), 0.22, 0.75)
                stage.add(join([desk, load]).place(place + 0.35 * inward, turn_rad=turn))
            elif kind == "plant":
                stage.add(make_potted_plant(stage, rng.uniform(0.6, 1.2)).place(place + 0.4 * inward))
            elif kind == "cupboard":
                size = (rng.uniform(0.7, 1.2), 0.45, rng.uniform(0.6, 1.0))
                body = stage.paint(make_box(size, solid=True), draw_wood(rng, 1.0)).place((0, -0.23, size[2] / 2))
                load = scatter_ornaments(stage, 2, (0.3, 0.1), 0.3, size[2]).place((0, -0.22, 0))
                stage.add(join([body, load]).place(place, turn_rad=turn))
            elif kind == "chair":
                stage.add(make_chair(stage).place(place + 0.4 * inward, turn_rad=turn + 0.3 * rng.normal()))
            if kind != "shelf" and rng.random() < 0.6:
                picture = make_picture(stage, (rng.uniform(0.35, 0.8), rng.uniform(0.35, 0.7)))
                stage.add(picture.place(place + 0.02 * inward + np.array([0, 0, 1.65]), turn_rad=turn))


def lay_out_room(stage: Stage) -> None:
    """A furnished room, photographed from inside."""
    rng = stage.rng
    half, height = np.array([rng.uniform(1.8, 3.0), rng.uniform(1.8, 3.2)]), rng.uniform(2.4, 3.0)
    _add_room(stage, half, height)
    _furnish(stage, half, height)
    if rng.random() < 0.6:
        rug = make_box((0.9 * half[0], 0.9 * half[1], 0.02))
        stage.add(stage.paint(rug, draw_fabric(rng, 1.0)).place((0, 0, 0.01)))
    if rng.random() < 0.6:
        table = make_table(stage, (0.8, 0.8), 0.45)
        stage.add(table, scatter_ornaments(stage, 3, (0.25, 0.25), 0.25, 0.45))
    stage.path = "inside"
    stage.focus, stage.reach = np.array([0, 0, 0.5 * height]), np.array([*half, 0.5 * height])


def _add_ground(stage: Stage, size: float, hills: float, *, flat: float) -> int:
    """Add ground that is flat within a radius and rises to hills far away; returns its material."""
    rng, num = stage.rng, 110
    line = np.sinh(np.linspace(-3, 3, num)) / np.sinh(3) * size
    x, y = np.meshgrid(line, line, indexing="ij")
    points = np.stack([x, y, np.zeros_like(x)], axis=2)
    far = np.clip((np.hypot(x, y) - flat) / flat, 0, None)
    bumps = sample_noise(points / flat, 4, int(rng.integers(10**6)))
    heights = 0.02 * flat * bumps * np.minimum(far, 1) + hills * np.minimum(far / 6, 1) * (0.35 + np.abs(bumps))
    ground = make_surface(np.stack([x, y, heights], axis=2))
    stage.add(stage.paint(ground, draw_soil(rng, 0.15 * flat)))
    return len(stage.materials) - 1


def _scatter_around(stage: Stage, num: int, near: float, far: float) -> np.ndarray:
    """Draw places on the ground between two distances from the middle."""
    angle, distance = stage.rng.uniform(0, 2 * np.pi, num), stage.rng.uniform(near, far, num)
    return np.stack([distance * np.cos(angle), distance * np.sin(angle), np.zeros(num)], axis=1)


def lay_out_object(stage: Stage) -> None:
    """One thing or a few on a table in a room, or on a pedestal outdoors, photographed all around."""
    rng = stage.rng
    size, num = rng.uniform(0.35, 0.6), int(rng.choice([1, 2, 3, 5]))
    if rng.random() < 0.55:
        half, height, top = rng.uniform(2.3, 3.2, 2), 2.8, 0.72
        _add_room(stage, half, height)
        _furnish(stage, half, height)
        stage.add(make_table(stage, (1.5, 1.5) if num > 2 else (1.1, 1.1), top))
    else:
        light_outdoors(stage)
        _add_ground(stage, 120.0, rng.uniform(4, 15), flat=4.0)
        for place in _scatter_around(stage, 14, 4.5, 14.0):
            stage.add(_draw_backdrop(stage).place(place, turn_rad=rng.uniform(0, 6)))
        top = rng.uniform(0.15, 0.7)
        wide = 0.9 if num < 3 else 1.3
        base = (
            make_cylinder(wide / 2, top) if rng.random() < 0.5 else make_box((wide, wide, top)).place((0, 0, top / 2))
        )
        stage.add(stage.paint(base, draw_stone(rng, 0.8) if rng.random() < 0.6 else draw_wood(rng, 0.8)))
        stage.box = np.array([[-4.0, -4, -0.2], [4, 4, 3.5]])
        stage.sky[16] = 0.5
    spread = 0.12 if num == 1 else 0.42
    stage.add(scatter_ornaments(stage, num, (spread, spread), size if num < 3 else 0.7 * size, top))
    stage.focus, stage.reach = np.array([0, 0, top + 0.35 * size]), np.full(3, 0.5 * size + 0.45 * spread)


def _draw_backdrop(stage: Stage):
    rng = stage.rng
    kind = rng.choice(
        ["tree", "bush", "bush", "stone", "fence", "house", "pole"], p=[0.2, 0.2, 0.2, 0.15, 0.1, 0.1, 0.05]
    )
    if kind == "tree":
        return make_tree(stage, rng.uniform(2.5, 5), num_leaves=1200)
    if kind == "bush":
        return make_bush(stage, rng.uniform(0.8, 2.0), num_leaves=700)
    if kind == "stone":
        return make_stone(stage, rng.uniform(0.5, 1.5))
    if kind == "fence":
        return make_fence(stage, 3.6, rng.uniform(0.8, 1.4))
    if kind == "house":
        return make_house(stage, (rng.uniform(3, 5), rng.uniform(3, 4), rng.uniform(2.4, 4.5)))
    return make_pole(stage, rng.uniform(2.5, 4))


def lay_out_garden(stage: Stage) -> None:
    """Trees, bushes, grass, stones, a fence and poles around a middle, photographed from a walk around it."""
    rng = stage.rng
    light_outdoors(stage)
    _add_ground(stage, 200.0, rng.uniform(6, 25), flat=7.0)
    middle = rng.choice(["tree", "house", "group", "bench"])
    if middle == "tree":
        stage.add(make_tree(stage, rng.uniform(2.6, 3.6), num_leaves=2600))
    elif middle == "house":
        stage.add(make_house(stage, (rng.uniform(1.8, 2.6), rng.uniform(1.6, 2.2), rng.uniform(1.6, 2.4))))
    elif middle == "bench":
        stage.add(make_table(stage, (1.6, 0.9), 0.75), scatter_ornaments(stage, 4, (0.6, 0.3), 0.35, 0.75))
        stage.add(*(make_chair(stage).place((x, 0.8, 0), turn_rad=0.3 * rng.normal()) for x in (-0.5, 0.5)))
    else:
        stage.add(scatter_ornaments(stage, 6, (1.3, 1.3), 0.9, 0.0))
    for place in _scatter_around(stage, 5, 1.2, 2.3):
        maker = (make_bush, make_stone, make_potted_plant, make_ornament)[int(rng.integers(4))]
        stage.add(maker(stage, rng.uniform(0.4, 0.9)).place(place))
    for place in _scatter_around(stage, 16, 6.5, 16.0):
        stage.add(_draw_backdrop(stage).place(place, turn_rad=rng.uniform(0, 6)))
    stage.add(make_fence(stage, 4.8, 1.0).place((0, 2.6, 0)).place(turn_rad=rng.uniform(0, 6)))
    centers = rng.uniform(-2.6, 2.6, (14, 2))
    roots = centers[rng.integers(len(centers), size=2200)] + 0.35 * rng.normal(size=(2200, 2))
    stage.add(make_grass(stage, np.concatenate([roots, np.zeros((2200, 1))], axis=1), rng.uniform(0.12, 0.3)))
    stage.focus, stage.reach = np.array([0, 0, 0.7]), np.full(3, 1.7)
    stage.box = np.array([[-6.0, -6, -0.2], [6, 6, 5]])
    stage.sky[15:17] = 0.4, 0.5
    stage.sky[11] = rng.uniform(0, 0.004)


def lay_out_front(stage: Stage) -> None:
    """Things before a wall, photographed from the front: a shelf, a market stall, plants, a desk."""
    rng = stage.rng
    indoors = rng.random() < 0.5
    if indoors:
        half, height = np.array([rng.uniform(1.6, 2.2), rng.uniform(2.2, 2.8)]), 2.6
        _add_room(stage, half, height)
        back, has_wall = half[1], True
    else:
        light_outdoors(stage)
        stage.lights[0][2] = -abs(stage.lights[0][2])  # the sun is behind the photographer
        _add_ground(stage, 100.0, rng.uniform(3, 10), flat=6.0)
        back = 2.0
        has_wall = bool(rng.random() < 0.6)
        if has_wall:
            wall = draw_bricks(rng, 0.4) if rng.random() < 0.6 else draw_stone(rng, 1.2)
            stage.add(stage.paint(make_box((7, 0.3, 2.6)), wall).place((0, -back - 0.15, 1.3)))
        else:
            stage.add(make_fence(stage, 7.2, 1.3).place((0, -back, 0)))
            for x in np.linspace(-6, 6, 7):
                stage.add(make_tree(stage, rng.uniform(2, 4), num_leaves=1000).place((x, -back - rng.uniform(1, 4), 0)))
        stage.box = np.array([[-4.0, -4, -0.1], [4, 4, 3.5]])
        stage.sky[16] = 0.5
    kind = rng.choice(["shelf", "table", "plants", "pile"])
    if kind == "shelf":
        for x in (-0.75, 0.75):
            stage.add(make_shelf(stage, 1.4, rng.uniform(1.2, 2.0)).place((x, -back, 0), turn_rad=np.pi))
        stage.add(scatter_ornaments(stage, 4, (1.2, 0.35), 0.5, 0.0).place((0, -back + 1.0, 0)))
    elif kind == "table":
        stage.add(make_table(stage, (2.4, 0.9), 0.75).place((0, -back + 0.7, 0)))
        stage.add(scatter_ornaments(stage, 9, (1.05, 0.35), 0.36, 0.75).place((0, -back + 0.7, 0)))
    elif kind == "plants":
        for _ in range(9):
            place = (rng.uniform(-1.6, 1.6), -back + rng.uniform(0.3, 1.5), 0)
            plant = (
                make_bush(stage, rng.uniform(0.6, 1.2))
                if rng.random() < 0.5
                else make_potted_plant(stage, rng.uniform(0.7, 1.3))
            )
            stage.add(plant.place(place))
    else:
        for level, num in enumerate((6, 4)):
            pile = scatter_ornaments(stage, num, (1.2 - 0.3 * level, 0.5), 0.7 - 0.15 * level, 0.0)
            stage.add(pile.place((0, -back + 0.5 + 0.7 * level, 0)))
    for x in np.linspace(-1.2, 1.2, 3) if has_wall else ():
        picture = make_picture(stage, (rng.uniform(0.4, 0.7), rng.uniform(0.3, 0.6)))
        spot = (x + 0.1 * rng.normal(), -back + 0.02, rng.uniform(1.5, 2.1))
        stage.add(picture.place(spot, turn_rad=np.pi))
    stage.path = "facing"
    stage.focus, stage.reach = np.array([0, -back + 0.7, 0.95]), np.array([1.3, 0.8, 0.8])


def lay_out_land(stage: Stage) -> None:
    """Hills or a village, photographed from above."""
    rng = stage.rng
    light_outdoors(stage)
    size, num = 60.0, 150
    line = np.linspace(-size, size, num)
    points = np.stack([*np.meshgrid(line, line, indexing="ij"), np.zeros((num, num))], axis=2)
    relief = rng.uniform(1.0, 9.0)
    heights = relief * sample_noise(points / rng.uniform(14, 30), 6, int(rng.integers(10**6)))
    if rng.random() < 0.4:  # terraces, cliffs
        step = relief / 3
        heights = 0.35 * heights + 0.65 * step * np.round(heights / step)
    stage.add(stage.paint(make_terrain(heights, (2 * size, 2 * size)), draw_soil(rng, 4.0, green=0.5)))

    def ground(x: float, y: float) -> float:
        i, j = (int(np.clip(np.round((each + size) / (2 * size) * (num - 1)), 0, num - 1)) for each in (x, y))
        return float(heights[i, j])

    houses = [make_house(stage, (rng.uniform(5, 9), rng.uniform(4, 7), rng.uniform(3, 8))) for _ in range(5)]
    trees = [make_tree(stage, rng.uniform(3, 7), num_leaves=500) for _ in range(3)]
    trees += [make_bush(stage, rng.uniform(2, 4), num_leaves=350) for _ in range(2)]
    others = [make_stone(stage, rng.uniform(1.5, 5)), make_pole(stage, 8.0), make_fence(stage, 9.6, 1.2)]
    village = rng.random() < 0.7
    for things, count, sink in ((houses, 22 if village else 4, 0.6), (trees, 60, 0.1), (others, 20, 0.1)):
        for _ in range(count):
            x, y = rng.uniform(-34, 34, 2)
            thing = things[int(rng.integers(len(things)))]
            stage.add(thing.place((x, y, ground(x, y) - sink), turn_rad=float(rng.choice([0, 1.57, 0.3, 2.2]))))
    if village:  # roads
        road = draw_material(rng, 4.0) if rng.random() < 0.2 else draw_stone(rng, 3.0)
        for offset in rng.uniform(-20, 20, 2):
            t = np.linspace(-size, size, 120)
            bend = offset + 5 * np.sin(t / 15 + offset)
            level = np.array([ground(a, b) for a, b in zip(t, bend, strict=True)])
            level = np.convolve(np.pad(level, 4, mode="edge"), np.ones(9) / 9, mode="valid") + 0.25
            rows = [np.stack([t, bend + side, level - 0.5 * (abs(side) > 2)], axis=1) for side in (-2.4, -2, 2, 2.4)]
            stage.add(stage.paint(make_surface(np.stack(rows, axis=1)), road))
    stage.path = "aerial"
    stage.focus, stage.reach = np.array([0, 0, float(np.mean(heights))]), np.array([14.0, 14, 6])
    stage.box = np.array([[-36.0, -36, heights.min() - 1], [36, 36, heights.max() + 12]])
    stage.sky[16] = 0.6
    stage.sky[11] = rng.uniform(0, 0.0015)


LAYOUTS: dict[str, tuple[Callable[[Stage], None], float]] = {  # with their shares of the scenes
    "object": (lay_out_object, 0.3),
    "room": (lay_out_room, 0.2),
    "front": (lay_out_front, 0.2),
    "garden": (lay_out_garden, 0.2),
    "land": (lay_out_land, 0.1),
}
