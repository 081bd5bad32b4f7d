"""Differences of a metric from the baseline, with intervals."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from yolo_losses.comparison.stats.model import LEVEL, Array, Design, critical_values, simultaneous_coverage

Values = Mapping[str, Mapping[Hashable, float]]  # configuration -> seed, or data set -> value
OUTLIER = 4.0  # standardized residual from which on a run is reported


@dataclass(frozen=True)
class Estimate:
    """The difference of one configuration from the baseline.

    Attributes:
        mean: the difference.
        se: its standard error; NaN without a spread to estimate it from, 0 if the runs equal those of the baseline.
        df: degrees of freedom of the standard error.
        critical: half the width of the simultaneous interval in standard errors.
        n: number of seeds that both have.
        p_adjusted: p-value of no difference, adjusted for the whole family.
        image_variance: the part of the squared `se` due to the validation images, which more seeds do not reduce.
        images: number of validation images, 0 if that part is unknown.
        level: level of the simultaneous interval.
    """

    mean: float
    se: float
    df: float
    critical: float
    n: int
    p_adjusted: float = math.nan
    image_variance: float = 0.0
    images: int = 0
    level: float = LEVEL

    @property
    def interval(self) -> tuple[float, float]:
        """The simultaneous interval, which determines the outcome."""
        return self._interval(self.critical)

    @property
    def own_interval(self) -> tuple[float, float]:
        """The 95 % interval of this configuration, not adjusted for the number of configurations."""
        return self._interval(float(special.stdtrit(self.df, (1 + LEVEL) / 2)))

    def _interval(self, critical: float) -> tuple[float, float]:
        half = critical * self.se if self.se else 0.0
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Spreads:
    """The spreads that the intervals are based on.

    Attributes:
        pooled: standard deviation of a run, pooled over all configurations.
        df: its degrees of freedom.
        prior_df: how strongly spreads were moderated toward it; infinite if they differ no more than by chance.
        apart: configurations with an unusually large spread: name -> standard deviation.
        outliers: runs far from the expectation for their configuration and seed.
    """

    pooled: float
    df: float
    prior_df: float
    apart: Mapping[str, float]
    outliers: list[tuple[str, Hashable]]


def highest(values: Values) -> float:
    """Return the highest value, 0 if there is none."""
    return max((value for own in values.values() for value in own.values()), default=0.0)


def estimate_differences(
    values: Values,
    baseline: str,
    samples: Mapping[tuple[str, Hashable], Array] | None = None,
    images: int = 0,
    level: float | None = LEVEL,
) -> tuple[dict[str, Estimate], Spreads | None]:
    """Return the difference of each configuration from the baseline, and the spreads they are based on.

    Configurations that have fewer than two seeds in common with the baseline, or equal it at each seed, are not part of
    the family and have no interval.

    Args:
        values: the metric by configuration and seed.
        baseline: the configuration that the others are compared with.
        samples: the metric of each run on resamples of the validation images, shape (resamples,), if known.
        images: number of validation images.
        level: level of the simultaneous intervals, `None` for individual 95 % intervals.
    """
    base = values[baseline]
    found: dict[str, Estimate] = {}
    family = []
    for name, own in values.items():
        pairs = [own[seed] - base[seed] for seed in own if seed in base]
        mean = float(np.mean(pairs)) if pairs else math.nan
        if name == baseline:
            continue
        if len(pairs) < 2:
            found[name] = Estimate(mean, math.nan, math.nan, math.nan, len(pairs), level=level or LEVEL)
        elif not any(pairs):
            found[name] = Estimate(0.0, 0.0, math.inf, 0.0, len(pairs), 1.0, images=images, level=level or LEVEL)
        else:
            found[name] = Estimate(mean, math.nan, math.nan, math.nan, len(pairs), level=level or LEVEL)
            family.append(name)
    if not family:
        return found, None
    names = [baseline, *family]
    runs = [(name, seed) for name in names for seed in values[name]]
    design = Design([names.index(name) for name, _ in runs], [str(seed) for _, seed in runs], len(names))
    y = np.array([values[name][seed] for name, seed in runs])
    fit = design.fit(y)
    if not fit.pooled > 0 or not fit.variance.all():
        return found, None
    over_images = np.zeros(len(family))
    if samples is not None:
        resampled = np.stack([samples[run] for run in runs], axis=1)
        resampled = resampled[~np.isnan(resampled).any(1)]
        if len(resampled) > 1:  # few resamples may have a label of a rare class
            over_images = design.image_variance(resampled)
    variance = fit.variance + over_images
    df = variance**2 / (fit.variance**2 / fit.df + over_images**2 / max(images - 1, 1))
    # If the spread over seeds is small by chance, these degrees of freedom are too many: the interval over seeds and
    # images must not be narrower than that over seeds.
    alone = [special.stdtrit(f, (1 + LEVEL) / 2) * np.sqrt(v) for f, v in ((fit.df, fit.variance), (df, variance))]
    narrower = alone[1] < alone[0]
    variance, df = np.where(narrower, fit.variance, variance), np.where(narrower, fit.df, df)
    shared = fit.shared / variance
    if level is None:
        critical, p = special.stdtrit(df, (1 + LEVEL) / 2), np.full(len(family), math.nan)
    else:
        critical = critical_values(df, shared, level)
        t = np.abs(fit.mean) / np.sqrt(variance)
        p = 1 - simultaneous_coverage(t, df, np.broadcast_to(shared, (len(family), len(family))))
    for i, name in enumerate(family):
        found[name] = replace(
            found[name],
            mean=float(fit.mean[i]),
            se=float(np.sqrt(variance[i])),
            df=float(df[i]),
            critical=float(critical[i]),
            p_adjusted=float(p[i]),
            image_variance=float(variance[i] - fit.variance[i]),
            images=images,
        )
    residuals = y @ design.residual
    freedom = np.diag(design.residual)
    unpaired = freedom < 1e-9  # a seed that only one configuration has: its residual is 0 up to rounding
    standardized = np.abs(residuals) / np.sqrt(fit.pooled * np.where(unpaired, np.inf, freedom))
    outliers = [run for run, value in zip(runs, standardized, strict=True) if value > OUTLIER]
    apart = {name: float(sd) for name, sd, alone in zip(names, fit.spreads**0.5, fit.apart, strict=True) if alone}
    return found, Spreads(float(fit.pooled**0.5), design.pool_df, float(fit.prior_df), apart, outliers)
