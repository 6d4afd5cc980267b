"""The commands that take splats and images instead of captures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional

from splatfix.command_line import command

if TYPE_CHECKING:
    from splatfix.restoration.artifact_mask import MaskOptions

Images = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="IMAGE ...")]


@command(
    config="splatfix.restoration.artifact_mask:MaskOptions",
    shown=(
        *("sigmas_px", "threshold", "max_opposite", "min_elongation", "min_fill", "max_detail"),
        *("dilation_px", "min_area_px", "alpha_threshold", "holes"),
    ),
    examples=[
        "splatfix mask render.png --out masks",
        "splatfix mask renders/ more/*.jpg --out masks --threshold 0.03 --dilation-px 4",
    ],
)
def mask(images: Positional[Images], *, out: Path, settings: "MaskOptions") -> None:
    """Mark stretched and floating Gaussians in renders: the mask that the restorer flux-fill repaints.

    Writes NAME.mask.png for each image, in which artifacts are white.

    Args:
        images: image files, or folders of them; where they have an alpha channel, holes are marked as well.
        out: folder for the masks.
    """
    from splatfix.restoration.mask_files import write_masks

    for written in write_masks(images, out, settings):
        print(f"{written.path}: {100 * written.share:.1f} % of {written.image} masked")
