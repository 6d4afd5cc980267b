"""The first sentences on the page of a comparison."""

from __future__ import annotations

import math

from splatfix.evaluation.noise import MIN_VIEWS, NUM_ERRORS
from splatfix.report.compare.figures import comparison_figures
from splatfix.report.compare.results import CompareResults
from splatfix.report.wording import PSNR, Headline, format_count, format_number

FLOOR = "identity"  # the restorer whose gain comes from averaging fits alone
NOTICEABLE_RATIO = 1.15  # error of warped views over that of the photos, above which views disagree


def compare_headline(results: CompareResults) -> Headline:
    """Which restorer gains most in 3D, whether the seeds agree on that, and which one looks best frame by frame."""
    gains = {r.label: gain for r in results.restorers if (gain := r.mean("gain")) is not None}
    if not gains:
        return Headline("No restorer has been measured yet.", (), "", "", "plain")
    best = max(gains, key=lambda label: gains[label])
    figure = f"{format_number(gains[best], 2, signed=True)} dB"
    spread = next(r for r in results.restorers if r.label == best).spread("gain")
    cases = format_count(len(results.cases), "case")
    equal = [label for label in gains if label != best and PSNR.improves(gains[best] - gains[label]) is None]
    if PSNR.improves(gains[best]):
        sentence = f"{best} gains most in 3D: {figure} PSNR over {cases}"
        sentence += "." if spread is None else f", with a standard deviation of {format_number(spread, 2)} dB."
        tone = "good" if _is_certain(gains[best], spread, len(results.cases)) else "plain"
    elif PSNR.improves(gains[best]) is False:
        sentence, tone = f"Every restorer makes the splat worse; {best} does least harm, {figure}.", "plain"
    else:
        sentence, tone = f"No restorer gains noticeably in 3D; {best} comes first with {figure}.", "plain"
    details = [detail for detail in (_frames_sentence(results, best), _consistency_sentence(results)) if detail]
    if FLOOR in gains and best != FLOOR:
        floor = format_number(gains[FLOOR], 2, signed=True)
        details.append(f"{FLOOR}, which repairs nothing and only averages several fits, gains {floor} dB.")
    if equal:
        details.append(f"As good, within {PSNR.noticeable:g} dB of {best}: {', '.join(equal)}.")
    if len(results.cases) < 3:
        details.append("Fewer than three cases: small differences may be chance.")
    return Headline(sentence, tuple(details), figure, "largest PSNR gain", tone)


def _is_certain(gain: float, spread: float | None, num: int) -> bool:
    """Whether a mean gain over cases stands out from its standard error; never with fewer than three cases."""
    return num >= MIN_VIEWS and spread is not None and gain >= NUM_ERRORS * spread / math.sqrt(num)


def _frames_sentence(results: CompareResults, best: str) -> str | None:
    changes = {r.label: change for r in results.restorers if (change := r.mean("frame_change", "psnr")) is not None}
    if not changes:
        return None
    sharpest = max(changes, key=lambda label: changes[label])
    change_text = f"{format_number(changes[sharpest], 2, signed=True)} dB"
    if sharpest == best:
        return f"It is also best on single frames ({change_text})."
    return f"On single frames {sharpest} is best ({change_text}): better frames do not always make a better splat."


def _consistency_sentence(results: CompareResults) -> str | None:
    ratios = {r.label: ratio for r in results.restorers if (ratio := comparison_figures(r).warp_ratio) is not None}
    if not ratios:
        return None
    worst = max(ratios, key=lambda label: ratios[label])
    if ratios[worst] <= NOTICEABLE_RATIO:
        return None
    times = format_number(ratios[worst], 2)
    return f"The views of {worst} disagree most with each other: {times} times the error of the photos."
