"""The model of a comparison: every configuration against the baseline, from all finished runs at once.

`Design` is the layout of the runs: an additive model of configurations and seeds, with seeds as blocks. Numbers of
seeds may differ, and runs may be missing. `Design.fit` estimates the differences from the baseline, each with a
standard error and degrees of freedom, and `critical_values` makes the intervals hold for all of them at once.

The spread of one configuration over its seeds has few degrees of freedom (two, with three seeds), and a t interval from
its pairs alone is very wide. Therefore configurations are analyzed together, by these rules:

1. Spreads are moderated toward the pooled one (Smyth 2004, doi 10.2202/1544-6115.1027), (d0 s0^2 + d s^2) / (d0 + d),
   with d the degrees of freedom of a spread and d0 those of the prior, estimated from how much the spreads differ. s0^2
   is the pooled mean square. Smyth's is near the geometric mean, which is smaller where spreads differ.
2. A spread that is larger than the rest, by an F test at the level `APART`, is not moderated and keeps its own degrees
   of freedom. It stays in the pool, which can only widen the other intervals.
3. The difference of two configurations has Satterthwaite's degrees of freedom, at most those of the pool.

With one configuration and the baseline this is the paired t test. `examples/simulation` measures the error rates
and the power of these rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

Array = NDArray[Any]

LEVEL = 0.95
APART = 0.2  # level of the F test by which a spread stands out
MAX_DF = 1e4  # practically normal
NO_SPREAD = 1e-18  # a smaller variance is rounding
NORMAL_NODES, NORMAL_WEIGHTS = np.polynomial.hermite_e.hermegauss(24)
NORMAL_WEIGHTS = NORMAL_WEIGHTS / NORMAL_WEIGHTS.sum()
UNIFORM_NODES, UNIFORM_WEIGHTS = (values / 2 for values in np.polynomial.legendre.leggauss(16))
UNIFORM_NODES = UNIFORM_NODES + 0.5


@dataclass(frozen=True)
class Fit:
    """Differences from the baseline; all arrays may have leading axes, for several metrics or simulated data sets.

    Attributes:
        mean: difference of each configuration from the baseline, shape (..., k); NaN if no runs connect the two.
        variance: its variance over seeds; NaN without a spread to estimate it from, 0 if nothing varies.
        df: degrees of freedom of that variance.
        shared: the part of the variance due to the runs of the baseline, which all differences share.
        prior_df: d0, shape (...); infinite if the spreads differ no more than by chance.
        apart: whether the spread of each configuration is used unmoderated, shape (..., k + 1), the baseline first.
        spreads: variance of one run of each configuration, shape (..., k + 1).
        pooled: the pooled variance, shape (...).
    """

    mean: Array
    variance: Array
    df: Array
    shared: Array
    prior_df: Array
    apart: Array
    spreads: Array
    pooled: Array


class Design:
    """Runs by configuration and block.

    Args:
        configurations: index of each run's configuration, shape (runs,); 0 is the baseline.
        blocks: label of each run's block, its seed, shape (runs,).
        count: number of configurations; those without a run have a difference of NaN.
    """

    def __init__(self, configurations: ArrayLike, blocks: ArrayLike, count: int) -> None:
        self.configurations = np.asarray(configurations, int)
        self.count = count
        self.members = self.configurations == np.arange(count)[:, None]  # (configurations, runs)
        labels, index = np.unique(np.asarray(blocks), return_inverse=True)
        x = np.concatenate([self.members, index == np.arange(len(labels))[:, None]]).T.astype(float)
        inverse = np.linalg.pinv(x)
        self.residual = np.eye(len(x)) - x @ inverse  # the projection onto residuals, P
        self.weights = inverse[1:count] - inverse[0]  # of each run in a difference, shape (k, runs)
        contrasts = np.eye(count, x.shape[1])[1:] - np.eye(1, x.shape[1])
        self.estimable = np.abs(self.weights @ x - contrasts).max(1, initial=0) < 1e-9
        self.pool_df = float(np.round(self.residual.trace(), 6))

    @cached_property
    def _spread_df(self) -> tuple[Array, Array]:
        """Expectation of each configuration's sum of squares over the variance, and its degrees of freedom."""
        blocks = [self.residual[np.ix_(own, own)] for own in self.members]
        traces = np.array([block.trace() for block in blocks])
        squares = np.array([(block**2).sum() for block in blocks])
        traces[traces < 1e-9] = 0
        return traces, np.divide(traces**2, squares, out=np.zeros_like(traces), where=traces > 0)

    def fit(self, values: ArrayLike) -> Fit:
        """Return the differences from the baseline.

        Args:
            values: the metric of each run, shape (..., runs).
        """
        y = np.asarray(values, float)
        mean = np.where(self.estimable, y @ self.weights.T, np.nan)
        squares = (y @ self.residual) ** 2
        traces, df = self._spread_df
        pooled = squares.sum(-1) / self.pool_df if self.pool_df else np.full(y.shape[:-1], np.nan)
        spreads = squares @ self.members.T / np.maximum(traces, 1e-9)
        variances, own_df, prior_df, apart = moderate(spreads, df, pooled, self.pool_df)
        shares = self.weights**2 @ self.members.T  # (k, configurations)
        parts = shares * variances[..., None, :]
        variance = parts.sum(-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            satterthwaite = variance**2 / (parts**2 / own_df[..., None, :]).sum(-1)
        total_df = np.minimum(np.nan_to_num(satterthwaite, nan=np.inf), max(self.pool_df, 1e-9))
        variance = np.where(pooled[..., None] < NO_SPREAD, 0.0, np.where(self.estimable, variance, np.nan))
        return Fit(mean, variance, total_df, parts[..., 0], prior_df, apart, spreads, pooled)

    def image_variance(self, samples: Array) -> Array:
        """Return the variance of each difference over validation images that the spread over seeds does not include.

        Args:
            samples: the metric of each run on resamples of the images, shape (resamples, runs).
        """
        centred = samples - samples.mean(0)
        total = (centred @ self.weights.T).var(0, ddof=1)
        interaction = (
            ((centred @ self.residual) ** 2).sum() / (len(samples) - 1) / self.pool_df if self.pool_df else 0.0
        )
        return np.maximum(total - interaction * (self.weights**2).sum(1), 0.0)


def moderate(spreads: Array, df: Array, pooled: Array, pool_df: float) -> tuple[Array, Array, Array, Array]:
    """Return moderated variances, their degrees of freedom, those of the prior, and which spreads are unmoderated.

    Args:
        spreads: variance of one run of each configuration, shape (..., configurations).
        df: degrees of freedom of each, shape (configurations,); 0 for a configuration without a spread.
        pooled: the pooled variance, shape (...).
        pool_df: its degrees of freedom.
    """
    known = df > 0
    prior_df = _prior_df(spreads[..., known], df[known])
    d0 = np.minimum(prior_df, MAX_DF)[..., None]
    moderated = (d0 * pooled[..., None] + df * spreads) / (d0 + df)
    weighted = df * spreads
    rest_df = np.maximum(df.sum() - df, 1e-9)
    rest = (weighted.sum(-1, keepdims=True) - weighted) / rest_df
    with np.errstate(invalid="ignore", divide="ignore"):
        tail = stats.f.sf(spreads / rest, np.maximum(df, 1e-9), np.minimum(rest_df, max(pool_df, 1e-9)))
    apart = known & (tail < APART) & (spreads > NO_SPREAD)
    return np.where(apart, spreads, moderated), np.where(apart, df, d0 + df), prior_df, apart


def _prior_df(spreads: Array, df: Array) -> Array:
    """Return Smyth's estimate of the prior's degrees of freedom, from the excess variance of the log spreads."""
    if spreads.shape[-1] < 2:
        return np.full(spreads.shape[:-1], np.inf)
    logs = np.log(np.maximum(spreads, 1e-300)) - special.digamma(df / 2) + np.log(df / 2)
    excess = logs.var(-1, ddof=1) - special.polygamma(1, df / 2).mean()
    return np.where(excess > 0, 2 * _inverse_trigamma(np.maximum(excess, 1e-6)), np.inf)


def _inverse_trigamma(x: Array) -> Array:
    y = 0.5 + 1 / x
    for _ in range(12):  # Newton's method on 1 / trigamma, which is convex: it converges from this start
        value = special.polygamma(1, y)
        y = y + value * (1 - value / x) / special.polygamma(2, y)
    return y


def simultaneous_coverage(critical: Array, df: Array, shared: Array) -> Array:
    """Return the probability that no |t| of the family exceeds a value.

    Two differences from one baseline are correlated by the square roots of their shared parts, so that given the
    baseline's error they are independent: P = E[prod_j P(|T_j| <= c | baseline, spread)], a sum over nodes of a normal
    and a chi distribution. It equals Dunnett's distribution where all shares are one half.

    Args:
        critical: the value, shape (n,).
        df: degrees of freedom of all t in the family, shape (n,).
        shared: fraction of each difference's variance that is the baseline's, shape (n, k).
    """
    spread = np.sqrt(special.gammaincinv(df[:, None] / 2, UNIFORM_NODES) * 2 / df[:, None])
    bound = (critical[:, None] * spread)[:, :, None]
    inside = np.ones((len(critical), len(UNIFORM_NODES), len(NORMAL_NODES)))
    for own in np.clip(shared, 0, 1 - 1e-9).T[:, :, None, None]:
        shift, scale = np.sqrt(own) * NORMAL_NODES, np.sqrt(1 - own)
        inside *= special.ndtr((bound - shift) / scale) - special.ndtr((-bound - shift) / scale)
    return np.einsum("nuz,u,z->n", inside, UNIFORM_WEIGHTS, NORMAL_WEIGHTS)


def critical_values(df: Array, shared: Array, level: float = LEVEL) -> Array:
    """Return half the widths of the simultaneous intervals in standard errors, shape (k,).

    Each value is the quantile of the largest |t| of the family at the degrees of freedom of the difference.

    Args:
        df: degrees of freedom of each difference, shape (k,).
        shared: fraction of each difference's variance that is the baseline's, shape (k,).
        level: simultaneous level of the intervals.
    """
    unique, index = np.unique(np.minimum(df, MAX_DF), return_inverse=True)
    critical = special.stdtrit(unique, (1 + level) / 2)  # of a single difference
    if len(df) > 1:
        low, high = critical, special.stdtrit(unique, (1 + level ** (1 / len(df))) / 2)  # Šidák: nothing shared
        family = np.broadcast_to(shared, (len(unique), len(shared)))
        for _ in range(14):  # bisection to a relative precision of 1e-4
            critical = (low + high) / 2
            outside = simultaneous_coverage(critical, unique, family) < level
            low, high = np.where(outside, critical, low), np.where(outside, high, critical)
        critical = high
    values: Array = critical[index]
    return values
