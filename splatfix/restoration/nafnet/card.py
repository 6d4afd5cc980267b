"""The model card of a checkpoint (README.md): what the restorer is, what it was trained on, and how much it helps."""

from __future__ import annotations

import json
from typing import Any


def model_card(config: dict[str, Any], *, num_parameters: int) -> str:
    """Write the card from a checkpoint's config, as Markdown; it leaves out what was not measured."""
    network, provenance = config["network"], dict(config["provenance"])
    validation = provenance.pop("validation", None)
    groups = {name: provenance.pop(name, None) for name in ("train_groups", "validation_groups")}
    credits = provenance.pop("credits", None) or {}
    inputs = ["render", *(["alpha"] if network["alpha"] else []), *(["inverse depth"] if network["depth"] else [])]
    inputs += network.get("buffers") or []
    if network["num_references"]:
        inputs.append(f"{network['num_references']} nearby photos warped in by depth")
    lines = [
        "# A restorer for flawed renders of sparse 3D Gaussian splats",
        "",
        f"NAFNet of width {network['width']} with a {network['head']} head, {num_parameters / 1e6:.2f} M parameters.",
        f"Inputs: {', '.join(inputs)}. {config['strength']:.0%} of its correction is applied.",
        "",
        "```",
        "splatfix loop CAPTURE --restorer THIS_FOLDER --out RUN",
        "```",
        "",
    ]
    if validation:
        best = validation["by_strength"][str(validation["strength"])]
        scenes = "one scene" if len(best["by_scene"]) == 1 else f"{len(best['by_scene'])} scenes"
        lines += [
            "## Validation",
            "",
            f"Mean over {scenes} of held-out groups, {validation['num_pairs']} pairs, against "
            f"the unrepaired render: PSNR {best['psnr_gain']:+.2f} dB, SSIM {best['ssim_gain']:+.4f}.",
            "",
            "| strength | PSNR gain (dB) | SSIM gain |",
            "|---|---|---|",
            *(
                f"| {strength} | {row['psnr_gain']:+.3f} | {row['ssim_gain']:+.4f} |"
                for strength, row in validation["by_strength"].items()
            ),
            "",
            "| scene | PSNR gain (dB) |",
            "|---|---|",
            *(f"| {scene} | {gain['psnr_gain']:+.2f} |" for scene, gain in best["by_scene"].items()),
            "",
            *_describe_parts(best),
            *_describe_calibration(validation.get("calibration")),
        ]
    lines += ["## Data", ""]
    for name, scenes in groups.items():
        if scenes:
            lines.append(f"- {name.replace('_', ' ')}: {', '.join(scenes)}")
    if credits:
        lines += ["", "| training photos | license and credit |", "|---|---|"]
        lines += [
            f"| {scene} | {' '.join(str(credit).split()).replace('|', '/')} |" for scene, credit in credits.items()
        ]
    lines += [
        "",
        "## Limits",
        "",
        "Never evaluate it on a group that it was trained on. It sharpens and cleans what the render and nearby photos",
        "show; it does not invent what none of them saw.",
        "",
        "## Provenance",
        "",
        "```json",
        json.dumps(provenance, indent=1),
        "```",
        "",
    ]
    return "\n".join(lines)


def _describe_parts(gains: dict[str, Any]) -> list[str]:
    """Gains where the render was good, and where it was bad."""
    if "psnr_gain_good" not in gains or "psnr_gain_bad" not in gains:
        return []
    good, bad = (f"{gains[name]:+.2f} dB" for name in ("psnr_gain_good", "psnr_gain_bad"))
    return [f"Where the render was good (an error of at most 0.05) the PSNR changes by {good}, elsewhere by {bad}.", ""]


def _describe_calibration(calibration: dict[str, Any] | None) -> list[str]:
    """A table of the error that the network expects and the error that is found, by deciles."""
    if not calibration:
        return []
    scale, power = calibration["scale"], calibration["power"]
    return [
        "Absolute error of the repaired image, as the network expects it, calibrated "
        f"(`{scale:.2f} * expected ** {power:.2f}`), and as it is found, by tenths of the pixels:",
        "",
        "| expected | calibrated | found |",
        "|---|---|---|",
        *(
            f"| {row['expected']:.4f} | {scale * row['expected'] ** power:.4f} | {row['found']:.4f} |"
            for row in calibration["deciles"]
        ),
        "",
    ]
