"""A trial whose GPU runs out of memory."""

import logging

import pytest
import torch

from splatfix.sweep import trial
from splatfix.sweep.trial import retry_rounds


class Rounds:
    """Rounds 1 to 3 from the first at each call; the given rounds of the given calls run out of memory."""

    def __init__(self, *full: tuple[int, int], error: type[Exception] = torch.cuda.OutOfMemoryError) -> None:
        self.full, self.error, self.num_calls = full, error, 0

    def __call__(self):
        self.num_calls += 1
        for number in (1, 2, 3):
            if (self.num_calls, number) in self.full:
                raise self.error("CUDA out of memory. Tried to allocate 2 GiB\nmore")
            yield number


@pytest.fixture
def freed(monkeypatch) -> list[int]:
    calls: list[int] = []
    monkeypatch.setattr(trial, "free_cached_memory", lambda: calls.append(1))
    return calls


@pytest.mark.parametrize("full", [1, 2, 3])
def test_a_full_gpu_is_freed_and_the_rounds_go_on_where_they_were(full, freed, caplog):
    rounds = Rounds((1, full))
    with caplog.at_level(logging.WARNING):
        assert list(retry_rounds(rounds)) == [1, 2, 3]
    assert rounds.num_calls == 2 and len(freed) == 1
    assert "out of GPU memory (CUDA out of memory. Tried to allocate 2 GiB); freeing what is cached" in caplog.text


def test_a_gpu_that_stays_full_ends_the_attempt(freed):
    rounds = Rounds((1, 2), (2, 2))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        list(retry_rounds(rounds))
    assert rounds.num_calls == 2 and len(freed) == 1


def test_other_errors_are_not_tried_again(freed):
    rounds = Rounds((1, 2), error=FloatingPointError)
    with pytest.raises(FloatingPointError):
        list(retry_rounds(rounds))
    assert rounds.num_calls == 1 and not freed
