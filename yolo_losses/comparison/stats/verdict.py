"""The verdict on an estimated difference, which is determined by its interval.

For every metric, higher is better. Metrics are fractions from 0 to 1; texts show points, hundredths of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from yolo_losses.comparison.language import Text
from yolo_losses.comparison.stats.differences import Estimate

Outcome = Literal["better", "worse", "practically equal", "leans better", "leans worse", "inconclusive", "no result"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
DECIDED: tuple[Outcome, ...] = OUTCOMES[:3]
POWER = 0.8
MAX_SEEDS_ESTIMATED = 1000


@dataclass(frozen=True)
class Verdict:
    """An outcome with a sentence.

    Attributes:
        word: the outcome.
        sentence: a sentence with the outcome and its numbers.
        seeds_needed: about how many seeds would decide an undecided outcome, if seeds can.
    """

    word: Outcome
    sentence: str
    seeds_needed: int | None = None


def outcome(estimate: Estimate, rope: float) -> Outcome:
    """Return the outcome for a difference.

    "practically equal" if the simultaneous interval lies within ±`rope`, "better" or "worse" if it excludes 0, "leans
    better" or "leans worse" if the interval of this configuration alone excludes 0, else "inconclusive".
    """
    low, high = estimate.interval
    own_low, own_high = estimate.own_interval
    if -rope <= low and high <= rope:
        return "practically equal"
    if low > 0 or high < 0:
        return "better" if low > 0 else "worse"
    if own_low > 0 or own_high < 0:
        return "leans better" if own_low > 0 else "leans worse"
    return "inconclusive"


def judge(estimate: Estimate, rope: float, unit: str = "seed") -> Verdict:
    """Return the verdict on a difference.

    Args:
        estimate: the difference.
        rope: the largest difference that does not matter.
        unit: what is averaged over, `seed` or `data set`.
    """
    n, values = estimate.n, {"at": format_points(estimate.mean), "unit": Text(unit)}
    if n == 0:
        return Verdict("no result", Text("no result: no {unit} has a finished run of both", **values))
    if n == 1:
        text = "inconclusive: {at} points with one {unit}, from which no interval follows"
        return Verdict("inconclusive", Text(text, **values))
    if math.isnan(estimate.se):
        text = "inconclusive: {at} points with every {unit}; without any spread, no interval follows"
        return Verdict("inconclusive", Text(text, **values))
    if estimate.se == 0:
        text = "practically equal: identical with each of the {n} {unit}s; does the key do anything?"
        return Verdict("practically equal", Text(text, n=n, **values))
    word = outcome(estimate, rope)
    span = format_interval(estimate.interval)
    if word == "practically equal":
        text = "practically equal: {at} points ({span}), within ±{rope}"
        return Verdict(word, Text(text, span=span, rope=f"{rope * 100:g}", **values))
    if word in DECIDED:
        by = format_points(abs(estimate.mean), sign=False)
        return Verdict(word, Text("{word} by {by} points ({span})", word=Text(word), by=by, span=span))
    needed = seeds_needed(estimate, rope)
    if needed is not None and n == 2:
        advice = Text("about {needed} {unit}s would decide it, a rough guess from 2", needed=needed, **values)
    elif needed is not None:
        advice = Text("about {needed} {unit}s would decide it", needed=needed, **values)
    elif estimate.images and seeds_needed(estimate, rope, images=False):
        text = "the {images} validation images are too few to decide it, with any number of {unit}s"
        advice = Text(text, images=estimate.images, **values)
    else:
        advice = Text("not even {most} {unit}s would decide it", most=MAX_SEEDS_ESTIMATED, **values)
    text = "{word}: {at} points ({span}); {advice}"
    return Verdict(word, Text(text, word=Text(word), span=span, advice=advice, **values), needed)


def verdict_if_untrained(best: float, rope: float) -> Verdict | None:
    """Return the verdict if no run has a metric above `rope`: no difference could matter, and none can be judged.

    Args:
        best: the metric of the best run of any configuration.
        rope: the largest difference that does not matter.
    """
    if best > rope:
        return None
    if best == 0:
        return Verdict("no result", Text("no result: the metric is 0 in every run, so nothing has been learned yet"))
    text = "no result: the metric is at most {best} points in every run, so hardly anything has been learned yet"
    return Verdict("no result", Text(text, best=f"{best * 100:.2g}"))


def seeds_needed(estimate: Estimate, rope: float, images: bool = True) -> int | None:
    """Return about how many seeds would decide with a power of 80 %, if the estimated difference and spread are right.

    Args:
        estimate: the difference.
        rope: the largest difference that does not matter.
        images: whether the validation images stay the same; otherwise an unlimited number is assumed.

    Returns:
        The number of seeds, above 20 rounded up to two digits; `None` if a thousand are not enough.
    """
    n = np.arange(estimate.n + 1, MAX_SEEDS_ESTIMATED + 1, dtype=float)
    enough = np.flatnonzero(power(estimate, rope, n, images) >= POWER)
    if not len(enough):
        return None
    number = int(n[enough[0]])
    unit = 10 ** max(len(str(number)) - 2, 0) if number > 20 else 1
    return -(-number // unit) * unit


def power(
    estimate: Estimate, rope: float, n: NDArray[Any], images: bool = True, level: float | None = None
) -> NDArray[Any]:
    """Return the probability that `n` seeds decide, given the estimated difference and spread.

    Args:
        estimate: the difference.
        rope: the largest difference that does not matter.
        n: numbers of seeds.
        images: whether to include the variance over validation images.
        level: level of the simultaneous interval; that of the estimate by default.
    """
    # The error of a single difference with which the family keeps its level.
    error = float(2 * stats.t.sf(estimate.critical, estimate.df))
    if level is not None:
        error *= (1 - level) / (1 - estimate.level)
    se = np.sqrt((estimate.se**2 - estimate.image_variance) * estimate.n / n + estimate.image_variance * images)
    df = np.minimum(estimate.df * (n - 1) / (estimate.n - 1), 1e4)
    critical = stats.t.ppf(1 - error / 2, df)
    effect = np.minimum(abs(estimate.mean) / se, 30.0)  # for larger effects, the noncentral t loses all digits
    different = np.where(effect == 30, 1.0, stats.nct.sf(critical, df, effect))
    half = critical * se
    inside = stats.norm.cdf((rope - half - estimate.mean) / se) - stats.norm.cdf((half - rope - estimate.mean) / se)
    return np.maximum(different, inside)


def format_interval(interval: tuple[float, float]) -> Text:
    """Return an interval in points: `-1.0 to +2.0`."""
    return Text("{low} to {high}", low=format_points(interval[0]), high=format_points(interval[1]))


def format_points(value: float, sign: bool = True) -> str:
    """Return a metric between 0 and 1 in points, hundredths of it: `+1.3`."""
    if math.isnan(value):
        return "n/a"
    text = f"{value * 100:+.1f}" if sign else f"{value * 100:.1f}"
    return {"-0.0": "0.0", "+0.0": "0.0"}.get(text, text).replace("-", "−")  # noqa: RUF001
