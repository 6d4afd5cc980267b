"""What a user says about the photos of a capture that its files do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

MaskMeaning = Literal["object", "ignore"]  # what the black or transparent pixels of masks are: see `PhotoOptions`
MaskChoice = Literal["auto", "object", "ignore"]
OrientationChoice = Literal["auto", "apply", "ignore"]


@dataclass(frozen=True, kw_only=True)
class PhotoOptions:
    """How photos are read.

    Attributes:
        masks: what black or transparent pixels of masks are. ``object``: the surroundings of an object, which is set
            on white. ``ignore``: pixels not to learn from, such as passers-by; the scene keeps its background.
            ``auto``: alpha marks an object if all photos have it, and mask files (``mask_path``) mark pixels to ignore
            unless their ``transforms.json`` says ``"mask_meaning": "object"``.
        orientation: whether photos are turned by the orientation in their EXIF data. ``auto``: as their cameras'
            width and height tell; where these fit both ways, photos are not turned, and a note says so.
    """

    masks: MaskChoice = "auto"
    orientation: OrientationChoice = "auto"

    def __post_init__(self) -> None:
        for name, kind in (("masks", MaskChoice), ("orientation", OrientationChoice)):
            value, choices = getattr(self, name), get_args(kind)
            if value not in choices:
                raise ValueError(f"{name} = {value!r}: wanted one of {', '.join(choices)}")


DEFAULT_OPTIONS = PhotoOptions()
