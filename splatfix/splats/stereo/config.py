"""Settings of plane-sweep stereo."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StereoConfig:
    """Settings of plane-sweep stereo.

    Attributes:
        num_neighbours: number of photos that each reference photo is compared with, nearest first.
        max_neighbour_angle_deg: largest angle between the rays of two compared photos to the scene, in degrees.
        num_planes: planes per reference photo, evenly spaced in inverse depth.
        windows_px: sides of the two square ZNCC windows, in pixels (odd); their scores are averaged.
        smoothness: penalty for a step of one plane between pixels, in units of ZNCC; four times that for larger steps.
        min_zncc: smallest ZNCC of a match.
        uniqueness: largest ratio of 1 - ZNCC of the match to that of its best rival at another depth.
        min_contrast: smallest standard deviation of gray values in the smaller window, in [0, 1].
        max_disagreement: largest relative depth difference at which two photos agree.
        min_agreeing: number of other photos whose depth must agree.
        min_support: number of the 24 surrounding pixels that must have the same depth (within twice max_disagreement).
    """

    num_neighbours: int = 3
    max_neighbour_angle_deg: float = 60.0
    num_planes: int = 96
    windows_px: tuple[int, int] = (7, 11)
    smoothness: float = 0.06
    min_zncc: float = 0.75
    uniqueness: float = 0.7
    min_contrast: float = 0.012
    max_disagreement: float = 0.015
    min_agreeing: int = 1
    min_support: int = 8
