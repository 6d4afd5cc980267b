"""The headline of a sweep's page: the verdict of the reruns, or how far the search got."""

from __future__ import annotations

from splatfix.report.sweep.load import LoadedSweep
from splatfix.report.sweep.results import Verdict
from splatfix.report.wording import Headline

SELECTION = "the largest of many noisy gains is too optimistic"


def sweep_headline(sweep: LoadedSweep) -> Headline:
    """The verdict of the reruns; without one, how far the search got."""
    reruns = sweep.results.reruns
    verdict = reruns.verdict if reruns is not None else None
    if reruns is None or verdict is None:
        return _search_headline(sweep, has_reruns=reruns is not None and len(reruns.rows) > 0)
    details = [] if reruns.held_out is None else [reruns.held_out.sentence]
    if (gain := _gain_in_search(sweep)) is not None:
        training = " Longer training counts as gain there." if _searches_steps(sweep) else ""
        details.append(f"In the search it had {gain}: {SELECTION}, so the reruns decide.{training}")
    return Headline(
        verdict.sentence,
        tuple(details),
        sweep.signed(verdict.difference),
        f"{sweep.metric_name} gain, best settings minus default, in reruns",
        _tone(verdict),
    )


def _tone(verdict: Verdict) -> str:
    """Good where the best beats the default and its own baseline, bad where it is worse than one of them."""
    if verdict.beats is False or (verdict.gain_high is not None and verdict.gain_high < 0):
        return "bad"
    return "good" if verdict.beats and verdict.gain_low is not None and verdict.gain_low > 0 else "plain"


def _search_headline(sweep: LoadedSweep, has_reruns: bool) -> Headline:
    if sweep.best is None:
        sentence = "No trial is complete yet." if sweep.is_running else "No trial was completed."
        return Headline(sentence, (), "", "", "plain")
    later = "the reruns with other seeds are running" if has_reruns else "not rerun with other seeds"
    best = "Best so far" if sweep.is_running else "Best"
    end = " yet." if sweep.is_running and not has_reruns else "."
    sentence = f"{best}: trial {sweep.best.number}, {_gain_in_search(sweep)}; {later}{end}"
    caution = f"{SELECTION.capitalize()}; only reruns with other seeds tell whether these settings are better."
    caption = f"{sweep.metric_name} {sweep.objective_name}, best trial"
    if sweep.best.is_default and not sweep.is_running:
        figure = sweep.signed(sweep.gain(sweep.best))
        sentence = f"No trial beats the default settings, which have {sweep.objective_name} {figure}."
        return Headline(sentence, (), figure, caption, "plain")
    return Headline(sentence, (caution,), sweep.signed(sweep.gain(sweep.best)), caption, "plain")


def _gain_in_search(sweep: LoadedSweep) -> str | None:
    """The gain of the best trial, like ``gain +0.21 dB against +0.11 dB of the default``."""
    if sweep.best is None:
        return None
    gain = f"{sweep.objective_name} {sweep.signed(sweep.gain(sweep.best))}"
    if sweep.best.is_default:
        return f"{gain}, with the default settings"
    default = sweep.gain(sweep.default) if sweep.default is not None else None
    return gain if default is None else f"{gain} against {sweep.signed(default)} of the default"


def _searches_steps(sweep: LoadedSweep) -> bool:
    """Whether trials train for different numbers of steps."""
    return any(searched.field in ("repair.steps", "repair.rounds") for searched in sweep.space)
