# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Repair a splat
#
# Fit a few photos, look at where novel views smear, repair these views, train the splat on them, and measure whether
# that helped. All of it is the [Python API](../python-api.md) of splatfix. It takes about four minutes of CPU time;
# no GPU is needed.
#
# Open it in Jupyter or an editor, with the Python of the environment that splatfix is installed in.

# %%
import os
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display

import splatfix

# %% [markdown]
# All that you may want to change is in this cell.

# %% tags=["parameters"]
CAPTURE = splatfix.sample_path()  # the shipped sample, 36 photos of a tankard; or the folder of your own capture
RESTORER = "nafnet"  # a name, the folder of a checkpoint, or an object
OUT = Path(os.environ.get("SPLATFIX_NOTEBOOK_OUT", "runs/notebook"))  # files are written here
SMALL = os.environ.get("SPLATFIX_NOTEBOOK_SMALL") == "1"  # tiny images, few steps: to test the notebook, not the repair

# %% [markdown]
# **Your own photos.** A capture is a folder of photos with known cameras: COLMAP, `transforms.json`, NeRF-synthetic or
# LLFF ([all formats](../your-own-photos.md#formats)). For a folder of photos without cameras, or a video, estimate them
# first, in a shell with `splatfix pose my_photos --out my_capture`, or here:
#
# ```python
# splatfix.pose_photos("my_photos", "my_capture")
# CAPTURE = "my_capture"
# ```
#
# The page `my_capture/pose.html` then shows which photos have a camera, and which cameras are doubtful.

# %%
plt.rcParams.update({"figure.facecolor": "white", "savefig.facecolor": "white", "figure.dpi": 90})  # also on dark pages

config = splatfix.LoopConfig(restorer=RESTORER, video=False)  # `splatfix loop --help-all` describes every setting
if SMALL:
    config = splatfix.LoopConfig(
        restorer=RESTORER,
        video=False,
        views=splatfix.ViewsConfig(size_px=96, max_test=6),
        fit=splatfix.FitConfig(steps=100),
        repair=splatfix.RepairConfig(rounds=1, views=6, steps=30, siblings=1),
    )


def to_array(image):
    """Convert a tensor or an array to an array that can be drawn, clipped to [0, 1]."""
    return np.clip(image if isinstance(image, np.ndarray) else image.numpy(force=True), 0, 1)


def change(a, b):
    """Mean absolute difference of two images over their channels, [H, W]."""
    return np.abs(to_array(a) - to_array(b)).mean(-1)


def show(rows, titles):
    """Show rows of images under the titles of the columns.

    Images of shape [H, W, 3] are colors; those of shape [H, W] are errors: black is 0, pale yellow 0.3 and more.
    """
    height, width = rows[0][0].shape[:2]
    side = min(2.8, 11 / len(titles))
    size = (side * len(titles), side * len(rows) * height / width + 0.3)
    _, axes = plt.subplots(len(rows), len(titles), figsize=size, squeeze=False, layout="constrained")
    for i, row in enumerate(rows):
        for axis, image in zip(axes[i], row, strict=True):
            axis.imshow(to_array(image), cmap="inferno", vmin=0, vmax=0.3)  # of no effect on colors
            axis.axis("off")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    plt.show()


# %% [markdown]
# ## The photos, and which of them are used
#
# Six photos are fitted. Others are *test photos*: they measure the result and never enter the fit. `make_split` chooses
# both from the cameras, never from the pixels.

# %%
capture = splatfix.open_capture(CAPTURE, longest_side_px=config.views.size_px)
split = splatfix.make_split(capture, config.views)
print(f"{capture.name}: {len(capture.views)} photos; {len(split.train_ids)} to fit, {len(split.test_ids)} to test on")
for note in capture.notes:
    print("note:", note)

photos = [capture.view(name).load().rgb for name in split.train_ids[:6]]
show([photos], [Path(name).stem[:16] for name in split.train_ids[:6]])

# %% [markdown]
# The same cameras from above (rather: along the direction in which they spread least). Lines show where each photo of
# the fit looks. A test camera far from every photo of the fit sees parts that the fit had to guess.

# %%
centers = np.array([camera.center for camera in capture.cameras])
headings = np.array([camera.axis for camera in capture.cameras])
up = -np.mean([camera.rotation[1] for camera in capture.cameras], axis=0)  # y of an image points down
plane = np.linalg.svd(centers - centers.mean(0))[2][:2].T  # [3, 2]
plane[:, 1] *= 1 if np.cross(*plane.T) @ up >= 0 else -1  # from above, not from below
spots, arrows = centers @ plane, headings @ plane

roles = {"fit": "#d95f02", "test": "#1f78b4", "unused": "#999999"}
role_of = dict.fromkeys(split.train_ids, "fit") | dict.fromkeys(split.test_ids, "test")
_, axis = plt.subplots(figsize=(6, 4.2), layout="constrained")
length = 0.25 * np.linalg.norm(np.ptp(spots, axis=0))
for role, color in roles.items():
    here = np.array([role_of.get(name, "unused") == role for name in capture.names])
    axis.scatter(*spots[here].T, s=60 if role == "fit" else 25, color=color, label=f"{role} ({here.sum()})", zorder=2)
    if role == "fit":
        for start, arrow in zip(spots[here], arrows[here], strict=True):
            axis.plot(*np.stack([start, start + length * arrow], axis=1), color=color, linewidth=1, zorder=1)
axis.set_aspect("equal")
axis.set(xticks=[], yticks=[], title=f"Cameras of {capture.name} from above")
axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# ## A sparse fit
#
# Two fits of the same photos, which differ in their seed alone. The second one is a *sibling*: where the two disagree,
# no photo says what is right.

# %%
start = time.monotonic()
before = splatfix.fit_capture(capture, config)
sibling = splatfix.fit_capture(capture, replace(config, seed=config.seed + 1))
print(f"{len(before.splat.gaussians)} Gaussians; two fits in {time.monotonic() - start:.0f} s")

camera = capture.view(split.train_ids[0]).camera
photo, render = photos[0], splatfix.render(before.splat, [camera]).rgb[0]
show([[photo, render, change(photo, render)]], ["photo of the fit", "render of the fit", "error"])

# %% [markdown]
# At the photos the fit is soft, but its outlines are right. That says nothing about other views.
#
# ## Novel views, and where they smear
#
# `render_flawed` places cameras between the photos and renders both fits there. The *spread* is the standard deviation
# of the two renders. We show the three views where it is largest.

# %%
views = splatfix.render_flawed(before, [sibling])
worst = sorted(range(len(views)), key=lambda i: -float(views[i].spread.mean()))[:3]
show(
    [[views[i].rgb, views[i].spread, views[i].references[0].rgb] for i in worst],
    ["novel view", "spread of two fits", "nearest photo"],
)

# %% [markdown]
# ## Repair them
#
# The restorer gets each render with its opacity, depth, spread and nearest photos, and returns an image. Look closely:
# is the repaired image better, or only smoother? Details that it adds are guesses, and may differ between views.

# %%
start = time.monotonic()
repaired = splatfix.repair(views, RESTORER, seed=config.seed)
print(f"{len(views)} views in {time.monotonic() - start:.0f} s")

show(
    [[views[i].rgb, repaired[i].rgb, change(views[i].rgb, repaired[i].rgb)] for i in worst],
    ["render", "repaired", "change"],
)

# %% [markdown]
# ## The loop
#
# `run_loop` does all this from the start: fit, siblings, and then rounds of render, repair, retrain. It also trains a
# *control* for as many steps on the photos alone, so that longer training is not mistaken for repair. It writes a
# folder as `splatfix loop` does. Interrupted? Run the cell again, and it resumes. Other settings need another `OUT`.
#
# (With the functions above, one round is `splatfix.retrain(before, views, repaired)`, and its control is
# `splatfix.retrain(before)`.)

# %%
start = time.monotonic()
results = splatfix.run_loop(CAPTURE, OUT / "loop", config)
page = splatfix.write_report([OUT / "loop"])
print(f"{time.monotonic() - start:.0f} s; all pictures and figures are on the page {page}")

# %% [markdown]
# ## Did it help?
#
# *before* is the sparse fit, *control* the one that was trained longer without repair, *after* the result. *Gain* is
# after minus the better of the other two. *near*, *mid* and *far* are test photos by their distance from the photos of
# the fit. PSNR is in dB; for both metrics higher is better.


# %%
def format_table(summary, metric, digits):
    """Format the means of a metric per band as a Markdown table; a dash where there is none."""
    columns = ["before", "control", "after", "gain"]
    lines = [f"| {metric.upper()} | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for band in ("all", "near", "mid", "far"):
        values = [summary.value(band, column, metric) for column in columns]
        signs = ["+" if column == "gain" else "" for column in columns]
        cells = ["-" if v is None else f"{v:{sign}.{digits}f}" for v, sign in zip(values, signs, strict=True)]
        lines.append(f"| {band} | {' | '.join(cells)} |")
    return "\n".join(lines)


display(Markdown(format_table(results.summary, "psnr", 2)))
display(Markdown(format_table(results.summary, "ssim", 4)))

# %%
gain_db = results.summary.value("all", "gain", "psnr")
scores = {arm: results.summary.value("all", arm, "psnr") for arm in ("before", "control", "after")}
best = "after" if gain_db is None else max(scores, key=scores.get)
by_gain = [] if gain_db is None else sorted(results.views, key=lambda view: view.gain["psnr"])
worse = sum(view.gain["psnr"] < 0 for view in by_gain)
if gain_db is None:
    print("No photo is left to test on, so nobody knows whether the repair helped.")
elif gain_db >= 0.05:
    print(f"The repair helped: {gain_db:+.2f} dB in the mean. It made {worse} of {len(by_gain)} test photos worse.")
elif gain_db > -0.05:
    print(f"The repair made no difference that you could see ({gain_db:+.2f} dB). Take {best}.ply.")
else:
    print(f"The repair HURT on this capture ({gain_db:+.2f} dB). Take {best}.ply, and see below for other restorers.")

# %% [markdown]
# The mean hides single photos, so here is each of them. Gains of a few tenths of a dB are usual with the shipped
# restorer, which is small, and
# [it hurts on some captures](../results-and-speed.md#captures-that-the-weights-have-not-seen). A single run with one
# seed is not exact either: another seed may move the mean by 0.1 dB.

# %%
if by_gain:
    bands = {"near": "#7fb3d5", "mid": "#1f78b4", "far": "#0b3c5d"}
    _, axis = plt.subplots(figsize=(7, 2.8), layout="constrained")
    for band, color in bands.items():
        places = [i for i, view in enumerate(by_gain) if view.band == band]
        axis.bar(places, [by_gain[i].gain["psnr"] for i in places], color=color, label=band)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set(xticks=[], xlabel="test photos, by gain", ylabel="gain in PSNR, dB")
    axis.legend()
    plt.show()

# %% [markdown]
# The test photos with the largest, the median and the smallest gain, rendered from the `.ply` files. In the last column
# red is where *after* is farther from the photo than *control*, and blue where it is closer.

# %%
world = capture.file_from_world  # of captures in map coordinates; else the identity
arms = {arm: splatfix.read_splat(OUT / "loop" / f"{arm}.ply", file_from_world=world) for arm in scores}
chosen = [by_gain[i] for i in (-1, len(by_gain) // 2, 0)] if by_gain else []
if chosen:
    _, axes = plt.subplots(len(chosen), 4, figsize=(10, 2.6 * len(chosen)), squeeze=False, layout="constrained")
    for row, result in zip(axes, chosen, strict=True):
        view = capture.view(result.name)
        photo = view.load().rgb
        images = {arm: splatfix.render(splat, [view.camera]).rgb[0] for arm, splat in arms.items()}
        for axis, image in zip(row, (photo, images["control"], images["after"]), strict=False):
            axis.imshow(to_array(image))
        error = change(images["after"], photo) - change(images["control"], photo)
        row[3].imshow(error, cmap="RdBu_r", vmin=-0.15, vmax=0.15)
        row[0].set_ylabel(f"{result.band}, {result.gain['psnr']:+.2f} dB", fontsize=9)
    for axis, title in zip(axes[0], ("test photo", "control", "after", "change of the error"), strict=True):
        axis.set_title(title, fontsize=9)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    plt.show()

# %% [markdown]
# ## Save the splat
#
# `before.ply`, `control.ply` and `after.ply` are in the folder of the loop already. This writes the one that was best
# on the test photos, in the coordinates of the capture's files. It is a standard 3DGS `.ply`.

# %%
splatfix.write_splat(OUT / "best.ply", arms[best], file_from_world=world)
print(f"{OUT / 'best.ply'}: {best}, {len(arms[best].gaussians)} Gaussians")
print(f"in the browser:     splatfix view {OUT / 'best.ply'} {CAPTURE}")
print(f"for other programs: splatfix export {OUT / 'best.ply'} --format compressed-ply")

# %% [markdown]
# [Opening the splat elsewhere](../your-own-photos.md#opening-the-splat-elsewhere) lists the formats and the programs
# that read them. For the splat that you will use, fit all photos:
# `splatfix.ViewsConfig(num_train="all")`. Then no photo is left to test on, so find out first whether repair helps.
#
# ## Another restorer
#
# The novel views of above, repaired by others: `warp` takes pixels of the nearest photos where the depth allows it,
# `classical` smooths; and one of your own is an object with a method `repair`.


# %%
class Sharpen:
    """Sharpen each render by its difference from a blurred copy: an example of a restorer, not a good one."""

    def repair(self, views, *, seed):  # noqa: ARG002  (nothing in it is random)
        results = []
        for view in views:
            rgb = view.rgb
            blurred = (rgb.roll(1, 0) + rgb.roll(-1, 0) + rgb.roll(1, 1) + rgb.roll(-1, 1)) / 4
            results.append(splatfix.Repaired((rgb + 0.7 * (rgb - blurred)).clamp(0, 1)))
        return results


some = [views[i] for i in worst]
others = {"warp": "warp", "classical": "classical", "Sharpen": Sharpen()}
images = {name: splatfix.repair(some, restorer) for name, restorer in others.items()}
show([[view.rgb, *(images[name][i].rgb for name in others)] for i, view in enumerate(some)], ["render", *others])

# %% [markdown]
# Images do not tell which restorer makes the better splat. To find out, set `RESTORER` at the top and another `OUT`,
# and run all cells again; or try them all with `splatfix compare CAPTURE --restorers nafnet,warp --out runs/compare`.
# [Restorers](../restorers.md) describes all of them, [Training](../training.md) says how to train one.
