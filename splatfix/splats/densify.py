"""Densification: growth and pruning of Gaussians during a fit, by gsplat's strategies, on CPU and CUDA.

`gsplat.strategy` works on dictionaries of parameters and optimizers. Three of its internals are replaced here:
``DefaultStrategy._grow_gs``, to cap the number of Gaussians, and, on the CPU, two helpers that need CUDA, by the same
formulas in torch. So the range of gsplat's versions is pinned, and a test fails when these internals change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from splatfix.gaussians import covariances
from splatfix.shapes import Float, Int

Strategy = Literal["auto", "none", "default", "mcmc"]


@dataclass(frozen=True, kw_only=True)
class DensifyConfig:
    """Settings of densification.

    Attributes:
        strategy: ``none`` keeps the initial Gaussians; ``default`` clones and splits where image-plane gradients are
            high (Kerbl et al. 2023); ``mcmc`` relocates dead ones and samples new ones (Kheradmand et al. 2024);
            ``auto`` is ``default`` where the photos overlap, and ``none`` elsewhere: there Gaussians that grow explain
            each photo by itself.
        min_overlap: ``auto``: share of the pixels whose depth two photos agree on from which Gaussians grow.
        rates_growing: ``auto``: factor of all learning rates but those of opacities and exposure where Gaussians grow:
            new ones have little time to learn. The rate of the positions still ends at fit.means_lr_end.
        max_gaussians: largest number of Gaussians; at this number growth stops.
        start: share of the schedule after which refinement starts.
        stop: share of the schedule after which refinement stops.
        every: steps between refinements.
        grow_gradient: ``default``: threshold of the image-plane gradient, in normalized device units.
        prune_opacity: Gaussians below this opacity are removed or relocated.
        noise: ``mcmc``: multiplier of the position noise (0 turns it off; it hurts sparse fits).
    """

    strategy: Strategy = "auto"
    min_overlap: float = 0.35
    rates_growing: float = 4.0
    max_gaussians: int = 30_000
    start: float = 0.1
    stop: float = 0.7
    every: int = 50
    grow_gradient: float = 2e-4
    prune_opacity: float = 0.005
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.rates_growing < math.inf:
            raise ValueError(f"fit.densify.rates_growing = {self.rates_growing}: wanted a factor above 0, such as 4")


def choose_strategy(config: DensifyConfig, overlap: float | None) -> tuple[Strategy, str | None]:
    """Choose a strategy where it is ``auto``; returns the strategy, and a note if there was something to choose.

    ``overlap`` is the share of the pixels whose depth two photos agree on; None where no depth was looked for.
    """
    if config.strategy != "auto":
        return config.strategy, None
    if overlap is None:
        return "none", None
    if overlap >= config.min_overlap:
        note = f"the photos overlap (two agree on the depth of {overlap:.0%} of their pixels): Gaussians are added"
        return "default", note
    note = f"the photos overlap little (two agree on the depth of {overlap:.0%} of their pixels): no Gaussian is added"
    return "none", note


class Densifier:
    """A strategy of gsplat and its running state. With the strategy ``none`` its methods do nothing.

    Raises:
        ValueError: the strategy is ``auto``, which has to be resolved first (`choose_strategy`).
    """

    def __init__(self, config: DensifyConfig, num_steps: int, scene_scale: float) -> None:
        self.config = config
        self.strategy: Any = None
        self.state: dict[str, Any] = {}
        if config.strategy == "auto":
            raise ValueError("densify.strategy = 'auto': the overlap of the photos is not known; wanted one by name")
        if config.strategy == "none":
            return
        shared = {
            "refine_start_iter": int(config.start * num_steps),
            "refine_stop_iter": int(config.stop * num_steps),
            "refine_every": config.every,
        }
        if config.strategy == "default":
            self.strategy = _capped_default_strategy(
                config.max_gaussians,
                **shared,
                grow_grad2d=config.grow_gradient,
                prune_opa=config.prune_opacity,
                reset_every=10**9,
            )
            self.state = self.strategy.initialize_state(scene_scale)
        else:
            from gsplat.strategy import MCMCStrategy

            self.strategy = MCMCStrategy(
                **shared,
                cap_max=config.max_gaussians,
                min_opacity=config.prune_opacity,
                noise_lr=5e5 * config.noise,
            )
            self.state = self.strategy.initialize_state()

    def is_due(self, step: int) -> bool:
        """Whether `after_step` refines the Gaussians at this step."""
        strategy = self.strategy
        if strategy is None or not strategy.refine_start_iter < step < strategy.refine_stop_iter:
            return False
        return step % strategy.refine_every == 0

    def before_backward(self, params: dict, optimizers: dict, step: int, info: dict[str, Any]) -> None:
        """Prepare for a step's gradients; to be called between the forward pass and ``loss.backward()``."""
        if self.strategy is not None and step < self.strategy.refine_stop_iter:
            self.strategy.step_pre_backward(params, optimizers, self.state, step, info)

    def after_step(self, params: dict, optimizers: dict, step: int, info: dict[str, Any], means_lr: float) -> None:
        """Refine the Gaussians if the step is due; to be called after the step of the optimizers.

        Replaces parameters and optimizer states in place, and may change the number of Gaussians.
        """
        if self.strategy is None or step >= self.strategy.refine_stop_iter:
            return
        if self.config.strategy == "mcmc":
            _patch_mcmc_helpers(params["means"].device)
            self.strategy.step_post_backward(params, optimizers, self.state, step, info, lr=means_lr)
            return
        self.strategy.step_post_backward(params, optimizers, self.state, step, info)


def _capped_default_strategy(max_gaussians: int, **settings: Any) -> Any:
    """Make gsplat's DefaultStrategy with at most ``max_gaussians``: near the cap, the highest gradients grow first."""
    from gsplat.strategy import DefaultStrategy

    class CappedDefaultStrategy(DefaultStrategy):
        grow_grad2d: float

        def _grow_gs(self, params, optimizers, state, step):
            threshold = self.grow_grad2d
            room = max_gaussians - len(params["means"])
            gradients = state["grad2d"] / state["count"].clamp_min(1)
            if room <= 0:
                self.grow_grad2d = math.inf
            elif int((gradients > threshold).sum()) > room:  # each Gaussian that grows adds one
                self.grow_grad2d = float(gradients.kthvalue(len(gradients) - room).values)
            try:
                return super()._grow_gs(params, optimizers, state, step)
            finally:
                self.grow_grad2d = threshold

    return CappedDefaultStrategy(**settings)


def relocate(
    opacities: Float[Tensor, " N"],
    scales: Float[Tensor, "N 3"],
    ratios: Int[Tensor, " N"],
    binoms: Float[Tensor, "M M"],
) -> tuple[Float[Tensor, " N"], Float[Tensor, "N 3"]]:
    """Compute opacities and scales with which ``ratios`` copies together equal the original (3DGS-MCMC, eq. 9).

    Args:
        opacities: in (0, 1).
        scales: standard deviations.
        ratios: number of copies, at least 1; at most M.
        binoms: binomial coefficients ``binoms[n, k]``.
    """
    ratios = ratios.clamp(1, len(binoms)).long()
    old = opacities.double()
    new = 1 - (1 - old) ** (1.0 / ratios)
    denominator = torch.zeros_like(old)
    for i in range(1, int(ratios.max()) + 1 if len(ratios) else 1):
        inner = sum(binoms[i - 1, k].double() * (-1) ** k / math.sqrt(k + 1) * new ** (k + 1) for k in range(i))
        denominator += torch.where(i <= ratios, inner, torch.zeros_like(old))
    return new.to(opacities.dtype), (scales.double() * (old / denominator)[:, None]).to(scales.dtype)


def _quat_scale_to_covar_preci(quats, scales, compute_covar=True, compute_preci=True, triu=False):  # noqa: ARG001
    """Replace gsplat's helper of that name; computes only covariances."""
    return covariances(quats, scales), None


def _patch_mcmc_helpers(device: torch.device) -> None:
    """Replace gsplat's relocation and covariance helpers, which need CUDA, on the CPU; restore them on CUDA."""
    from gsplat import quat_scale_to_covar_preci
    from gsplat.relocation import compute_relocation
    from gsplat.strategy import ops

    on_cpu = device.type == "cpu"
    ops.compute_relocation = relocate if on_cpu else compute_relocation
    ops.quat_scale_to_covar_preci = _quat_scale_to_covar_preci if on_cpu else quat_scale_to_covar_preci
