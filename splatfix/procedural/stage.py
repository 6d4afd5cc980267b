"""What the layouts fill: meshes with their materials, lights, a sky, and where cameras may be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy import ndarray

from splatfix.procedural.casting.columns import NUM_SKY
from splatfix.procedural.materials import Material, draw_palette, from_hsv
from splatfix.procedural.meshes import Mesh, join
from splatfix.shapes import Float

Path = Literal["orbit", "facing", "inside", "aerial"]


@dataclass
class Stage:
    """A scene while it is laid out; z points up, units are those of the layout (about a meter).

    Attributes:
        rng: source of all random choices.
        materials: in the order of their rows.
        meshes: everything that was added, painted.
        lights: rows of `CastScene.lights`.
        sky: row of the sky, ``[17]`` (`casting.columns`).
        box: least and largest corner of where indirect light is gathered, ``[2, 3]``.
        path: kind of the camera path.
        focus: middle of what cameras look at, ``[3]``.
        reach: half the size of what they look at; for an inside path the half sizes of the room, ``[3]``.
    """

    rng: np.random.Generator
    materials: list[Material] = field(default_factory=list)
    meshes: list[Mesh] = field(default_factory=list)
    lights: list[list[float]] = field(default_factory=list)
    sky: Float[ndarray, " K"] = field(default_factory=lambda: np.zeros(NUM_SKY))
    box: Float[ndarray, "2 3"] = field(default_factory=lambda: np.array([[-1.0, -1, -1], [1, 1, 1]]))
    path: Path = "orbit"
    focus: Float[ndarray, "3"] = field(default_factory=lambda: np.zeros(3))
    reach: Float[ndarray, "3"] = field(default_factory=lambda: np.ones(3))

    def paint(self, mesh: Mesh, material: Material | int) -> Mesh:
        """Paint a mesh, with a new material or one of this stage."""
        if isinstance(material, Material):
            self.materials.append(material)
            material = len(self.materials) - 1
        return mesh.paint(material)

    def add(self, *meshes: Mesh) -> None:
        """Add painted meshes to the scene."""
        self.meshes += meshes

    def mesh(self) -> Mesh:
        """All that was added."""
        return join(self.meshes)


def light_outdoors(stage: Stage) -> None:
    """Draw a sky and a sun: clear, hazy, cloudy or late in the day; all of it by daylight."""
    rng, sky = stage.rng, stage.sky
    sunny = rng.random() < 0.7
    elevation = np.deg2rad(rng.uniform(22, 70))
    azimuth = rng.uniform(0, 2 * np.pi)
    sun = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    blue = rng.uniform(0.15, 0.5) if sunny else rng.uniform(0.02, 0.12)
    sky[0:3] = np.array(from_hsv(0.59, blue * 1.3, 0.85)) * rng.uniform(0.7, 1.0)
    sky[3:6] = np.array(from_hsv(0.57, blue * 0.5, 0.95)) * rng.uniform(0.9, 1.15)
    sky[6:9] = np.array(draw_palette(rng, hue=0.15, saturation=0.25, value=0.45)[1])
    sky[9:12] = rng.uniform(0.2, 0.75) if sunny else rng.uniform(0.7, 1.0), rng.integers(1, 10**6), 0.0
    sky[12:15] = sun
    sky[15:17] = (0.5 if sunny else 0.1), 0.4
    warm = np.array([1.0, 0.93 - 0.2 * (1 - np.sin(elevation)) ** 2, 0.84 - 0.4 * (1 - np.sin(elevation)) ** 2])
    strength = rng.uniform(1.6, 3.0) if sunny else rng.uniform(0.1, 0.5)
    radius = rng.uniform(0.01, 0.05) if sunny else 0.3
    stage.lights.append([0.0, *sun, radius, *(strength * warm)])


def add_lamp(stage: Stage, at: ndarray, strength: float, radius: float = 0.12) -> None:
    """Add a lamp; ``strength`` is the light at a distance of one unit, relative to a bright sky."""
    tint = np.array([1.0, stage.rng.uniform(0.82, 0.98), stage.rng.uniform(0.62, 0.95)])
    stage.lights.append([1.0, *at, radius, *(strength * tint)])
