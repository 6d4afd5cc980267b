"""Draw the picture of README.md from the folder of a finished loop: ``python docs/make_picture.py RUN docs/loop.jpg``.

Views and crops are chosen by rule: the test views with the largest, the median and the smallest gain, and in each the
square in which `after` differs most from the better of `before` and `control`.
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy import ndarray
from PIL import Image

from splatfix.evaluation.layout import image_path

CROP_PX = 144
ERROR_RANGE = 0.15  # change of the mean absolute error that takes the strongest color


def main(run: Path, out: Path) -> None:
    views = json.loads((run / "results.json").read_text())["views"]
    views.sort(key=gain, reverse=True)
    chosen = {"largest gain": views[0], "median": views[len(views) // 2], "smallest gain": views[-1]}
    figure, axes = plt.subplots(3, 4, figsize=(8.8, 7.3), dpi=110, facecolor="white", layout="constrained")
    for row, (title, view) in zip(axes, chosen.items(), strict=True):
        arm = better_arm(view)
        photo, baseline, after = (read(image_path(run, view["name"], kind)) for kind in ("photo", arm, "after"))
        window = most_different(baseline, after)
        for axis, image in zip(row, (photo, baseline, after), strict=False):
            axis.imshow(image[window], interpolation="bicubic")
        change = np.abs(after - photo).mean(2) - np.abs(baseline - photo).mean(2)
        row[3].imshow(change[window], cmap="coolwarm", vmin=-ERROR_RANGE, vmax=ERROR_RANGE)
        row[0].set_ylabel(f"{title}: {gain(view):+.2f} dB", fontsize=10)
        row[1].set_xlabel(f"{arm}: {view[arm]['psnr']:.2f} dB", fontsize=9)
        row[2].set_xlabel(f"after: {view['after']['psnr']:.2f} dB", fontsize=9)
        row[3].set_xlabel("blue: nearer to the photo", fontsize=9)
    titles = ("test photo", "without repair", "after the loop", "change of the error")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=11)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.savefig(out, pil_kwargs={"quality": 88})


def better_arm(view: dict) -> str:
    """`before` or `control`, whichever has the higher PSNR."""
    return max(("before", "control"), key=lambda arm: view[arm]["psnr"])


def gain(view: dict) -> float:
    """PSNR of `after` minus the better of `before` and `control`, in dB."""
    return view["after"]["psnr"] - view[better_arm(view)]["psnr"]


def read(path: Path) -> ndarray:
    return np.asarray(Image.open(path), np.float32) / 255


def most_different(a: ndarray, b: ndarray) -> tuple[slice, slice]:
    """The square of ``CROP_PX`` (less in a small image) with the largest sum of squared differences."""
    squared = np.pad(np.square(a - b).sum(2), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    n = min(CROP_PX, *a.shape[:2])
    sums = squared[n:, n:] - squared[:-n, n:] - squared[n:, :-n] + squared[:-n, :-n]
    top, left = np.unravel_index(sums.argmax(), sums.shape)
    return slice(top, top + n), slice(left, left + n)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
