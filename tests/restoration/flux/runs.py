"""Restorers with tiny models, and views for them."""

from __future__ import annotations

from typing import Any

from splatfix.flawed import FlawedView
from splatfix.restoration import Restorer, RestorerChoice, open_restorer
from tests.restoration.flux.tiny import TinyModels
from tests.restoration.scenery import flawed_view


def views(num: int, width_px: int = 50, height_px: int = 41) -> list[FlawedView]:
    """Views of one size, which no model takes as it is."""
    return [flawed_view(seed, width_px, height_px) for seed in range(num)]


def open_flux(tiny: TinyModels, **options: Any) -> Restorer:
    """FLUX with its two ControlNets on the CPU, at the size of the views, four steps of which two are run."""
    models = {"model": tiny.flux, "edge_controlnet": tiny.edge, "depth_controlnet": tiny.depth}
    return open_tiny("flux-controlnet", models | {"depth_model": tiny.depth_anything, "strength": 0.5} | options)


def open_turbo(tiny: TinyModels, **options: Any) -> Restorer:
    """A Stable Diffusion pipeline on the CPU, at the size of the views."""
    return open_tiny("img2img", {"model": tiny.turbo} | options)


def open_tiny(name: str, options: dict[str, Any]) -> Restorer:
    """A restorer on the CPU, at the size of the views."""
    return open_restorer(RestorerChoice(name=name, options={"steps": 4, "size": {"min_side_px": 0}} | options), "cpu")
