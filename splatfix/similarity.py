"""Similarities without a rotation: how the coordinates that splatfix computes in differ from those of files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import ndarray

from splatfix.shapes import Float


@dataclass(frozen=True)
class Similarity:
    """The map ``x -> scale * x + offset`` from one world to another; names are read right to left, as those of poses.

    Attributes:
        scale: units of the second world per unit of the first, above 0.
        offset: origin of the first world, in the coordinates of the second.
    """

    scale: float = 1.0
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def is_identity(self) -> bool:
        """Whether both worlds are the same."""
        return self == IDENTITY

    def apply(self, points: Float[ndarray, "*N 3"]) -> Float[ndarray, "*N 3"]:
        """Map points, in float64."""
        points = np.asarray(points, np.float64)
        return points if self.is_identity else self.scale * points + self.offset

    def apply_inverse(self, points: Float[ndarray, "*N 3"]) -> Float[ndarray, "*N 3"]:
        """Map points back, in float64."""
        points = np.asarray(points, np.float64)
        return points if self.is_identity else (points - self.offset) / self.scale

    def describe(self) -> str:
        """Describe the map as text: ``1024 x + [432100, 5412340, 180]``."""
        return f"{self.scale:.12g} x + [{', '.join(f'{value:.12g}' for value in self.offset)}]"

    def to_json(self) -> dict[str, Any]:
        """The similarity as a JSON object."""
        return {"scale": self.scale, "offset": list(self.offset)}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Similarity:
        """Inverse of `to_json`. KeyError, TypeError or ValueError for anything else."""
        scale, (x, y, z) = float(tree["scale"]), (float(value) for value in tree["offset"])
        if not (scale > 0 and np.isfinite([scale, x, y, z]).all()):
            raise ValueError(f"{dict(tree)}: wanted a scale above 0 and an offset of three numbers")
        return cls(scale, (x, y, z))


IDENTITY = Similarity()
