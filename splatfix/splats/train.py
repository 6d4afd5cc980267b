"""The training loop of splats: for sparse and dense fits and for retraining, on CPU and CUDA.

`Fit` is the state and `advance` trains it. Step ``s`` depends only on the state, the seed and ``s``, so an interrupted
fit that resumes from a checkpoint equals an uninterrupted one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splatfix.cameras import Camera
from splatfix.gaussians import Gaussians, RenderMode, Splat
from splatfix.profiling import OPTIMIZERS, section
from splatfix.rendering import render
from splatfix.splats.checkpoints import check_shapes, naming_checkpoint, read_checkpoint, write_checkpoint
from splatfix.splats.densify import Densifier, DensifyConfig
from splatfix.splats.losses import TrainingView, depth_loss, photometric_loss
from splatfix.splats.optimizers import ParameterGroup, create_adam, load_states
from splatfix.splats.regularization import (
    backpropagate_at_worst,
    compensate_dropout,
    decay_opacities,
    draw_uniform,
)

RECORD_EVERY = 25  # steps between recorded losses; fetching the loss synchronizes with the device
# Names that gsplat's strategies look up, in the order of the fields of `Gaussians`. As in gsplat, "scales" are
# log-scales and "opacities" are logits.
PARAMETERS = ("means", "scales", "quats", "opacities", "sh0", "shN")


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Settings of a fit.

    Attributes:
        steps: length of the schedule, in steps of one view each.
        ssim_weight: share of 1 - SSIM in the loss; the rest is L1.
        dropout: share of the Gaussians that each step on a photo drops at random (sparse fits overfit without it).
        flat_radius: how far steps near the end of the schedule displace Gaussians, in their standard deviations, to
            where the loss is worst, and train from the gradient there (`splats.regularization.find_worst_offsets`):
            fits that do not depend on exact positions show unseen views better. Not where Gaussians grow; such steps
            take twice as long. 0 turns it off.
        flat_start: share of the schedule after which steps do so, also those after the schedule.
        means_lr: initial learning rate of the positions, in scene sizes.
        means_lr_end: the same at the end of the schedule; it decays exponentially.
        scales_lr: learning rate of the log-scales, constant as all that follow.
        quats_lr: learning rate of the rotations.
        opacities_lr: learning rate of the opacity logits.
        sh0_lr: learning rate of the spherical harmonics of degree 0, the base color.
        shN_lr: learning rate of the higher spherical harmonics.
        exposure_lr: learning rate of an affine color map per photo (0 turns it off); the splat has the mean exposure.
        opacity_decay: factor of all opacities after each step (the opacity penalty of Binocular-Guided 3DGS, Han et al.
            2024): what no photo keeps up fades, such as Gaussians close to a camera. 1 turns it off.
        opacity_regularizer: weight of the mean opacity in the loss.
        scale_regularizer: weight of the mean scale, in scene sizes, in the loss.
        depth_weight: weight of estimated depth (`splats.losses.depth_loss`) in the loss of a photo; without
            initial.depth_model there is none.
        mode: classic, or antialiased (the opacity compensation of Mip-Splatting).
        densify: growth and pruning.
    """

    steps: int = 2000
    ssim_weight: float = 0.2
    dropout: float = 0.3
    flat_radius: float = 0.0
    flat_start: float = 0.75
    means_lr: float = 1.6e-4
    means_lr_end: float = 1.6e-5
    scales_lr: float = 5e-3
    quats_lr: float = 1e-3
    opacities_lr: float = 5e-2
    sh0_lr: float = 2.5e-3
    shN_lr: float = 1.25e-4  # noqa: N815 - gsplat's name for the higher bands
    exposure_lr: float = 0.0
    opacity_decay: float = 0.999
    opacity_regularizer: float = 0.0
    scale_regularizer: float = 0.0
    depth_weight: float = 0.05
    mode: RenderMode = "classic"
    densify: DensifyConfig = field(default_factory=DensifyConfig)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"fit.steps = {self.steps}: wanted at least 1 step")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"fit.dropout = {self.dropout}: wanted a share from 0 to below 1")
        if not 0 <= self.flat_radius <= 3:
            raise ValueError(f"fit.flat_radius = {self.flat_radius}: wanted 0 to 3 standard deviations")
        if not 0 <= self.flat_start <= 1:
            raise ValueError(f"fit.flat_start = {self.flat_start}: wanted a share of the schedule, from 0 to 1")
        if not 0 <= self.ssim_weight <= 1:
            raise ValueError(f"fit.ssim_weight = {self.ssim_weight}: wanted a share from 0 to 1")
        if not 0 < self.opacity_decay <= 1:
            raise ValueError(f"fit.opacity_decay = {self.opacity_decay}: wanted a factor above 0, 1 at most")
        if not 0 <= self.depth_weight < math.inf:
            raise ValueError(f"fit.depth_weight = {self.depth_weight}: wanted a weight of at least 0")

    @property
    def grows(self) -> bool:
        """Whether the strategy of densification, which ``auto`` leaves open, adds Gaussians."""
        return self.densify.strategy != "none"


class Fit:
    """A splat in training: parameters, optimizers and all other state.

    Attributes:
        config: settings.
        background: RGB behind the Gaussians; None is black.
        scene_scale: size of the scene in world units (`scene_scale`).
        step: number of completed steps.
        seconds: training time so far, updated by the caller.
        losses: (step, loss) every `RECORD_EVERY` steps.
        repaired_steps: steps of ``losses`` that were trained on a repaired view.
        notes: what readers of the run should know of its start.
        depth_photos: whether the estimated depth of each photo can be trusted; empty without estimates.
        max_log_scale: logarithm of the largest standard deviation that a Gaussian may have, in world units.
        params: parameters of the Gaussians by their names in `PARAMETERS`: ``params["scales"]`` are log-scales,
            ``params["opacities"]`` are logits.
        exposure: change of the color of each photo, an affine map ``[P, 3, 4]``.
        densifier: growth and pruning, with its state.
        optimizer: of the parameters, with a group for each; one optimizer costs the host less than six.
        optimizers: the groups by the same names, as gsplat's strategies expect them.
        exposure_optimizer: optimizer of the exposure; None if it is not trained.
    """

    def __init__(
        self,
        gaussians: Gaussians,
        config: FitConfig,
        *,
        scene_scale: float,
        num_photos: int,
        background: Sequence[float] | None = None,
    ) -> None:
        self.config = config
        self.background = background
        self.scene_scale = scene_scale
        self.step = 0
        self.seconds = 0.0
        self.losses: list[tuple[int, float]] = []
        self.repaired_steps: list[int] = []
        self.notes: tuple[str, ...] = ()
        self.depth_photos: tuple[bool, ...] = ()
        self.max_log_scale = math.inf
        values = (
            *(gaussians.means, gaussians.log_scales, gaussians.quats),
            *(gaussians.opacity_logits, gaussians.sh0, gaussians.sh_rest),
        )
        self.params = {  # as optimized: params["scales"] are log-scales, params["opacities"] are logits
            name: torch.nn.Parameter(value.detach().clone()) for name, value in zip(PARAMETERS, values, strict=True)
        }
        self.exposure = torch.nn.Parameter(torch.zeros(num_photos, 3, 4, device=gaussians.device))
        self.densifier = Densifier(config.densify, config.steps, scene_scale)
        self._create_optimizers()

    def _create_optimizers(self) -> None:
        c = self.config
        rates = {"means": c.means_lr * self.scene_scale, "scales": c.scales_lr, "quats": c.quats_lr}
        rates |= {"opacities": c.opacities_lr, "sh0": c.sh0_lr, "shN": c.shN_lr}
        self.optimizer = create_adam([(self.params[name], rates[name]) for name in PARAMETERS])
        self.optimizers = {name: ParameterGroup(self.optimizer, i) for i, name in enumerate(PARAMETERS)}
        self.exposure_optimizer = create_adam([(self.exposure, c.exposure_lr)]) if c.exposure_lr > 0 else None

    def gaussians(self) -> Gaussians:
        """Return the current Gaussians, in the autograd graph of the parameters."""
        return Gaussians(*(self.params[name] for name in PARAMETERS))

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.exposure.device

    def splat(self) -> Splat:
        """Return the current splat, with the mode and background of the fit; detached from the autograd graph."""
        return Splat(self.gaussians().detach(), self.config.mode, self.background)

    def copy(self) -> Fit:
        """Copy the fit; later training changes only one of the two."""
        twin = copy.copy(self)
        twin.load_state(copy.deepcopy(self.state()))
        return twin

    def state(self) -> dict:
        """Return the state from which another process resumes exactly."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "losses": list(self.losses),
            "repaired_steps": list(self.repaired_steps),
            "depth_photos": list(self.depth_photos),
            "max_log_scale": self.max_log_scale,
            "params": {name: value.detach() for name, value in self.params.items()},
            "exposure": self.exposure.detach(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "exposure_optimizer": self.exposure_optimizer.state_dict() if self.exposure_optimizer else None,
            "strategy": dict(self.densifier.state),
            "strategy_name": self.config.densify.strategy,
        }

    def load_state(self, state: dict) -> None:
        """Restore a state that `state` returned."""
        self.step = state["step"]
        self.seconds = state.get("seconds", 0.0)
        self.losses = [(step, loss) for step, loss in state["losses"]]
        self.repaired_steps = list(state.get("repaired_steps", []))  # a state of before this was kept has none
        self.depth_photos = tuple(state.get("depth_photos", ()))
        self.max_log_scale = state["max_log_scale"]
        self.params = {name: torch.nn.Parameter(value) for name, value in state["params"].items()}
        self.exposure = torch.nn.Parameter(state["exposure"])
        self.densifier = Densifier(self.config.densify, self.config.steps, self.scene_scale)
        self.densifier.state = dict(state["strategy"])
        self._create_optimizers()
        load_states(self.optimizer, [state["optimizers"][name] for name in PARAMETERS])
        if self.exposure_optimizer is not None:
            self.exposure_optimizer.load_state_dict(state["exposure_optimizer"])
        check_shapes(self.params, self.optimizers)

    def save(self, path: Path, identity: str) -> None:
        """Write a checkpoint, whole or not at all. ``identity`` identifies the fit (`splats.scene.fit_identity`)."""
        write_checkpoint(path, identity, self.state())

    def load(self, path: Path, identity: str) -> None:
        """Restore the state from a checkpoint. ValueError if it is damaged or belongs to another fit."""
        state = read_checkpoint(path, identity, self.params["means"].device)
        with naming_checkpoint(path):
            self.load_state(state)


def scene_scale(cameras: Sequence[Camera], depth: float) -> float:
    """Compute the size of the scene in world units, the unit of the learning rate of positions.

    As in 3DGS it is 1.1 times the largest distance of a camera center from the mean center. It is at least a tenth of
    the scene ``depth``, because cameras close together would otherwise freeze the positions.
    """
    centers = torch.tensor([camera.center.tolist() for camera in cameras])
    extent = float((centers - centers.mean(0)).norm(dim=1).max()) * 1.1
    return max(extent, 0.1 * depth)


def advance(
    fit: Fit,
    photos: Sequence[TrainingView],
    num_steps: int,
    *,
    seed: int,
    repaired: Sequence[TrainingView] = (),
    repaired_probability: float = 0.0,
    on_step: Callable[[Fit], object] | None = None,
) -> None:
    """Train for ``num_steps`` steps, one view each.

    A step uses a repaired view with ``repaired_probability`` (if there are any), else a photo. The photo of a step does
    not depend on the repaired views, so that a control fit without them has the same schedule.

    Args:
        fit: the state, updated in place.
        photos: views of the training photos, each used once per epoch.
        num_steps: number of steps.
        seed: of all random choices.
        repaired: repaired views.
        repaired_probability: share of the steps that use a repaired view.
        on_step: called after every step.

    Raises:
        FloatingPointError: a loss or a parameter is no longer finite. The error names the step and the parameter.
    """
    device = fit.device
    on_cpu = device.type == "cpu"
    background = torch.tensor(fit.background or (0.0, 0.0, 0.0), dtype=torch.float32, device=device)
    for step in range(fit.step, fit.step + num_steps):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
        _seed_globally(int(torch.randint(2**62, (), generator=generator)), on_cpu=on_cpu)  # for the strategies
        index = _choose_photo(step, len(photos), seed)
        view, is_photo = photos[index], True
        draw, pick = torch.rand(2, generator=generator).tolist()
        if repaired and draw < repaired_probability:
            view, is_photo = repaired[int(pick * len(repaired))], False
        loss = _train_step(fit, view, index if is_photo else None, background, generator)
        fit.step = step + 1
        is_recorded = fit.step % RECORD_EVERY == 0
        if on_cpu or is_recorded:
            value = float(loss)
            if not math.isfinite(value) or is_recorded:
                _check_finite(fit, value)
            if is_recorded:
                fit.losses.append((fit.step, value))
                fit.repaired_steps += [] if is_photo else [fit.step]
        if on_step is not None:
            on_step(fit)


def _seed_globally(seed: int, *, on_cpu: bool) -> None:
    """Seed torch's global generator; on the CPU only that one, since seeding all devices takes up to a millisecond."""
    if on_cpu:
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def _train_step(
    fit: Fit, view: TrainingView, photo: int | None, background: Tensor, generator: torch.Generator
) -> Tensor:
    """Train one step on a view, and return its loss. ``photo`` is the index of a photo; None for a repaired view."""
    config, params = fit.config, fit.params
    progress = min(fit.step / config.steps, 1.0)
    means_lr = fit.scene_scale * config.means_lr * (config.means_lr_end / config.means_lr) ** progress
    fit.optimizers["means"].param_groups[0]["lr"] = means_lr

    dropout = 0.0 if photo is None else config.dropout  # repaired views come from renders without dropout
    keep = draw_uniform(len(params["means"]), generator, fit.device) >= dropout if dropout > 0 else None
    compute_loss = partial(_compute_loss, fit, view, photo, background, dropout, keep)
    if config.flat_radius > 0 and not config.grows and progress >= config.flat_start:
        loss, info = backpropagate_at_worst(params["means"], fit.gaussians, compute_loss, config.flat_radius)
    else:
        loss, info = compute_loss()
        fit.densifier.before_backward(params, fit.optimizers, fit.step, info)
        with section("autograd"):
            loss.backward()

    optimizers = [fit.optimizer, *([fit.exposure_optimizer] if fit.exposure_optimizer else [])]
    with section(OPTIMIZERS):
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if config.opacity_decay < 1:
            decay_opacities(params["opacities"], config.opacity_decay)
        if fit.max_log_scale < math.inf:
            params["scales"].detach().clamp_(max=fit.max_log_scale)
    with section("densify"):
        if fit.densifier.is_due(fit.step):
            _check_finite(
                fit, float(loss.detach())
            )  # with NaN, drawing Gaussians would break CUDA for the whole process
        fit.densifier.after_step(params, fit.optimizers, fit.step, info, means_lr)
    return loss.detach()


def _compute_loss(
    fit: Fit, view: TrainingView, photo: int | None, background: Tensor, dropout: float, keep: Tensor | None
) -> tuple[Tensor, dict[str, Any]]:
    """Render a view and compute its loss; returns also ``info`` of the rendering."""
    config, params = fit.config, fit.params
    gaussians = compensate_dropout(fit.gaussians(), dropout) if dropout > 0 else fit.gaussians()
    with_depth = photo is not None and config.depth_weight > 0 and any(fit.depth_photos[photo : photo + 1])
    with section("render"):
        rendering = render(Splat(gaussians, config.mode, background), [view.camera], keep=keep, with_depth=with_depth)
    rgb = rendering.rgb[0]
    if fit.exposure_optimizer is not None and photo is not None:
        exposure = fit.exposure[photo] - fit.exposure.mean(0)
        rgb = rgb + rgb @ exposure[:, :3].T + exposure[:, 3]
    with section("loss"):
        loss = view.weight * photometric_loss(rgb, view.rgb, config.ssim_weight, view.confidence, view.validity)
        if with_depth and view.nearness is not None:
            loss = loss + config.depth_weight * depth_loss(rendering, view.nearness, view.validity)
    if config.opacity_regularizer > 0:
        loss = loss + config.opacity_regularizer * params["opacities"].sigmoid().mean()
    if config.scale_regularizer > 0:
        loss = loss + config.scale_regularizer * params["scales"].exp().mean() / fit.scene_scale
    return loss, rendering.info


def _choose_photo(step: int, num_photos: int, seed: int) -> int:
    """Choose the photo of a step: every photo once per epoch, in an order that changes from epoch to epoch."""
    generator = torch.Generator().manual_seed((seed * 7_368_787 + step // num_photos) % 2**63)
    return int(torch.randperm(num_photos, generator=generator)[step % num_photos])


def _check_finite(fit: Fit, loss: float) -> None:
    """Check the parameters and the loss. FloatingPointError names the first that is not finite."""
    not_finite = [name for name, value in fit.params.items() if not bool(torch.isfinite(value).all())]
    if not_finite or not math.isfinite(loss):
        if not_finite:
            fault = f"parameter {not_finite[0]!r} is no longer finite"
        else:
            fault = f"loss = {loss} with finite parameters"
        raise FloatingPointError(f"step {fit.step}: {fault}; try a smaller learning rate for it, or another seed")
