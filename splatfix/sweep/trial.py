"""One trial: the loop with its settings on every case, a round at a time on all of them."""

from __future__ import annotations

import logging
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import torch

from splatfix.evaluation.results import mean_if_known
from splatfix.fit import prepare_run
from splatfix.loop import LoopConfig
from splatfix.loop.case_rounds import CASE_FILES, CaseRound, run_case
from splatfix.loop.cases import SHARED, Case, baseline_part, configure_case
from splatfix.mirror import Mirror
from splatfix.process import choose_device
from splatfix.report import write_report
from splatfix.report.sweep.results import CaseFigures
from splatfix.restoration import open_restorer
from splatfix.restoration.identity import restorer_input
from splatfix.runs import RUN_FILES
from splatfix.shared_folder import check_token
from splatfix.sweep.contact_sheet import write_contact_sheet
from splatfix.sweep.parameter import Values
from splatfix.sweep.record import ERRORS, TRIAL, AttemptEnd, RoundRecord, TrialReport, trial_folder, trial_part
from splatfix.sweep.settings import apply
from splatfix.tracking import TRACKING_FILES
from splatfix.views import BANDS
from splatfix.workers import RunAborted, classify_failure
from splatfix.workers.cuda_errors import breaks_cuda, free_cached_memory, is_out_of_memory

log = logging.getLogger(__name__)

PICTURES = "before-control-after"
TRIAL_FILES = (  # glob patterns of all that a trial writes
    *(TRIAL, ERRORS, "report.html", f"{PICTURES}/*.jpg", *TRACKING_FILES),
    *(f"*/{name}" for name in (*CASE_FILES, *RUN_FILES)),
)


def run_trial(
    mirror: Mirror,
    number: int,
    values: Values,
    default: LoopConfig,
    cases: Sequence[Case],
    metric: str,
    token: str | None = None,
) -> Iterator[TrialReport]:
    """Run a trial; yields each round over all cases, and last how the attempt ended. No exception leaves it.

    ``mirror`` is the folder of the sweep, which this machine may have to copy from an object store.

    Rounds that an earlier attempt measured are taken from the trial's folder; interrupted training resumes from its
    checkpoints. ``metric`` is that of the gains: psnr or ssim. ``token``: what the driver wrote into the sweep's folder
    (`shared_folder`), which this machine must see; None in the driver's process.
    """
    end = AttemptEnd(outcome="complete")
    try:
        if token is not None:
            check_token(mirror.place, token)
        part = trial_part(number)
        mirror.pull(*(f"{part}/{case.name}" for case in cases), discard=True)
        read = [baseline_part(case) for case in cases]
        with mirror.work_on(part, shared=SHARED, read=read, discard=False):
            config = apply(default, values)
            for round_ in retry_rounds(lambda: _run_rounds(mirror.path / part, config, cases, metric, mirror.path)):
                mirror.push(SHARED, part)
                yield round_
    except FloatingPointError as error:
        end = AttemptEnd(outcome="failed", error=str(error), traceback=traceback.format_exc())
    except (torch.cuda.OutOfMemoryError, MemoryError) as error:  # other trials may have filled the memory
        reason = f"out of memory: {' '.join(str(error).split())[:300]}"
        end = AttemptEnd(outcome="error", error=reason, traceback=traceback.format_exc())
    except Exception as error:
        try:
            failure = classify_failure(error)
            end = AttemptEnd(
                outcome="error",
                error=failure.reason,
                traceback=failure.traceback,
                breaks_process=breaks_cuda(error),
            )
        except RunAborted as full:
            end = AttemptEnd(outcome="disk full", error=str(full))
    yield end


def retry_rounds(rounds: Callable[[], Iterator[RoundRecord]]) -> Iterator[RoundRecord]:
    """Yield the rounds of a trial; where the memory of the GPU is full, free what is cached and resume once.

    ``rounds`` yields all of them from the first, also when it is called again: those that were measured are read. The
    trial cannot wait until it is alone on the GPU; another attempt runs later, beside others.
    """
    num = 0
    try:
        for round_ in rounds():
            num += 1
            yield round_
        return
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        log.warning("out of GPU memory (%s); freeing what is cached, and resuming", str(error).split("\n")[0])
    free_cached_memory()  # the exception and its frames are gone here
    yield from islice(rounds(), num, None)


def _run_rounds(
    folder: Path, config: LoopConfig, cases: Sequence[Case], metric: str, sweep: Path
) -> Iterator[RoundRecord]:
    """Run the loop on all cases; yields the figures of each round. Each case has a run folder in the trial's.

    Raises:
        ValueError: the config's restorer cannot be opened.
        FloatingPointError: a fit is no longer finite.
    """
    restorer = open_restorer(config.restorer, device=choose_device(config.device))
    loops = []
    for case in cases:
        own = configure_case(config, case)
        inputs, place = restorer_input(own.restorer), folder / case.name
        prepared = prepare_run(case.capture, place, own, command="sweep", files=CASE_FILES, inputs=inputs)
        loops.append(run_case(sweep, case, own, restorer, prepared))
    for case_rounds in zip(*loops, strict=True):
        for case in cases:
            write_contact_sheet(folder / case.name, folder / PICTURES / f"{case.name}.jpg")
        write_report([folder / case.name for case in cases], folder / "report.html")
        yield combine_cases(dict(zip((case.name for case in cases), case_rounds, strict=True)), metric)


def combine_cases(case_rounds: Mapping[str, CaseRound], metric: str) -> RoundRecord:
    """Figures of a round over all cases: means, and the smallest gain; None where a case lacks one."""

    def gains(band: str, of_metric: str = metric) -> dict[str, float | None]:
        return {case: round_.summary.value(band, "gain", of_metric) for case, round_ in case_rounds.items()}

    gain, by_band = gains("all"), {band: gains(band) for band in BANDS}
    known = [value for value in gain.values() if value is not None]
    return RoundRecord(
        round=max(round_.round for round_ in case_rounds.values()),
        gain=mean_if_known(gain.values()),
        gain_worst=min(known) if len(known) == len(gain) else None,
        **{band: mean_if_known(values.values()) for band, values in by_band.items()},
        gain_ssim=mean_if_known(gains("all", "ssim").values()),
        seconds=mean_if_known(round_.seconds for round_ in case_rounds.values()),
        cases={
            case: CaseFigures(
                gain=gain[case],
                **{band: values[case] for band, values in by_band.items()},
                after=round_.summary.value("all", "after", metric),
                seconds=round_.seconds,
            )
            for case, round_ in case_rounds.items()
        },
        time_ms=round(time.time() * 1000),
    )


def prune_trial(sweep: Path, number: int, *, keep_splats: bool) -> None:
    """Delete the checkpoints of a trial that has ended, and its splats unless they are kept."""
    for folder in trial_folder(sweep, number).glob("*/checkpoints"):
        shutil.rmtree(folder, ignore_errors=True)
    for splat in () if keep_splats else trial_folder(sweep, number).glob("*/*.ply"):
        splat.unlink(missing_ok=True)
