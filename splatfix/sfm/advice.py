"""Say in plain words why a photo was not registered, and what to photograph instead."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from splatfix.sfm.poser import PosedModel, matches_of

FEW_KEYPOINTS = 300
FEW_MATCHES = 30
BLURRED = 0.35  # of the median sharpness


def advise(name: str, model: PosedModel, registered: Collection[str], sharpness: Mapping[str, float]) -> str:
    """Explain why a photo has no camera, from its keypoints, its matches and its sharpness."""
    keypoints = model.num_keypoints.get(name)
    matches = matches_of(model, name, sorted(model.num_keypoints))
    partner = max(matches, key=lambda other: matches[other], default=None)
    if len(sharpness) > 2 and sharpness.get(name, np.inf) < BLURRED * float(np.median(list(sharpness.values()))):
        return "blurred, compared with the others: hold the camera still, in more light, and take it again"
    if keypoints is not None and keypoints < FEW_KEYPOINTS:
        return (
            f"hardly any texture ({keypoints} keypoints): bare walls, sky, glass and plain objects give nothing to "
            "match; take it from further away, with more around it, or lay a printed pattern beside the object"
        )
    if partner is None:
        return (
            "shows nothing that another photo shows: is it of this scene? If so, take photos between it and the others,"
            " each of which shows two thirds of what its neighbor shows"
        )
    num = matches[partner]
    if num < FEW_MATCHES:
        return (
            f"has {num} matches with {partner}, its nearest photo, and less with all others: too far apart; take one "
            "or two photos between them"
        )
    if partner not in registered:
        return (
            f"matches {partner} ({num} matches), but neither is connected with the registered photos: take photos on "
            "the way from here to them"
        )
    return (
        f"matches {partner} ({num} matches), but its position is uncertain: only turned instead of moved, or a flat or "
        "repeated pattern; step sideways and take one or two photos between them"
    )


def explain_failure(model: PosedModel, names: Collection[str]) -> str:
    """Explain why no model was found at all: what the best pair has, and what to photograph."""
    best = max(model.num_matches.items(), key=lambda item: item[1], default=None)
    if best is None:
        seen = f"no two of the {len(names)} photos show the same thing" if model.num_keypoints else "no model was found"
    else:
        (a, b), num = best
        seen = f"the best pair of {len(names)} photos, {a} and {b}, has {num} matches"
    return (
        f"{seen}; wanted three photos or more with some 100 matches to each other; take more photos, each a step "
        "sideways from the last and with two thirds of the same things in it"
    )
