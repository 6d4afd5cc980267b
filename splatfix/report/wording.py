"""Numbers in words: the title of each metric, the format of numbers, and the headline of a run.

The headline names the baseline of the gain, by how much it was beaten, and whether the metrics disagree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from splatfix.evaluation.noise import PairedGain, paired_gain
from splatfix.evaluation.results import ARMS, LOWER_IS_BETTER, Estimate, Results, ViewResult
from splatfix.evaluation.validation import describe_validation
from splatfix.report.load import RunFiles
from splatfix.views import BANDS

NONE = "—"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a metric of ``results.json`` is shown.

    Attributes:
        key: its key in the results.
        title: its name, with the unit.
        digits: decimals shown.
        noticeable: a change below this is called no change.
        note: a sentence for readers.
    """

    key: str
    title: str
    digits: int
    noticeable: float = 0.0
    note: str = ""

    @property
    def higher_is_better(self) -> bool:
        """The direction of improvement."""
        return self.key not in LOWER_IS_BETTER

    def improves(self, change: float | None) -> bool | None:
        """Whether a change is for the better; None where it is below notice or unknown."""
        if change is None or abs(change) < self.noticeable:
            return None
        return (change > 0) == self.higher_is_better


PSNR = Metric(key="psnr", title="PSNR, dB", digits=2, noticeable=0.05, note="Higher is better.")
SSIM = Metric(key="ssim", title="SSIM", digits=3, noticeable=0.002, note="Higher is better.")
LPIPS = Metric(
    key="lpips",
    title="LPIPS",
    digits=3,
    noticeable=0.002,
    note="Lower is better: a negative gain is an improvement.",
)
PSNR_MASK = Metric(
    key="psnr_mask", title="PSNR inside the mask, dB", digits=2, noticeable=0.05, note="Only pixels of the object."
)
PSNR_COLOR = Metric(
    key="psnr_color_corrected",
    title="PSNR, color-corrected, dB",
    digits=2,
    noticeable=0.05,
    note="After an affine fit of the colors to each photo: leaves out exposure and white balance.",
)
MAIN_METRICS = (PSNR, SSIM, LPIPS)  # shown also where they were not measured, with the reason
METRICS = (*MAIN_METRICS, PSNR_MASK, PSNR_COLOR)

BASELINES = {"before": "the sparse fit", "control": "the control, trained on without repaired views"}


@dataclass(frozen=True)
class Headline:
    """The top of a page: a sentence, further sentences, one large figure with its caption, and a tone."""

    sentence: str
    details: tuple[str, ...]
    figure: str
    caption: str
    tone: str  # "good", "bad" or "plain"


def format_number(value: float | None, digits: int, signed: bool = False) -> str:
    """Format a number with a fixed number of decimals and a true minus; an em dash for None."""
    if value is None:
        return NONE
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        text = f"{0:.{digits}f}" if not signed else f"±{0:.{digits}f}"
    return text.replace("-", "−")


def describe_ignored(results: Results) -> list[str]:
    """Say how much of the photos masks leave out: a list of one sentence, or of none."""
    if results.ignored is None:
        return []
    sentence = f"Masks leave out {100 * results.ignored.train:.1f} % of the pixels of the training photos"
    if results.ignored.test is not None:
        sentence += f", and {100 * results.ignored.test:.1f} % of those of the test photos"
    return [f"{sentence}."]


def format_count(num: int, singular: str) -> str:
    """Format a number of things: ``3 photos``, ``1 photo``."""
    return f"{num} {singular}" if num == 1 else f"{num} {singular}s"


def format_duration(seconds: float) -> str:
    """Format a duration: ``3 min 20 s``, ``4.2 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def format_time(text: str) -> str:
    """Format an ISO time for people: ``28 Nov 2026, 08:10 UTC``; other text unchanged."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = " UTC" if time.utcoffset() == timedelta(0) else f" {time:%z}" if time.tzinfo else ""
    return f"{time.day} {time:%b %Y, %H:%M}{zone}"


def shorten_commit(text: str) -> str:
    """Shorten the hash of a commit, and keep what follows it."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{28}\b", r"\1", text)


def baseline_arm(results: Results) -> str | None:
    """The better of ``before`` and ``control`` by mean PSNR: what the gain is measured against."""
    values = {arm: results.summary.value("all", arm, "psnr") for arm in BASELINES}
    known = {arm: value for arm, value in values.items() if value is not None}
    return max(known, key=lambda arm: known[arm]) if known else None


def recommended_arm(results: Results) -> str | None:
    """The splat of a run to take: the last, unless it is not better on the test photos beyond noise; None for none."""
    exported = [arm for arm in ("after", "control", "before") if arm in results.num_gaussians]
    baseline, gain = baseline_arm(results), run_gain(results)
    if baseline in exported and gain is not None and gain.verdict != "better":
        return baseline
    if gain is None and results.validation is not None and results.validation.kept_rounds == 0:
        return results.validation.unrepaired
    return exported[0] if exported else None


def run_gain(results: Results, metric: Metric = PSNR) -> PairedGain | None:
    """The gain of a run over its test views with its standard error; None where it was not measured."""
    spread = None if results.spread is None else results.spread.get(metric.key)
    return paired_gain(results.views, metric.key, noticeable=metric.noticeable, spread=spread)


def format_gain(gain: PairedGain, digits: int) -> str:
    """Format a gain with its standard error: ``+0.11 ± 0.04``; without one where the views are too few."""
    mean = format_number(gain.mean, digits, signed=True).removeprefix("±")
    return mean if gain.standard_error is None else f"{mean} ± {format_number(gain.standard_error, digits)}"


def verdict(results: Results) -> str | None:
    """Which splat of a loop to take, and why, in one line; None for a run without a gain."""
    gain, baseline = run_gain(results), baseline_arm(results)
    if gain is None or baseline is None:
        return None
    figures = f"{format_gain(gain, PSNR.digits)} dB"
    photos = format_count(gain.num, "test photo")
    if gain.spread is not None:
        photos += f", run-to-run spread {format_number(gain.spread, PSNR.digits)} dB"
    if gain.verdict == "better":
        return f"after.ply is better than {baseline}.ply by {figures} ({photos}): use after.ply"
    advice = f"try {what_to_try(results)} (docs/your-own-photos.md)"
    if gain.verdict == "within noise":
        return f"within noise ({figures}, {photos}): use {baseline}.ply, it took no repaired views; {advice}"
    if gain.verdict == "too small":
        return f"too small to notice ({figures}, {photos}): use {baseline}.ply, it took no repaired views; {advice}"
    return f"the loop did not help here ({figures}, {photos}): use {baseline}.ply; {advice}"


def what_to_try(results: Results) -> str:
    """What may help where the repair did not: another restorer, or more photos."""
    other = "nafnet" if results.restorer != "nafnet" else "warp"
    return f"--restorer {other} or more photos"


def view_gain(view: ViewResult) -> float | None:
    """PSNR gain at one test view, in dB."""
    return None if view.gain is None else view.gain["psnr"]


def headline(run: RunFiles) -> Headline:
    """What the run gained or did not, in plain words."""
    results = run.results
    photos = format_count(len(results.views), "test photo")
    gain = run_gain(results)
    if gain is not None:
        return _loop_headline(results, gain, photos)
    reached = {arm: results.summary.value("all", arm, "psnr") for arm in ARMS}
    known = [arm for arm in ARMS if reached[arm] is not None]
    if not known and results.estimate is not None:
        return _estimate_headline(results, results.estimate)
    if not known:
        why = results.reasons.get("psnr")
        return Headline(
            "Nothing could be measured in this run.",
            (f"Reason: {why}.",) if why else (),
            NONE,
            "PSNR on test photos",
            "plain",
        )
    arm = known[-1] if known[-1] != "post" or len(known) == 1 else known[-2]
    num_train = len(run.train_ids)
    source = f"From {format_count(num_train, 'photo')}, the fit" if arm == "before" and num_train else "The splat"
    if arm == "before" and not num_train:
        source = "The fit"
    value = format_number(reached[arm], 2)
    return Headline(
        f"{source} reaches {value} dB PSNR on {photos}.",
        tuple(filter(None, (_other_values(results, arm), _missing_lpips(results)))),
        f"{value} dB",
        "mean PSNR on test photos",
        "plain",
    )


def _estimate_headline(results: Results, estimate: Estimate) -> Headline:
    """All photos were fitted, so that none is left to measure on."""
    value = format_number(estimate.psnr, 2)
    photos = format_count(len(estimate.photos), "photo")
    details = [
        f"Each of the {photos} was left out of a further sparse fit, and compared with its render. Such a photo is "
        "farther from the others than most new views are, so the estimate is rather too low.",
    ]
    if results.validation is not None:
        details.append(describe_validation(results.validation))
    elif "after" in results.num_gaussians:
        details.append(
            "It is of the sparse fit: what the repair gains is not known without test photos (--validate.photos 2 "
            "estimates that, too)."
        )
    return Headline(
        f"No photo was left to test on. The sparse fit is estimated to reach {value} dB PSNR.",
        tuple(details),
        f"≈ {value} dB",
        "estimated PSNR of the sparse fit, from photos left out",
        "plain",
    )


def _loop_headline(results: Results, gain: PairedGain, photos: str) -> Headline:
    arm = baseline_arm(results) or "before"
    base = format_number(results.summary.value("all", arm, "psnr"), 2)
    after = format_number(results.summary.value("all", "after", "psnr"), 2)
    change = format_number(abs(gain.mean), 2)
    if gain.standard_error is not None:
        change += f" ± {format_number(gain.standard_error, 2)}"
    others, disagree = _others(results, gain)
    against = f"{after} dB against {base} dB for {BASELINES[arm]}"
    use = f" Use {arm}.ply, which took no repaired views."
    if gain.verdict == "within noise":
        sentence = f"No difference beyond noise: PSNR on {photos} changes by {format_gain(gain, 2)} dB, {against}.{use}"
        tone = "plain"
    elif gain.verdict == "too small":
        sentence = f"Next to no difference: PSNR on {photos} changes by {format_gain(gain, 2)} dB, {against}.{use}"
        tone = "plain"
    elif gain.verdict == "better":
        sentence = f"The loop made this splat better: PSNR on {photos} is {change} dB higher, {against}."
        tone = "good"
    else:
        sentence = f"The loop did not help here: PSNR on {photos} is {change} dB lower, {against}."
        tone = "bad"
        if not disagree:
            sentence += f" Better use {arm}.ply."
    advice = None if gain.verdict == "better" else f"What may help: {what_to_try(results)}."
    validated = None if results.validation is None else describe_validation(results.validation)
    parts = (advice, validated, others, _spread(results), _bands(results), _noise(gain), _missing_lpips(results))
    details = tuple(filter(None, parts))
    caption = "PSNR gain on test photos"
    if gain.spread is not None:
        caption += f"; run-to-run spread {format_number(gain.spread, 2)} dB"
    return Headline(sentence, details, f"{format_gain(gain, 2)} dB", caption, tone)


def _noise(gain: PairedGain) -> str:
    """Say how the verdict was found."""
    if gain.standard_error is None:
        words = f"From {format_count(gain.num, 'test photo')} no error of the gain can be given."
    else:
        words = "± is the standard error over the test photos; a gain of less than twice that is called noise."
    if gain.spread is not None:
        words += (
            f" Two controls with the same seed are {format_number(gain.spread, 2)} dB apart on this device (run-to-run "
            "spread); a gain of less is called noise, too."
        )
    return words


def _others(results: Results, psnr: PairedGain) -> tuple[str | None, bool]:
    """What the other metrics did, and whether any of them contradicts PSNR."""
    parts, disagreement = [], False
    for metric in (SSIM, LPIPS, PSNR_MASK):
        gain = run_gain(results, metric)
        if gain is None:
            continue
        name, unit = metric.title.removesuffix(", dB"), " dB" if metric.title.endswith(", dB") else ""
        change = f"{'rose' if gain.mean > 0 else 'fell'} by {format_number(abs(gain.mean), metric.digits)}{unit}"
        said = {"within noise": "is unchanged within noise", "too small": "is next to unchanged"}
        parts.append(f"{name} {said.get(gain.verdict, f'{change}, which is {gain.verdict}')}")
        disagreement |= {gain.verdict, psnr.verdict} == {"better", "worse"}
    text = "; ".join(parts) + "." if parts else None
    return (f"The metrics disagree: {text}" if disagreement else text), disagreement


def _other_values(results: Results, arm: str) -> str | None:
    values = {m: results.summary.value("all", arm, m.key) for m in (SSIM, LPIPS)}
    parts = [f"{m.title} {format_number(value, m.digits)}" for m, value in values.items() if value is not None]
    return ", ".join(parts) + "." if parts else None


def _spread(results: Results) -> str | None:
    gains = [gain for gain in map(view_gain, results.views) if gain is not None]
    if len(gains) < 2:
        return None
    better = sum(PSNR.improves(gain) is True for gain in gains)
    worse = sum(PSNR.improves(gain) is False for gain in gains)
    return (
        f"Of {len(gains)} views {better} got better and {worse} worse by {PSNR.noticeable} dB or more; they range from "
        f"{format_number(min(gains), 2, signed=True)} to {format_number(max(gains), 2, signed=True)} dB."
    )


def _bands(results: Results) -> str | None:
    gains = {band: results.summary.value(band, "gain", "psnr") for band in BANDS}
    parts = [f"{band} {format_number(gain, 2, signed=True)}" for band, gain in gains.items() if gain is not None]
    return f"By distance from the training photos: {', '.join(parts)} dB." if len(parts) > 1 else None


def _missing_lpips(results: Results) -> str | None:
    measured = any(results.summary.value("all", arm, "lpips") is not None for arm in ARMS)
    return None if measured or "lpips" not in results.reasons else "LPIPS was not measured."
