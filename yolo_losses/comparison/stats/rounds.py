"""Rounds of seeds: after each round, configurations that are decided, or unlikely to be, get no more runs.

Each round is a look at the data, and repeated looks at 95 % would find too many differences by chance. The error
rate of 5 % is spent over the looks as by O'Brien and Fleming's boundaries (Lan and DeMets 1983, doi
10.1093/biomet/70.3.659): little at the first look, most at the last. The level of the intervals of a look is 1 minus
what is spent at it, so that the probability of any wrong "better" or "worse" is at most 5 %.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from yolo_losses.comparison.stats.differences import Estimate, Values, estimate_differences, highest
from yolo_losses.comparison.stats.model import LEVEL, Array
from yolo_losses.comparison.stats.verdict import DECIDED, outcome, power, verdict_if_untrained

FIRST_LOOK = 3
GROWTH = 1.5
FUTILE = 0.1  # a configuration gets no more seeds if the last look decides with a lower probability

Reason = Literal["decided", "will not be decided", "no result", "the last round", "open"]


@dataclass(frozen=True)
class Decision:
    """The status of a configuration.

    Attributes:
        look: the number of its last look, from 1; 0 before the first.
        seeds: the seeds of that look.
        level: level of its simultaneous intervals.
        reason: why it gets no more runs, or `open`.
    """

    look: int
    seeds: tuple[Hashable, ...]
    level: float
    reason: Reason


def look_sizes(max_seeds: int) -> list[int]:
    """Return the numbers of seeds after which there is a look: 3, 5, 8, 12 for a maximum of 12."""
    counts = [min(FIRST_LOOK, max_seeds)]
    while counts[-1] < max_seeds:
        counts.append(min(math.ceil(GROWTH * counts[-1]), max_seeds))
    return counts


def look_levels(counts: Sequence[int]) -> list[float]:
    """Return the level of the intervals of each look: 1 minus the part of the 5 % that is spent at it."""
    fractions = np.sqrt(np.array(counts) / counts[-1])
    spent = 2 * special.ndtr(special.ndtri((1 - LEVEL) / 2) / fractions)
    return [1 - float(part) for part in np.diff(spent, prepend=0.0)]


def decide(
    values: Values,
    baseline: str,
    rope: float,
    seeds: Sequence[Hashable],
    ended_seeds: Mapping[str, Collection[Hashable]],
    samples: Mapping[tuple[str, Hashable], Array] | None = None,
    images: int = 0,
) -> tuple[dict[str, Decision], dict[str, list[Hashable]]]:
    """Return the status of each configuration of a data set, and the next seeds.

    The result only depends on the runs: a comparison that is stopped and restarted makes the same decisions.

    Args:
        values: the metric of the finished runs, by configuration and seed.
        baseline: the configuration that the others are compared with.
        rope: the largest difference that does not matter.
        seeds: all seeds that may be run, in order.
        ended_seeds: the seeds of each configuration whose runs have finished or failed.
        samples: as for `estimate_differences`.
        images: as for `estimate_differences`.

    Returns:
        The decisions, and the seeds that the next look needs by configuration, empty if everything is decided.
    """
    counts = look_sizes(len(seeds))
    levels = look_levels(counts)
    start = Decision(0, tuple(seeds[: counts[0]]), levels[0], "open")
    decisions = dict.fromkeys((name for name in ended_seeds if name != baseline), start)
    for look, (count, level) in enumerate(zip(counts, levels, strict=True), 1):
        active = [name for name, decision in decisions.items() if decision.reason == "open"]
        if not active:
            break
        needed = seeds[:count]
        missing = {name: [seed for seed in needed if seed not in ended_seeds[name]] for name in (baseline, *active)}
        if any(missing.values()):
            return decisions, {name: own for name, own in missing.items() if own}
        seen = restrict(values, needed)
        estimates, _ = estimate_differences(seen, baseline, samples, images, level)
        nothing_learned = verdict_if_untrained(highest(seen), rope) is not None
        for name in active:
            estimate = estimates.get(name)
            reason: Reason = "the last round" if count == counts[-1] else "open"
            if nothing_learned or estimate is None or estimate.n == 0:  # more seeds would not change that
                reason = "no result"
            elif not math.isnan(estimate.se):
                if not estimate.se or outcome(estimate, rope) in DECIDED:
                    reason = "decided"
                elif reason == "open" and _power_at_the_end(estimate, rope, counts[-1], levels[-1]) < FUTILE:
                    reason = "will not be decided"
            decisions[name] = Decision(look, tuple(needed), level, reason)
    return decisions, {}


def _power_at_the_end(estimate: Estimate, rope: float, count: int, level: float) -> float:
    return float(power(estimate, rope, np.array([float(count)]), level=level)[0])


def restrict(values: Values, seeds: Collection[Hashable]) -> Values:
    """Return the values of some seeds."""
    return {name: {seed: own[seed] for seed in own if seed in seeds} for name, own in values.items()}


def plan_seeds(given: Sequence[int], max_seeds: int) -> list[int]:
    """Return the given seeds followed by the next unused ones, up to the maximum."""
    more = (seed for seed in itertools.count() if seed not in given)
    return [*given, *itertools.islice(more, max(0, max_seeds - len(given)))][:max_seeds]
