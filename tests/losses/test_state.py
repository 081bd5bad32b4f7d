"""State moves once per step, by what the step's last call collected, added up over ranks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from yolo_losses.losses import _state
from yolo_losses.losses._state import Stateful, commit_collected


class Counter(Stateful, nn.Module):
    """Adds up what it sees."""

    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(2))

    def no_sums(self) -> Tensor:
        return torch.zeros(2)

    def commit(self, sums: Tensor) -> None:
        self.total += sums


def test_alone_a_module_commits_at_once() -> None:
    counter = Counter()
    counter.collect(torch.tensor([1.0, 2.0]))
    assert counter.total.tolist() == [1, 2]
    assert counter.collected is None


def test_a_deferred_module_commits_what_its_last_call_collected() -> None:
    counter = Counter()
    counter.deferred = True
    counter.collect(torch.tensor([5.0, 5.0]))
    counter.collect(torch.tensor([1.0, 2.0]))  # the same batch again
    assert counter.total.tolist() == [0, 0]
    commit_collected([counter])
    commit_collected([counter])  # a batch in which it was not called
    assert counter.total.tolist() == [1, 2]


def test_all_modules_share_one_collective_in_which_a_rank_that_saw_nothing_takes_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []

    def two_ranks(sums: Tensor) -> Tensor:
        calls.append(sums.numel())
        return sums * 2

    monkeypatch.setattr(_state, "sum_over_ranks", two_ranks)
    counters = [Counter(), Counter()]
    for counter in counters:
        counter.deferred = True
    counters[0].collect(torch.tensor([1.0, 2.0]))
    commit_collected(counters)
    assert calls == [4]
    assert [counter.total.tolist() for counter in counters] == [[2, 4], [0, 0]]
