"""The folder between splatfix and another program: views in, repaired images out.

``input/``, with one number per view in all names::

    views.json               cameras and files of all views
    renders/0000.png         the flawed render, RGB
    alpha/0000.png           its opacity, gray
    depth/0000.npy           its depth, float32 [H, W]
    spread/0000.npy          where several fits were averaged: standard deviation of their colors, float32 [H, W]
    photos_1/0000.png        the training photo nearest to the view; photos_2: the second nearest, ...
    validity_1/0000.png      only if pixels of that photo are ignored: gray, black where its colors are made up
    warped_1/0000.png        that photo, warped into the view by depth: RGBA, where A is its validity

``output/``, written by the program::

    0000.png                 the repaired view, at the size of the render; any image format
    confidence/0000.png      optional, for all views or for none: gray, white where a pixel can be trusted
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splatfix.conditioning import compute_conditioning
from splatfix.files import write_json
from splatfix.flawed import FlawedView
from splatfix.images import SUFFIXES, read_image, write_image
from splatfix.restoration.restorer import Repaired

SCHEMA = 1
VIEWS = "views.json"
CONFIDENCE = "confidence"
CONVENTIONS = {
    "axes": "OpenCV: x right, y down, z forward",
    "camera_from_world": "rigid 4 x 4 matrix, takes world coordinates to camera coordinates",
    "intrinsics": "K, 3 x 3, in pixels; pinhole; the center of the first pixel is (0.5, 0.5)",
    "depth": "along the optical axis, in world units; 0 where nothing is",
    "colors": "8 bits, sRGB",
}


def view_stem(number: int) -> str:
    """The name of a view's files without suffix. The views' own names may hold what a file's name may not."""
    return f"{number:04d}"


def write_views(folder: Path, views: Sequence[FlawedView], *, seed: int) -> None:
    """Write the views and all that is known of them into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    trees = [_write_view(folder, view_stem(number), view) for number, view in enumerate(views)]
    write_json(folder / VIEWS, {"schema": SCHEMA, "seed": seed, "conventions": CONVENTIONS, "views": trees})


def read_repairs(folder: Path, views: Sequence[FlawedView]) -> list[Repaired]:
    """Read the repaired images of these views, and their confidence maps where there are some.

    Raises:
        ValueError: a missing or unreadable image, one of another size, several for one view, or confidence maps for
            some views alone; one line names the file, what was seen and what is wanted.
    """
    stems = [view_stem(number) for number in range(len(views))]
    images = _find_images(folder, stems)
    if len(images) < len(stems):
        missing = next(stem for stem in stems if stem not in images)
        raise ValueError(
            f"{folder / missing}.png: no such image; the program wrote {len(images)} of {len(stems)} repaired views"
            f"{_list_others(folder, stems)}; wanted one for each image in renders/, with its name"
        )
    maps = _find_images(folder / CONFIDENCE, stems)
    if maps and len(maps) < len(stems):
        missing = next(stem for stem in stems if stem not in maps)
        raise ValueError(
            f"{folder / CONFIDENCE / missing}.png: no such image; the program wrote {len(maps)} of {len(stems)} "
            "confidence maps; wanted one for each view, or none"
        )
    return [
        Repaired(_read_image(images[stem], view)[..., :3], _read_confidence(maps[stem], view) if maps else None)
        for stem, view in zip(stems, views, strict=True)
    ]


def _write_view(folder: Path, stem: str, view: FlawedView) -> dict[str, Any]:
    conditioning = compute_conditioning(view, len(view.references))
    tree = view.camera.to_json() | {
        "file": f"{stem}.png",
        "render": _write_image(folder, f"renders/{stem}.png", conditioning.rgb),
        "alpha": _write_image(folder, f"alpha/{stem}.png", conditioning.alpha),
        "depth": _write_array(folder, f"depth/{stem}.npy", view.depth),
        "spread": None if view.spread is None else _write_array(folder, f"spread/{stem}.npy", view.spread),
        "references": [],
    }
    for rank, (reference, warped) in enumerate(zip(view.references, conditioning.warps, strict=True), start=1):
        files = {
            "photo": _write_image(folder, f"photos_{rank}/{stem}.png", reference.rgb),
            "warped": _write_image(folder, f"warped_{rank}/{stem}.png", warped),
        }
        if reference.validity is not None:
            files["validity"] = _write_image(folder, f"validity_{rank}/{stem}.png", reference.validity)
        tree["references"].append(reference.camera.to_json() | files)
    return tree


def _write_image(folder: Path, name: str, image: Tensor) -> str:
    write_image(folder / name, image.detach().float().cpu().numpy())
    return name


def _write_array(folder: Path, name: str, image: Tensor) -> str:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    np.save(path, image.detach().float().cpu().numpy())
    return name


def _find_images(folder: Path, stems: Sequence[str]) -> dict[str, Path]:
    """The image of each view in a folder, by its stem."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix.lower() not in SUFFIXES or path.stem not in stems:
            continue
        if path.stem in found:
            raise ValueError(f"{path}: beside {found[path.stem].name}; wanted one image for each view")
        found[path.stem] = path
    return found


def _list_others(folder: Path, stems: Sequence[str]) -> str:
    """What else the program wrote, for a message: a few names."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in names if Path(name).stem not in stems and name != CONFIDENCE]
    return f" (beside them: {', '.join(others[:3])}{', ...' if len(others) > 3 else ''})" if others else ""


def _read_image(path: Path, view: FlawedView) -> Tensor:
    image = read_image(path)
    height, width = image.shape[:2]
    wanted = view.camera.width_px, view.camera.height_px
    if (width, height) != wanted:
        raise ValueError(
            f"{path}: {width} x {height} pixels; wanted {wanted[0]} x {wanted[1]}, as the render of view "
            f"{view.camera.name!r} has: let the program resize its result"
        )
    return torch.from_numpy(image).to(view.rgb.device)


def _read_confidence(path: Path, view: FlawedView) -> Tensor:
    return _read_image(path, view)[..., :3].mean(dim=-1)
