"""Materials: what a surface is made of, as a row of numbers for the kernels, and random ones of each kind.

Colors are linear RGB. ``palette`` draws colors as they are common in photos: mostly muted, some strong.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from splatfix.procedural.casting.columns import BRICKS, CHECKER, LEAF, PLAIN, PRINT, SPECKLE, STRIPES, WOOD
from splatfix.shapes import Float

Color = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a surface is made of.

    Attributes:
        kind: its pattern, one of the constants of `casting.columns`.
        colors: three colors that the pattern picks between.
        scale: features of the pattern per unit of length.
        ratio: width over height of bricks.
        warp: distortion of the pattern by noise, in features.
        contrast: of the noise of a plain surface.
        detail: strength of the variation that lies over every pattern.
        seed: of its noise.
        gloss: share of the light that is mirrored at a right angle; 0 is flat.
        polish: exponent of the highlights; above `MIRROR` the surroundings are mirrored, too.
        bump: strength of the noise that tilts the normals.
        thin: whether light shines through it, as through leaves.
    """

    kind: int = PLAIN
    colors: tuple[Color, Color, Color]
    scale: float = 1.0
    ratio: float = 2.5
    warp: float = 0.0
    contrast: float = 0.6
    detail: float = 0.3
    seed: int = 0
    gloss: float = 0.0
    polish: float = 20.0
    bump: float = 0.0
    thin: bool = False

    def pack(self) -> Float[ndarray, " K"]:
        """The row of this material for the kernels."""
        colors = [value for color in self.colors for value in color]
        numbers = [self.scale, self.ratio, self.warp, self.contrast, self.detail, self.seed]
        return np.array([self.kind, *colors, *numbers, self.gloss, self.polish, self.bump, self.thin], np.float64)


def from_hsv(hue: float, saturation: float, value: float) -> Color:
    """Convert a hue (in turns), a saturation and a value as seen on a screen to linear RGB."""
    r, g, b = (float(c) ** 2.2 for c in colorsys.hsv_to_rgb(hue % 1.0, min(saturation, 1.0), min(value, 1.0)))
    return r, g, b


def draw_palette(
    rng: np.random.Generator,
    *,
    hue: float | None = None,
    saturation: float | None = None,
    value: float | None = None,
    spread: float = 0.2,
) -> tuple[Color, Color, Color]:
    """Draw three colors near a hue, from dark to bright; what is not given is drawn, too."""
    hue = float(rng.random()) if hue is None else hue
    saturation = float(rng.beta(1.5, 3.0)) if saturation is None else saturation
    value = float(rng.uniform(0.4, 0.75)) if value is None else value
    colors = []
    for step in (-1, 0, 1):
        turn = hue + rng.normal() * 0.03
        colors.append(
            from_hsv(turn, saturation * rng.uniform(0.75, 1.2), max(0.06, value + spread * (step + 0.4 * rng.normal())))
        )
    return colors[0], colors[1], colors[2]


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(1, 1_000_000))


def draw_wood(rng: np.random.Generator, size: float = 1.0) -> Material:
    """Draw wood; ``size`` is that of the object, in units of length."""
    colors = draw_palette(rng, hue=rng.uniform(0.05, 0.1), saturation=rng.uniform(0.35, 0.65), spread=0.16)
    gloss = float(rng.choice([0.0, 0.03, 0.04]))
    return Material(
        kind=WOOD, colors=colors, scale=rng.uniform(3, 6) / size, warp=rng.uniform(0.5, 1.5), seed=_seed(rng),
        gloss=gloss, polish=rng.uniform(20, 200), detail=0.25,
    )  # fmt: skip


def draw_stone(rng: np.random.Generator, size: float = 1.0) -> Material:
    """Draw stone, concrete or plaster."""
    colors = draw_palette(rng, hue=rng.uniform(0.03, 0.16), saturation=rng.uniform(0.03, 0.3), spread=0.18)
    kind = SPECKLE if rng.random() < 0.25 else PLAIN
    scale = (rng.uniform(25, 60) if kind == SPECKLE else rng.uniform(4, 10)) / size
    return Material(
        kind=kind, colors=colors, scale=scale, warp=0.5, seed=_seed(rng), detail=rng.uniform(0.4, 0.7),
        contrast=rng.uniform(0.25, 0.55), bump=rng.uniform(0.1, 0.35), gloss=float(rng.choice([0.0, 0.0, 0.04])),
        polish=rng.uniform(15, 60),
    )  # fmt: skip


def draw_bricks(rng: np.random.Generator, size: float = 1.0) -> Material:
    """Draw bricks or tiles, ``size`` units wide."""
    is_tile = rng.random() < 0.4
    dark, middle, bright = draw_palette(
        rng,
        hue=None if is_tile else rng.uniform(0.0, 0.08),
        saturation=rng.uniform(0.1, 0.5) if is_tile else rng.uniform(0.35, 0.6),
        value=rng.uniform(0.45, 0.7),
    )
    mortar = from_hsv(0.1, 0.1, rng.uniform(0.35, 0.8))
    return Material(
        kind=BRICKS, colors=(dark, bright if is_tile else middle, mortar), scale=1 / size, warp=0.02, seed=_seed(rng),
        ratio=float(rng.choice([1.0, 2.0])) if is_tile else rng.uniform(2, 3.5), detail=rng.uniform(0.2, 0.45),
        gloss=0.04 if is_tile else 0.0, polish=rng.uniform(40, 400), bump=0.0 if is_tile else 0.2,
    )  # fmt: skip


def draw_fabric(rng: np.random.Generator, size: float = 1.0) -> Material:
    """Draw cloth, wallpaper or carpet: a checker, stripes or specks in colors of several hues."""
    dark, _, bright = draw_palette(rng, spread=0.22)
    _, other, _ = draw_palette(rng)
    kind = int(rng.choice([CHECKER, STRIPES, SPECKLE, PLAIN]))
    return Material(
        kind=kind, colors=(dark, other, bright), scale=rng.uniform(6, 18) / size, warp=rng.uniform(0, 0.4),
        seed=_seed(rng), detail=rng.uniform(0.25, 0.5), bump=0.15, contrast=rng.uniform(0.6, 1.0),
    )  # fmt: skip


def draw_print(rng: np.random.Generator, size: float = 1.0) -> Material:
    """Draw printed paper: a poster, a label, a book."""
    paper = from_hsv(rng.uniform(0.05, 0.2), rng.uniform(0.0, 0.5), rng.uniform(0.6, 0.95))
    _, other, _ = draw_palette(rng, saturation=rng.uniform(0.4, 0.9))
    ink = from_hsv(rng.random(), rng.uniform(0.2, 0.8), rng.uniform(0.08, 0.3))
    return Material(
        kind=PRINT, colors=(paper, other, ink), scale=rng.uniform(2, 4) / size, seed=_seed(rng), detail=0.15,
        gloss=float(rng.choice([0.0, 0.04])), polish=rng.uniform(30, 300),
    )  # fmt: skip


def draw_paint(rng: np.random.Generator, size: float = 1.0) -> Material:
    """Draw glossy paint, glaze or plastic, with blotches and dirt."""
    colors = draw_palette(rng, saturation=rng.uniform(0.3, 0.9), spread=0.14)
    return Material(
        kind=int(rng.choice([PLAIN, STRIPES, SPECKLE])), colors=colors, scale=rng.uniform(3, 8) / size, warp=0.6,
        seed=_seed(rng), detail=rng.uniform(0.15, 0.3), gloss=rng.uniform(0.03, 0.07), polish=rng.uniform(50, 600),
    )  # fmt: skip


def draw_metal(rng: np.random.Generator, size: float = 1.0) -> Material:
    """Draw metal: brushed, rusty or polished."""
    colors = draw_palette(rng, hue=rng.uniform(0.04, 0.15), saturation=rng.uniform(0.05, 0.5), spread=0.15)
    return Material(
        colors=colors, scale=rng.uniform(3, 9) / size, seed=_seed(rng), detail=0.35, contrast=0.9,
        gloss=rng.uniform(0.15, 0.5), polish=rng.uniform(40, 500), bump=0.05,
    )  # fmt: skip


def draw_soil(rng: np.random.Generator, size: float = 1.0, *, green: float | None = None) -> Material:
    """Draw ground outdoors: grass, earth, sand or gravel; ``green`` is the probability of grass."""
    if rng.random() < (0.5 if green is None else green):
        colors = draw_palette(
            rng, hue=rng.uniform(0.15, 0.26), saturation=rng.uniform(0.25, 0.5), value=0.42, spread=0.13
        )
        kind = PLAIN
    else:
        colors = draw_palette(rng, hue=rng.uniform(0.06, 0.12), saturation=rng.uniform(0.15, 0.45), spread=0.13)
        kind = int(rng.choice([PLAIN, SPECKLE]))
    scale = rng.uniform(3, 7) / size if kind == PLAIN else rng.uniform(15, 30) / size
    return Material(
        kind=kind, colors=colors, scale=scale, warp=0.3, seed=_seed(rng), detail=rng.uniform(0.6, 0.9), bump=0.4,
        contrast=rng.uniform(0.4, 0.8),
    )  # fmt: skip


def draw_leaf(rng: np.random.Generator) -> Material:
    """Draw leaves, blades or petals; their coordinates are along, across, and the number of the leaf."""
    hue = float(rng.choice([rng.uniform(0.18, 0.36), rng.uniform(0.02, 0.17)], p=[0.8, 0.2]))
    colors = draw_palette(rng, hue=hue, saturation=rng.uniform(0.4, 0.75), value=rng.uniform(0.35, 0.6), spread=0.2)
    return Material(
        kind=LEAF, colors=colors, seed=_seed(rng), detail=0.35, thin=True,
        gloss=float(rng.choice([0.0, 0.03])), polish=30.0,
    )  # fmt: skip


def draw_painting(rng: np.random.Generator, size: float = 1.0) -> Material:
    """Draw a picture without anything to recognize: bent blotches of several hues."""
    colors = draw_palette(rng)[0], draw_palette(rng)[1], draw_palette(rng)[2]
    return Material(
        colors=colors, scale=rng.uniform(2, 5) / size, warp=rng.uniform(0.3, 1.5), contrast=rng.uniform(0.9, 1.6),
        seed=_seed(rng), detail=0.25,
    )  # fmt: skip


SOLIDS = (draw_wood, draw_stone, draw_fabric, draw_paint, draw_metal, draw_print, draw_bricks)


def draw_material(rng: np.random.Generator, size: float = 1.0) -> Material:
    """Draw a material of any kind for an object of about ``size`` units of length."""
    kind = int(rng.choice(len(SOLIDS), p=[0.2, 0.15, 0.2, 0.2, 0.07, 0.13, 0.05]))
    return SOLIDS[kind](rng, size * (0.4 if SOLIDS[kind] is draw_bricks else 1.0))
