"""The statistics of a comparison: paired differences, their intervals, and what they allow one to say.

Every metric is "higher is better". A configuration is compared with the baseline over pairs: runs of the same seed.
`Estimate` is a mean difference with its standard error and degrees of freedom; its interval, p-value and
probabilities all follow from one t distribution, so that they never contradict each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import integrate, stats

Word = Literal["better", "worse", "no difference that matters", "undecided"]
LEVEL = 0.95
POWER = 0.8
LIMIT = 1000  # the largest number of seeds, or multiple of the validation images, that is worth naming
NO_SPREAD = 1e-9  # a standard deviation below this is rounding


@dataclass(frozen=True)
class Estimate:
    """A mean difference whose error follows a t distribution.

    P(better) and P(within) are those of the posterior `mean + se * t(df)`: for normal differences of unknown variance
    under the reference prior, p(mu, sigma^2) proportional to 1 / sigma^2, that is the exact posterior of the mean.

    Attributes:
        mean: the mean difference.
        se: its standard error; NaN where it cannot be estimated (fewer than two pairs), 0 where nothing varies.
        df: degrees of freedom of the standard error.
        n: number of pairs (or of data sets).
    """

    mean: float
    se: float
    df: float
    n: int

    @property
    def usable(self) -> bool:
        """Whether there is a spread to judge the mean by."""
        return self.se > 0

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the two-sided t interval; NaNs where there is no spread to judge by."""
        if not self.usable:
            return math.nan, math.nan
        half = float(stats.t.ppf((1 + level) / 2, self.df)) * self.se
        return self.mean - half, self.mean + half

    @property
    def p_value(self) -> float:
        """The two-sided p-value of a mean difference of zero; 1 where nothing varies, NaN where it cannot be known."""
        if not self.usable:
            return 1.0 if self.se == 0 else math.nan
        return float(2 * stats.t.sf(abs(self.mean) / self.se, self.df))

    @property
    def p_better(self) -> float:
        """The posterior probability that the mean difference is above zero."""
        return self._above(0.0)

    def p_within(self, rope: float) -> float:
        """Return the posterior probability that the mean difference lies within ±`rope`."""
        return self._above(-rope) - self._above(rope)

    def _above(self, bound: float) -> float:
        if not self.usable:
            return math.nan
        return float(stats.t.sf((bound - self.mean) / self.se, self.df))


def paired_difference(candidate: ArrayLike, baseline: ArrayLike) -> Estimate:
    """Return the mean of the paired differences, of which the variance over pairs is estimated.

    Args:
        candidate: the metric of one configuration, shape (pairs,).
        baseline: the metric of the baseline in the same pairs, shape (pairs,).
    """
    difference = np.asarray(candidate, float) - np.asarray(baseline, float)
    n = len(difference)
    mean = float(difference.mean()) if n else math.nan
    if n < 2:
        return Estimate(mean, math.nan, math.nan, n)
    sd = float(difference.std(ddof=1))
    return Estimate(mean, 0.0 if sd < NO_SPREAD else sd / math.sqrt(n), n - 1, n)


def over_seeds_and_images(seeds: Estimate, resampled: NDArray[np.floating[Any]], images: int) -> Estimate:
    """Return the estimate that generalises to new seeds and new validation images at once.

    Seeds and images are crossed: every model sees every image. The variance of the mean difference is then

        s^2 / n + max(v - w / n, 0)

    with s^2 the variance over seeds, v the bootstrap variance over images of the mean over seeds, and w that of the
    interaction, which s^2 / n holds already. The degrees of freedom are Satterthwaite's, from n - 1 and images - 1.
    They are too many where s came out small by chance, so the result is never narrower than the interval over seeds.
    Resampling both at once would be too narrow instead: a bootstrap over three seeds has two thirds of their variance
    and no t quantile.

    Args:
        seeds: the estimate over seeds alone, of n pairs.
        resampled: the difference of each pair on each resample of the images, shape (resamples, pairs).
        images: number of validation images.
    """
    variance = image_variance(resampled)
    if not seeds.usable:
        return seeds
    total = seeds.se**2 + variance
    df = total**2 / (seeds.se**4 / seeds.df + variance**2 / max(images - 1, 1))
    both = Estimate(seeds.mean, math.sqrt(total), df, seeds.n)
    return max(seeds, both, key=lambda estimate: estimate.interval()[1])


def p_value_over_both(seeds: Estimate, both: Estimate) -> float:
    """Return the p-value over seeds and images: the larger of both, as the interval is the wider one at any level."""
    return max(seeds.p_value, both.p_value)


def image_variance(resampled: NDArray[np.floating[Any]]) -> float:
    """Return the variance of the mean difference over validation images, less the part that the seeds show already.

    Args:
        resampled: the difference of each pair on each resample of the images, shape (resamples, pairs).
    """
    n = resampled.shape[1]
    mean = resampled.mean(1, keepdims=True)
    variance = float(mean.var(ddof=1))
    if n < 2:
        return variance
    interaction = float((resampled - mean).var(0, ddof=1).sum()) / (n - 1)
    return max(variance - interaction / n, 0.0)


def percentile_interval(samples: ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """Return the central interval of bootstrap samples, NaNs among them left out."""
    values: NDArray[Any] = np.asarray(samples, float)
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def over_sets(per_set: Sequence[Estimate]) -> tuple[Estimate, Estimate]:
    """Return the mean over data sets twice: as an estimate for new data sets, and for these alone.

    The first is the hierarchical one. Each set's mean difference holds the effect of the set and the noise within it;
    a t interval on the sets' means therefore covers both levels, however large either is. Every set weighs the same.
    The second takes the sets as they are: its variance is that of the noise within them (Satterthwaite).

    Args:
        per_set: the estimate of each data set.
    """
    means = [estimate.mean for estimate in per_set]
    new = paired_difference(means, np.zeros(len(means)))
    if not all(estimate.usable for estimate in per_set) or not per_set:
        return new, Estimate(new.mean, math.nan, math.nan, new.n)
    parts = [estimate.se**2 / len(per_set) ** 2 for estimate in per_set]
    df = sum(parts) ** 2 / sum(part**2 / estimate.df for part, estimate in zip(parts, per_set, strict=True))
    return new, Estimate(new.mean, math.sqrt(sum(parts)), df, new.n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values. A NaN, a comparison that was tried but has no p-value, counts and stays NaN."""
    p = np.asarray(p_values, float)
    order = np.argsort(np.where(np.isnan(p), np.inf, p), kind="stable")
    adjusted = np.full(len(p), math.nan)
    largest = 0.0
    for rank, index in enumerate(order):
        if not math.isnan(p[index]):
            largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
            adjusted[index] = largest
    return adjusted.tolist()


def expected_best(standard_errors: Sequence[float]) -> float:
    """Return the difference that the best of k configurations shows on average when none of them differs.

    All k are compared with one baseline, and share its noise: the differences of exchangeable configurations are
    correlated by one half. Their expected maximum is E[max of k standard normals] * se / sqrt(2), with the root mean
    square of the standard errors as se.

    Args:
        standard_errors: that of each configuration's mean difference; those that are not known are left out.
    """
    known = [se for se in standard_errors if se > 0]
    if not known:
        return math.nan
    k = len(standard_errors)
    normal = stats.norm
    expected, _ = integrate.quad(lambda x: x * k * normal.pdf(x) * normal.cdf(x) ** (k - 1), -9, 9)
    return float(expected) * math.sqrt(float(np.mean(np.square(known))) / 2)


def correlation(candidate: ArrayLike, baseline: ArrayLike) -> float:
    """Return the correlation between pairs; NaN under three pairs or where one side does not vary."""
    pairs = np.asarray([candidate, baseline], float)
    if pairs.shape[1] < 3 or pairs.std(1).min() < NO_SPREAD:
        return math.nan
    return float(np.corrcoef(pairs)[0, 1])


def seeds_to_decide(
    mean: float, sd: float, rope: float, *, alpha: float = 0.05, variance: float = 0.0, images: int = 0
) -> int | None:
    """Return about how many seeds decide, with a power of 80 %, if mean and spread are what they seem.

    Decided is: different from zero at level `alpha` (two-sided), or the 95 % interval within ±`rope`.

    Args:
        mean: the mean difference.
        sd: standard deviation of the paired differences over seeds.
        rope: the largest difference that does not matter.
        alpha: level of the test; divide it by the number of configurations that are compared.
        variance: the part of the variance that more seeds do not reduce (`image_variance`).
        images: number of validation images behind `variance`.

    Returns:
        The number, at least 2; None if a thousand are not enough.
    """
    n = np.arange(2, LIMIT + 1, dtype=float)
    return _first(n, _power(mean, sd**2 / n, n - 1, np.full_like(n, variance), images - 1, rope, alpha))


def images_to_decide(
    mean: float, sd: float, rope: float, *, alpha: float = 0.05, variance: float, images: int, n: int
) -> int | None:
    """Return about how many validation images would decide with the `n` available seeds; see `seeds_to_decide`."""
    factor = np.arange(1, LIMIT + 1, dtype=float)
    seeds = np.full_like(factor, sd**2 / n)
    times = _first(factor, _power(mean, seeds, n - 1, variance / factor, images * factor - 1, rope, alpha))
    return None if times is None else times * images


def _power(
    mean: float,
    seeds: NDArray[Any],
    seeds_df: ArrayLike,
    extra: NDArray[Any],
    extra_df: ArrayLike,
    rope: float,
    alpha: float,
) -> NDArray[Any]:
    """Return the probability of either decision, for variances over seeds and over images."""
    se = np.sqrt(seeds + extra)
    df = (seeds + extra) ** 2 / (seeds**2 / seeds_df + extra**2 / np.maximum(extra_df, 1))
    effect = abs(mean) / se
    # Beyond 30 standard errors the noncentral t has no digits left, and the power is 1.
    different = np.where(effect > 30, 1.0, stats.nct.sf(stats.t.ppf(1 - alpha / 2, df), df, np.minimum(effect, 30)))
    half = stats.t.ppf((1 + LEVEL) / 2, df) * se
    inside = stats.norm.cdf((rope - half - mean) / se) - stats.norm.cdf((half - rope - mean) / se)
    return np.maximum(different, inside)


def _first(n: NDArray[Any], power: NDArray[Any]) -> int | None:
    """Return the first number with enough power; above 20 rounded up to two digits, since it is a rough one."""
    enough = np.flatnonzero(power >= POWER)
    if not len(enough):
        return None
    number = int(n[enough[0]])
    unit = 10 ** max(len(str(number)) - 2, 0) if number > 20 else 1
    return -(-number // unit) * unit


@dataclass(frozen=True)
class Verdict:
    """What the data allow one to say of a configuration against the baseline.

    Attributes:
        word: better, worse, no difference that matters, or undecided.
        sentence: the same with its numbers, or with what is missing.
        seeds_needed: about how many seeds would decide, where it is undecided and seeds can.
    """

    word: Word
    sentence: str
    seeds_needed: int | None = None


def verdict(
    estimate: Estimate,
    p_adjusted: float,
    *,
    rope: float,
    comparisons: int = 1,
    seeds: Estimate | None = None,
    images: int = 0,
    unit: str = "seed",
) -> Verdict:
    """Return the verdict on a mean difference.

    It is "better" or "worse" where Holm's adjusted p-value is at most 0.05, but "no difference that matters" where
    the whole 95 % interval lies within ±`rope`, whether or not it contains zero; otherwise it is "undecided".

    Args:
        estimate: the mean difference, over seeds, or over seeds and images where images are known.
        p_adjusted: its p-value after Holm's correction.
        rope: the largest difference that does not matter.
        comparisons: how many configurations were compared.
        seeds: the estimate over seeds alone, where `estimate` is over images too.
        images: number of validation images behind `estimate`, if it is over images too.
        unit: what the pairs are: `seed`, or `data set`.
    """
    seeds = seeds or estimate
    n, mean = estimate.n, estimate.mean
    at = f"{points(mean)} points"
    if n == 0:
        return Verdict("undecided", f"undecided: no {unit} has a finished run of both")
    if n == 1:
        return Verdict(
            "undecided",
            f"undecided: {at} in one pair, and a single {unit} has no spread to judge by; take at least 3",
        )
    if not seeds.usable:
        if abs(mean) < NO_SPREAD:
            return Verdict(
                "no difference that matters",
                f"no difference: the results are identical in each of the {n} pairs; the setting may have no effect",
            )
        return Verdict(
            "undecided", f"undecided: all {n} paired differences are equal ({at}), with no spread to judge by"
        )
    low, high = estimate.interval()
    span = f"{at}, 95 % interval {points(low)} to {points(high)}"
    if -rope <= low and high <= rope:
        return Verdict("no difference that matters", f"no difference that matters: {span}, within ±{rope * 100:g}")
    if p_adjusted <= 1 - LEVEL:
        word: Word = "better" if mean > 0 else "worse"
        return Verdict(
            word, f"{word} by {points(abs(mean), sign=False)} points, 95 % interval {points(low)} to {points(high)}"
        )

    alpha = (1 - LEVEL) / comparisons
    sd = seeds.se * math.sqrt(n)
    variance = max(estimate.se**2 - seeds.se**2, 0.0)
    needed = seeds_to_decide(mean, sd, rope, alpha=alpha, variance=variance, images=images)
    if needed is not None:
        # The same data would decide already: mean and spread lie near the border, and one more is the least advice.
        needed = max(needed, n + 1)
        advice = f"about {needed} {unit}s would decide it"
    elif variance > 0 and (
        more := images_to_decide(mean, sd, rope, alpha=alpha, variance=variance, images=images, n=n)
    ):
        advice = f"no number of {unit}s decides it on these {images} validation images; about {more} images would"
    elif variance > 0:
        advice = (
            f"neither {LIMIT} {unit}s on these {images} validation images nor {LIMIT} times the images would decide it"
        )
    else:
        advice = f"more than {LIMIT} {unit}s would be needed to decide it"
    if n == 2:
        advice += f" (a rough guess, from 2 {unit}s)"
    if not low <= 0 <= high:
        advice = f"significant only without the correction for {comparisons} comparisons; {advice}"
    return Verdict("undecided", f"undecided: {span}; {advice}", needed)


def points(value: float, sign: bool = True) -> str:
    """Return a metric between 0 and 1 in points, hundredths of it: `+1.3`."""
    if math.isnan(value):
        return "n/a"
    text = f"{value * 100:+.1f}" if sign else f"{value * 100:.1f}"
    return {"-0.0": "0.0", "+0.0": "0.0"}.get(text, text).replace("-", "−")  # noqa: RUF001
