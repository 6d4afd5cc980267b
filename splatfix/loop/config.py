"""Settings of the closed loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from splatfix.config import require
from splatfix.fit import FitRunConfig
from splatfix.rendering import is_repeatable
from splatfix.restoration.setting import RestorerSetting


@dataclass(frozen=True, kw_only=True)
class RepairConfig:
    """The rounds of a loop: which novel views are rendered and repaired, and how they are trained on.

    Attributes:
        rounds: rounds of render, repair, retrain.
        views: number of novel views per round.
        steps: training steps per round.
        outward: how far the last round steps outwards, as a fraction of the median distance of neighboring cameras.
        probability: share of the steps that show a repaired view instead of a photo.
        weight: factor of the loss of repaired views.
        min_coverage: a view is dropped where its render covers less than this share of what training views cover.
        num_references: training photos given to the restorer with each view.
        keep_rounds: views of this many latest rounds are trained on.
        siblings: further sparse fits with other seeds, trained for as many steps as the control; their renders are
            averaged with the fit's own before the repair, since what only one fit shows is an artifact. They are
            not exported.
        spread_scale: standard deviation between the fits, in color, at which trust in a pixel falls to 1/e; None
            trusts all alike.
        color_fit: scale the channels of each repaired view so that they agree with the photos, before training
            (`restoration.color_match`): gain, or None for no map. It takes back the drift of restorers that draw each
            view afresh.
        quality_scale: difference of color between a repaired pixel and the photos that see the same point at which
            trust falls to 1/e; None trusts all alike.
        unseen_trust: trust in repaired pixels that none of the view's references sees; used with quality_scale.
    """

    rounds: int = 2
    views: int = 24
    steps: int = 400
    outward: float = 0.5
    probability: float = 0.5
    weight: float = 1.0
    min_coverage: float = 0.5
    num_references: int = 2
    keep_rounds: int = 2
    siblings: int = 2
    spread_scale: float | None = None
    color_fit: Literal["gain"] | None = None
    quality_scale: float | None = None
    unseen_trust: float = 1.0

    def __post_init__(self) -> None:
        require(self.rounds >= 1, "repair.rounds", self.rounds, "at least 1 round")
        require(self.views >= 1, "repair.views", self.views, "at least 1 view per round")
        require(self.steps >= 1, "repair.steps", self.steps, "at least 1 step per round")
        require(self.outward >= 0, "repair.outward", self.outward, "0 or more")
        require(0 <= self.probability <= 1, "repair.probability", self.probability, "a share from 0 to 1")
        require(self.weight >= 0, "repair.weight", self.weight, "0 or more")
        require(self.siblings >= 0, "repair.siblings", self.siblings, "0 or more")
        require(self.keep_rounds >= 1, "repair.keep_rounds", self.keep_rounds, "at least 1 round")
        require(self.min_coverage >= 0, "repair.min_coverage", self.min_coverage, "0 or more")
        require(self.num_references >= 0, "repair.num_references", self.num_references, "0 or more")
        for name, scale in (("spread_scale", self.spread_scale), ("quality_scale", self.quality_scale)):
            require(scale is None or scale > 0, f"repair.{name}", scale, "above 0, or null")
        require(0 <= self.unseen_trust <= 1, "repair.unseen_trust", self.unseen_trust, "a share from 0 to 1")
        references = self.num_references
        if self.quality_scale is not None:
            wanted = "at least 1 with repair.quality_scale, which compares with photos"
            require(references >= 1, "repair.num_references", references, wanted)

    @property
    def compares_with_photos(self) -> bool:
        """Whether repaired views are compared with photos, to correct or to weight them; ``repairs.json`` says how."""
        return self.color_fit is not None or self.quality_scale is not None

    @property
    def num_steps(self) -> int:
        """Steps of all rounds together."""
        return self.rounds * self.steps


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Whether the rounds of a loop are validated on left-out training photos first (`loop.validation`).

    Attributes:
        photos: so many training photos are left out of a further loop each, at reduced size; rounds that do harm
            there are not run. Two of them at the default scale cost about as much time as the loop itself. 0 for none.
        scale: size of the images of these loops, as a share of the full size.
        margin_db: fewer rounds, or none, must be better than all of them by this, in the mean PSNR of these photos.
    """

    photos: int = 0
    scale: float = 0.5
    margin_db: float = 0.2

    def __post_init__(self) -> None:
        require(self.photos >= 0, "validate.photos", self.photos, "0 or more photos")
        require(0 < self.scale <= 1, "validate.scale", self.scale, "a share above 0, up to 1")
        require(self.margin_db >= 0, "validate.margin_db", self.margin_db, "0 or more")


@dataclass(frozen=True, kw_only=True)
class LoopConfig(FitRunConfig):
    """The whole loop over one capture: a sparse fit, and what follows it.

    Attributes:
        restorer: a name (identity, warp, classical, nafnet, ...), the folder of a checkpoint, or hf:USER/NAME of the
            Hugging Face Hub; with options, on the command line as in YAML, {name: nafnet, options: {strength: 0.8}}.
        seed: seed of all random choices.
        device: auto, cpu, cuda or cuda:N.
        video: write a before/after video along a path between and beyond the training cameras.
        checkpoint_seconds: seconds between checkpoints.
        estimate: where no photo is left to test on, so many are left out of further sparse fits, one at a time, to
            estimate the quality; 0 for no estimate.
        pose: how cameras are estimated where the photos have none.
        views: which photos, at which size.
        initial: where the Gaussians start.
        fit: the sparse fit.
        choose: how the sparse fit is stopped.
        repair: the rounds.
        validate: whether the rounds are validated on left-out training photos first.
        repeat_control: train the control a second time with the same seed, to measure how far two equal runs are apart
            (the run-to-run spread of the gain): auto where runs do not repeat exactly, which is on a GPU, always, or
            never. It costs as many steps as the control (rounds times steps) and a further render of each test view.
    """

    restorer: RestorerSetting = "nafnet"
    repair: RepairConfig = field(default_factory=RepairConfig)
    validate: ValidationConfig = field(default_factory=ValidationConfig)
    repeat_control: Literal["auto", "always", "never"] = "auto"

    def repeats_control(self, device: torch.device) -> bool:
        """Whether the control is trained a second time, for the run-to-run spread, by a run on this device."""
        return self.repeat_control == "always" or (self.repeat_control == "auto" and not is_repeatable(device))
