"""Rounds of seeds: configurations that are decided or will not be get no more runs, and 5 % bounds the error rate."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")

from yolo_losses.comparison.stats.differences import estimate_differences
from yolo_losses.comparison.stats.rounds import decide, look_levels, look_sizes, plan_seeds, restrict
from yolo_losses.comparison.stats.verdict import DECIDED, outcome

ROPE = 0.1


def carry_out(runs: np.ndarray, rope: float = ROPE):
    """Return the final decision on each configuration, and the seeds that were run; the first one is the baseline."""
    names = [str(i) for i in range(len(runs))]
    values, over = {n: {} for n in names}, {n: set() for n in names}
    while True:
        decisions, more = decide(values, "0", rope, range(runs.shape[1]), over)
        if not more:
            return decisions, values
        for name, seeds in more.items():
            for seed in seeds:
                assert seed not in over[name]
                values[name][seed] = 100 + runs[int(name), seed]  # near 0, nothing has been learned
                over[name].add(seed)


def test_numbers_of_seeds_and_levels_of_the_looks():
    assert look_sizes(12) == [3, 5, 8, 12]
    assert look_sizes(3) == [3]
    assert look_levels([3]) == pytest.approx([0.95])
    spent = [1 - level for level in look_levels(look_sizes(12))]
    assert sum(spent) == pytest.approx(0.05)
    assert spent == sorted(spent)
    assert spent[0] < 0.001
    assert plan_seeds([5, 6], 4) == [5, 6, 0, 1]


def test_clear_losers_and_ties_get_few_runs_while_the_baseline_continues():
    runs = np.random.default_rng(0).normal(0, 1, (5, 12))
    runs[1] -= 8
    runs[2] += 2
    decisions, values = carry_out(runs)
    assert decisions["1"].reason == "decided"
    assert len(values["1"]) == 3
    assert decisions["2"].reason == "decided"
    assert {decisions[name].reason for name in "34"} <= {"will not be decided", "the last round"}
    assert len(values["0"]) == max(map(len, values.values()))
    assert sum(map(len, values.values())) < 40


def test_decisions_depend_on_the_runs_alone():
    runs = np.random.default_rng(1).normal(0, 1, (4, 12)) + np.array([0, 2, 1, 0])[:, None]
    decisions, values = carry_out(runs)
    over = {name: set(own) for name, own in values.items()}
    assert decide(values, "0", ROPE, range(12), over) == (decisions, {})


def test_a_failed_run_does_not_block_the_next_round():
    runs = np.random.default_rng(0).normal(0, 1, (3, 3))
    values = {str(i): {s: 100 + runs[i, s] for s in range(3) if (i, s) != (1, 2)} for i in range(3)}
    over = dict.fromkeys(values, range(3))
    decisions, more = decide(values, "0", ROPE, range(3), over)
    assert not more
    assert {d.reason for d in decisions.values()} == {"the last round"}


@pytest.mark.parametrize("lost", [[1], [0], []], ids=["a configuration", "the baseline", "nothing learned"])
def test_a_configuration_without_a_result_gets_no_more_seeds(lost):
    """Its runs fail, the runs of the baseline fail, or no run has a metric above the rope."""
    runs = 100 + np.random.default_rng(0).normal(0, 1, (2, 12))
    values = {str(i): {s: runs[i, s] for s in range(3) if i not in lost} for i in range(2)}
    decisions, more = decide(values, "0", ROPE if lost else 200, range(12), dict.fromkeys(values, range(3)))
    assert not more
    assert decisions["1"].reason == "no result"


@pytest.mark.slow
def test_the_error_rate_over_all_looks_is_at_most_five_percent():
    rng, wrong, experiments = np.random.default_rng(0), 0, 150
    for _ in range(experiments):
        decisions, values = carry_out(rng.normal(0, 1, (4, 8)))
        for name, decision in decisions.items():
            part = restrict(values, decision.seeds)
            estimate = estimate_differences(part, "0", level=decision.level)[0][name]
            if outcome(estimate, ROPE) in DECIDED[:2]:
                wrong += 1
                break
    assert wrong / experiments <= 0.08  # 0.05 and what 150 experiments leave open
