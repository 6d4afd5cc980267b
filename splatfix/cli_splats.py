"""The commands that take splats and images instead of captures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional

from splatfix.command_line import command, show

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
        show(f"{written.path}: {100 * written.share:.1f} % of {written.image} masked")


@command(
    examples=[
        "splatfix export runs/banana --format compressed-ply",
        "splatfix export runs/banana/before.ply --format html --out before.html",
    ]
)
def export(
    source: Positional[Annotated[Path, tyro.conf.arg(metavar="RUN|SPLAT.ply")]],
    *,
    format: Literal["ply", "compressed-ply", "splat", "spz", "sog", "usdz", "html"],
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
) -> None:
    """Write a splat in a format of other programs, or as a page that shows it in the browser.

    For .spz and .sog it needs PlayCanvas' program splat-transform, for .usdz NVIDIA's usd-convert-gsplat, for a page
    the extra viewer.

    Args:
        source: a 3DGS .ply, or the folder of a run: then after.ply, or the splat that was better on its test photos.
        format: ply, compressed-ply (SuperSplat, PlayCanvas), splat (antimatter15), spz (Niantic), sog (PlayCanvas),
            usdz (OpenUSD, Omniverse), or html, which opens without a server: of a run viewer.html, with before and
            after side by side.
        out: file to write; by default beside the splat.
    """
    from splatfix.exports import export_splat, export_viewer

    both = format == "html" and out is None and source.is_dir()
    exported = export_viewer(source) if both else export_splat(source, format, out)
    show(f"{exported.path}: {exported.path.stat().st_size / 1e3:,.0f} kB")
    for loss in exported.losses:
        show(f"  {loss}")
    if format == "html":
        show(f"next:   open {exported.path} in a browser")


@command(
    examples=[
        "splatfix render runs/banana/after.ply --path camera_path.json --out flight.mp4",
        "splatfix render runs/banana/after.ply --path scenes/banana --out renders --size-px 640",
    ]
)
def render(
    splat: Positional[Annotated[Path, tyro.conf.arg(metavar="SPLAT.ply")]],
    *,
    path: Annotated[str, tyro.conf.arg(metavar="FILE|CAPTURE")],
    out: Annotated[Path, tyro.conf.arg(metavar="VIDEO.mp4|DIR")],
    size_px: int | None = None,
    mode: Literal["classic", "antialiased"] | None = None,
    device: str = "auto",
) -> None:
    """Render a splat along a path of cameras, into a video or a folder of images.

    Args:
        splat: a 3DGS .ply.
        path: camera path that nerfstudio's viewer has exported (JSON), or a capture: then its cameras.
        out: video, or folder of PNG files.
        size_px: longest side of the images; by default what the path says.
        mode: how the splat is drawn; by default what the splat.json beside the splat says, else classic.
        device: auto, cpu, cuda or cuda:N.
    """
    from splatfix.path_renders import render_path

    num = render_path(splat, path, out, longest_side_px=size_px, mode=mode, device=device)
    show(f"{out}: {num} frames")
