"""The model over all runs, against the paired t test, against Dunnett's table, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

stats = pytest.importorskip("scipy.stats")

from yolo_losses.comparison.stats.differences import estimate_differences  # noqa: E402
from yolo_losses.comparison.stats.model import Design, critical_values, moderate  # noqa: E402
from yolo_losses.comparison.stats.resampling import bootstrap_weights  # noqa: E402

EXPERIMENTS = 400


def layout(count: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat(np.arange(count), seeds), np.tile(np.arange(seeds), count)


def values_of(runs: np.ndarray) -> dict[str, dict[int, float]]:
    return {f"c{i}": dict(enumerate(own)) for i, own in enumerate(runs)}


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_one_configuration_against_the_baseline_is_the_paired_t_test(n):
    runs = np.random.default_rng(n).normal(0.5, 0.02, (2, n))
    estimate = estimate_differences(values_of(runs), "c0")[0]["c1"]
    theirs = stats.ttest_rel(runs[1], runs[0])
    assert estimate.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert estimate.own_interval == pytest.approx(estimate.interval)
    assert estimate.p_adjusted == pytest.approx(theirs.pvalue, abs=2e-3)


# Dunnett (1964), two-sided, 5 %: comparisons, degrees of freedom, value.
@pytest.mark.parametrize(
    ("k", "df", "value"), [(2, 10, 2.57), (3, 20, 2.54), (9, 20, 2.95), (5, 30, 2.66), (9, 60, 2.75)]
)
def test_equal_spreads_give_dunnetts_values(k, df, value):
    critical = critical_values(np.full(k, float(df)), np.full(k, 0.5))
    assert critical == pytest.approx(np.full(k, value), abs=0.021)


@pytest.mark.parametrize("df", [2.0, 6.0, 40.0])
def test_critical_values_with_unequal_shares_are_those_of_the_largest_multivariate_t(df):
    rng = np.random.default_rng(0)
    shares = np.array([0.2, 0.5, 0.5, 0.8])
    base, own = rng.standard_normal((2, 200_000, 4))
    t = np.sqrt(shares) * base[:, :1] + np.sqrt(1 - shares) * own
    largest = np.abs(t / np.sqrt(rng.chisquare(df, (200_000, 1)) / df)).max(1)
    assert critical_values(np.full(4, df), shares)[0] == pytest.approx(np.quantile(largest, 0.95), rel=0.02)


def test_missing_runs_and_unequal_numbers_of_seeds_give_the_least_squares_fit():
    rng = np.random.default_rng(0)
    configurations, seeds = layout(4, 5)
    there = np.ones(20, bool)
    there[[3, 7, 8, 19]] = False
    y = rng.normal(0, 1, 20)[there]
    fit = Design(configurations[there], seeds[there], 4).fit(y)
    x = np.zeros((there.sum(), 9))
    x[np.arange(len(x)), configurations[there]] = 1
    x[np.arange(len(x)), 4 + seeds[there]] = 1
    beta = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(fit.mean, beta[1:4] - beta[0])


def test_an_effect_common_to_all_runs_of_a_seed_cancels():
    runs = np.random.default_rng(0).normal(0, 0.001, (4, 5)) + np.linspace(0, 0.3, 5)
    estimates, spreads = estimate_differences(values_of(runs), "c0")
    assert spreads is not None
    assert spreads.pooled < 0.002
    assert all(estimate.se < 0.002 for estimate in estimates.values())


def test_a_seed_without_a_partner_changes_no_difference():
    runs = np.random.default_rng(0).normal(0, 1, (3, 4))
    values = values_of(runs)
    before = estimate_differences(values, "c0")[0]
    values["c2"][9] = 5.0
    after = estimate_differences(values, "c0")[0]
    assert after["c1"].mean == pytest.approx(before["c1"].mean)
    assert after["c2"].mean == pytest.approx(before["c2"].mean)


def test_a_run_far_from_the_others_is_an_outlier_and_a_seed_without_a_partner_is_not():
    values = values_of(np.random.default_rng(0).normal(0.3, 0.01, (10, 3)))
    values["c0"] |= {seed: 0.3 + seed / 1000 for seed in range(3, 9)}
    _, spreads = estimate_differences(values, "c0")
    assert spreads is not None
    assert not spreads.outliers
    values["c3"][1] -= 0.2
    _, spreads = estimate_differences(values, "c0")
    assert spreads is not None
    assert spreads.outliers == [("c3", 1)]


def test_spreads_that_differ_by_chance_are_pooled_and_others_keep_their_own():
    df = np.full(6, 2.0)
    _, _, prior, apart = moderate(np.array([1.0, 1.2, 0.9, 1.1, 0.8, 1.0]), df, np.array(1.0), 10.0)
    assert math.isinf(prior)
    assert not apart.any()
    variances, own_df, _, apart = moderate(np.array([1.0, 1.2, 0.9, 1.1, 0.8, 40.0]), df, np.array(7.5), 10.0)
    assert apart.tolist() == [False] * 5 + [True]
    assert variances[-1] == 40
    assert own_df[-1] == 2
    assert variances[0] > 1  # moved toward the pool, in which the large one is


def test_one_run_equal_runs_or_no_spread_give_no_interval():
    values = values_of(np.random.default_rng(0).normal(0.4, 0.02, (3, 3)))
    values |= {"one": {0: 0.5}, "none": {7: 0.5}, "same": dict(values["c0"])}
    estimates, _ = estimate_differences(values, "c0")
    assert (estimates["one"].n, estimates["none"].n) == (1, 0)
    assert math.isnan(estimates["one"].se)
    assert estimates["same"].interval == (0, 0)
    alone = estimate_differences({"c0": {0: 0.1, 1: 0.2}, "c1": {0: 0.2, 1: 0.3}}, "c0")
    assert math.isnan(alone[0]["c1"].se)
    assert alone[1] is None


def test_the_interval_over_seeds_and_images_is_never_narrower_and_counts_the_interaction_once():
    rng = np.random.default_rng(0)
    design = Design(*layout(3, 4), 3)
    run_by_image = rng.normal(0, 0.02, (20_000, 12))
    np.testing.assert_allclose(design.image_variance(run_by_image), 0, atol=1e-5)
    configuration = np.repeat(rng.normal(0, 0.03, (20_000, 3)), 4, axis=1)
    np.testing.assert_allclose(design.image_variance(configuration + run_by_image), 2 * 0.03**2, rtol=0.05)
    for _ in range(50):
        runs = rng.normal(0, 0.01, (3, 3))
        samples = {(f"c{i}", j): runs[i, j] + rng.normal(0, 0.01, 200) for i in range(3) for j in range(3)}
        seeds = estimate_differences(values_of(runs), "c0", level=None)[0]
        both = estimate_differences(values_of(runs), "c0", samples, 50, level=None)[0]
        assert all(both[name].interval[1] >= seeds[name].interval[1] - 1e-12 for name in seeds)


@pytest.mark.slow
@pytest.mark.parametrize(("seed_sd", "image_sd"), [(0.01, 0.1), (0.02, 0.0), (0.003, 0.2)])
@pytest.mark.parametrize("n", [3, 10])
def test_the_intervals_over_seeds_and_images_cover_together(n, seed_sd, image_sd):
    """The metric is a mean over images; over new seeds and new images, no configuration differs."""
    rng = np.random.default_rng(n)
    k, images = 3, 100
    weights = bootstrap_weights(images, 200, seed=1) / images
    held = 0
    for _ in range(EXPERIMENTS):
        table = rng.normal(0, seed_sd, (k + 1, n, 1)) + rng.normal(0, image_sd, (k + 1, 1, images))
        table = table + rng.normal(0, 0.05, (k + 1, n, images))
        samples = {(f"c{i}", j): table[i, j] @ weights for i in range(k + 1) for j in range(n)}
        estimates, _ = estimate_differences(values_of(table.mean(2)), "c0", samples, images)
        held += all(e.interval[0] <= 0 <= e.interval[1] for e in estimates.values())
    assert 0.92 <= held / EXPERIMENTS <= 0.99


@pytest.mark.parametrize("sets", [3, 5])
def test_the_mean_over_data_sets_covers_further_sets(sets):
    rng = np.random.default_rng(sets)
    held = 0
    for _ in range(EXPERIMENTS):
        effects = rng.normal(0.01, 0.02, (3, sets)) + rng.normal(0, 0.01, (3, sets))
        values = {"c0": dict.fromkeys(range(sets), 0.0)}
        values |= {f"c{i + 1}": dict(enumerate(own)) for i, own in enumerate(effects)}
        estimates, _ = estimate_differences(values, "c0")
        held += all(e.interval[0] <= 0.01 <= e.interval[1] for e in estimates.values())
    assert held / EXPERIMENTS >= 0.94
