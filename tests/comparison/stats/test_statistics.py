"""The statistics against scipy, against worked examples, against Ultralytics' own AP, and by simulation."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from made_up_runs import detections

stats = pytest.importorskip("scipy.stats")

from yolo_losses.comparison.stats import statistics  # noqa: E402
from yolo_losses.comparison.stats.resampling import Detections, bootstrap_weights, resample  # noqa: E402
from yolo_losses.comparison.stats.statistics import Estimate, paired_difference  # noqa: E402

ROPE = 0.005


# --- paired differences ----------------------------------------------------------------------------------------------


def test_paired_difference_equals_scipys_paired_t_test():
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 20):
        a, b = rng.normal(0.5, 0.02, (2, n))
        ours, theirs = paired_difference(a, b), stats.ttest_rel(a, b)
        assert ours.p_value == pytest.approx(theirs.pvalue)
        assert ours.interval() == pytest.approx(tuple(theirs.confidence_interval(0.95)))
        assert ours.p_better == pytest.approx(stats.ttest_rel(a, b, alternative="less").pvalue)


def test_paired_difference_of_a_worked_example():
    # Differences 1, 2 and 3 points: mean 2, standard deviation 1, t(0.975, 2) = 4.3027.
    estimate = paired_difference([0.51, 0.52, 0.53], [0.50, 0.50, 0.50])
    assert estimate.mean == pytest.approx(0.02)
    assert estimate.interval() == pytest.approx(
        (0.02 - 4.3027 * 0.01 / 3**0.5, 0.02 + 4.3027 * 0.01 / 3**0.5), abs=1e-6
    )
    assert estimate.p_within(0.005) == pytest.approx(
        stats.t.cdf(-0.015 / (0.01 / 3**0.5), 2) - stats.t.cdf(-0.025 / (0.01 / 3**0.5), 2)
    )


def test_pairing_removes_what_the_seeds_share():
    seed_effect = np.array([0.0, 0.1, 0.2, 0.3])
    own = np.array([0.001, -0.001, 0.002, 0.0])
    estimate = paired_difference(0.5 + seed_effect + own, 0.49 + seed_effect)
    assert estimate.se < 0.001
    assert statistics.correlation(0.5 + seed_effect + own, 0.49 + seed_effect) > 0.99


@pytest.mark.parametrize("n", [0, 1])
def test_under_two_pairs_there_is_no_interval(n):
    estimate = paired_difference(np.full(n, 0.6), np.full(n, 0.5))
    assert all(map(math.isnan, (estimate.se, *estimate.interval(), estimate.p_value, estimate.p_better)))


def test_equal_differences_leave_no_spread_to_judge_by():
    estimate = paired_difference([0.4, 0.5, 0.6], [0.3, 0.4, 0.5])  # their standard deviation is 3e-17
    assert estimate.se == 0
    assert not estimate.usable
    assert estimate.p_value == 1
    assert math.isnan(estimate.interval()[0])


# --- corrections -----------------------------------------------------------------------------------------------------


def test_holm_of_a_worked_example():
    # Sorted: 0.005 * 4, 0.01 * 3, 0.03 * 2, 0.04 * 1, then made to rise.
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_counts_comparisons_without_a_p_value():
    adjusted = statistics.holm([0.01, math.nan, 0.02])
    assert adjusted[0] == pytest.approx(0.03)
    assert adjusted[2] == pytest.approx(0.04)
    assert math.isnan(adjusted[1])


def test_best_of_k_by_luck_is_what_simulation_gives():
    rng = np.random.default_rng(0)
    for k in (1, 2, 5, 10):
        seeds, sd = 3, 0.02
        runs = rng.normal(0, sd, (20_000, k + 1, seeds)).mean(2)
        luck = (runs[:, 1:] - runs[:, :1]).max(1).mean()
        se = math.sqrt(2 / seeds) * sd
        assert statistics.expected_best([se] * k) == pytest.approx(luck, abs=3e-4)
    assert statistics.expected_best([se]) == pytest.approx(0, abs=1e-12)
    assert math.isnan(statistics.expected_best([math.nan, 0.0]))


# --- over images -----------------------------------------------------------------------------------------------------


def ultralytics_ap(found: Detections):
    from ultralytics.utils.metrics import ap_per_class

    _, _, precision, recall, _, ap, *_ = ap_per_class(found.tp, found.conf, found.cls, found.target_cls)
    return ap, precision, recall


def repeated(found: Detections, counts: np.ndarray) -> Detections:
    """Return the detections of a validation set that holds each image as often as `counts` says."""
    images = np.repeat(np.arange(found.images), counts.astype(int))
    own = np.concatenate([np.flatnonzero(found.image == i) for i in images])
    labels = np.concatenate([np.flatnonzero(found.target_image == i) for i in images])
    return Detections(
        *(getattr(found, name)[own] for name in ("tp", "conf", "cls", "image")),
        *(getattr(found, name)[labels] for name in ("target_cls", "target_image")),
        images=len(images),
    )


@pytest.mark.parametrize("skill", [-2.0, 0.0, 1.0, 3.0])
def test_metrics_equal_those_of_ultralytics(skill):
    found = detections(skill, np.random.default_rng(0))
    ours = resample(found, np.ones((found.images, 1)))
    ap, precision, recall = ultralytics_ap(found)
    np.testing.assert_allclose(ours.ap[..., 0], ap, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.precision[:, 0], precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.recall[:, 0], recall, rtol=0, atol=1e-12)
    assert ours.metric("map50_95")[0] == pytest.approx(ap.mean())
    assert ours.metric("map75")[0] == pytest.approx(ap[:, 5].mean())


def test_ap_where_sampled_recalls_meet_those_of_the_curve():
    """A hundred labels put every recall on a sampled one, where the next true positive's precision counts."""
    rng = np.random.default_rng(0)
    conf = rng.permutation(200) / 200
    tp = np.repeat(np.arange(200)[:, None] % 2 == 0, 10, 1)
    image = np.zeros(200, int)
    found = Detections(tp, conf, np.zeros(200), image, np.zeros(100), np.zeros(100, int), 1)
    np.testing.assert_allclose(resample(found, np.ones((1, 1))).ap[..., 0], ultralytics_ap(found)[0], atol=1e-12)


def test_ap_of_a_resample_equals_that_of_the_repeated_images():
    found = detections(1.0, np.random.default_rng(0))
    weights = bootstrap_weights(found.images, 30)
    ours = resample(found, weights)
    for column, counts in enumerate(weights.T):
        ap, precision, recall = ultralytics_ap(repeated(found, counts))
        np.testing.assert_allclose(ours.ap[..., column], ap, rtol=0, atol=1e-12)
        np.testing.assert_allclose(ours.precision[:, column], precision, rtol=0, atol=1e-12)
        np.testing.assert_allclose(ours.recall[:, column], recall, rtol=0, atol=1e-12)


def test_resamples_in_chunks_are_those_at_once(monkeypatch):
    found = detections(1.0, np.random.default_rng(0))
    weights = bootstrap_weights(found.images, 20)
    whole = resample(found, weights)
    monkeypatch.setattr("yolo_losses.comparison.stats.resampling.CHUNK", 10_000)
    parts = resample(found, weights)
    np.testing.assert_array_equal(whole.ap, parts.ap)
    np.testing.assert_array_equal(whole.precision, parts.precision)


def test_a_class_that_a_resample_lacks_does_not_count():
    found = detections(1.0, np.random.default_rng(0))
    weights = np.ones((found.images, 2))
    weights[np.unique(found.target_image[found.target_cls == 2]), 1] = 0
    ours = resample(found, weights)
    assert np.isnan(ours.ap[2, :, 1]).all()
    assert ours.metric("map50")[1] == pytest.approx(ours.ap[:2, 0, 1].mean())


@pytest.mark.parametrize("empty", ["detections", "labels"])
def test_a_model_that_finds_nothing_and_a_set_without_labels(empty):
    found = detections(1.0, np.random.default_rng(0))
    none = np.zeros(0, int)
    if empty == "detections":
        found = Detections(
            np.zeros((0, 10), bool), none, none, none, found.target_cls, found.target_image, found.images
        )
        assert resample(found, np.ones((found.images, 2))).metric("map50").tolist() == [0, 0]
    else:
        found = Detections(found.tp, found.conf, found.cls, found.image, none, none, found.images)
        assert np.isnan(resample(found, np.ones((found.images, 2))).metric("map50")).all()


@pytest.mark.slow
def test_a_thousand_resamples_of_twenty_runs_take_well_under_a_minute():
    found = detections(1.0, np.random.default_rng(0), images=100, background=100)
    weights = bootstrap_weights(100, 1000)
    start = time.process_time()
    resample(found, weights)
    assert 20 * (time.process_time() - start) < 40


def test_over_seeds_and_images_is_never_narrower_than_over_seeds():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = rng.integers(2, 6)
        difference = rng.normal(0, 0.01, n)
        resampled = difference + rng.normal(0, 0.01, (200, 1)) + rng.normal(0, 0.01, (200, n))
        seeds = paired_difference(difference, np.zeros(n))
        both = statistics.over_seeds_and_images(seeds, resampled, 50)
        assert both.interval()[1] - both.mean >= seeds.interval()[1] - seeds.mean
        assert both.mean == seeds.mean


def test_image_variance_counts_the_interaction_once():
    rng = np.random.default_rng(0)
    shared, own = rng.normal(0, 0.03, (20_000, 1)), rng.normal(0, 0.02, (20_000, 4))
    assert statistics.image_variance(shared + own) == pytest.approx(0.03**2, rel=0.05)
    assert statistics.image_variance(own) == pytest.approx(0, abs=1e-5)


# --- verdicts --------------------------------------------------------------------------------------------------------


def judged(differences, *, p=None, rope=ROPE, comparisons=1):
    estimate = paired_difference(differences, np.zeros(len(differences)))
    return statistics.verdict(estimate, estimate.p_value if p is None else p, rope=rope, comparisons=comparisons)


def test_verdicts_of_clear_cases():
    assert judged([0.030, 0.032, 0.029]).word == "better"
    assert judged([-0.030, -0.032, -0.029]).word == "worse"
    assert judged([0.001, -0.001, 0.0005, 0.0]).word == "no difference that matters"
    assert judged([0.03, -0.02, 0.05]).word == "undecided"


def test_a_significant_difference_within_the_rope_does_not_matter():
    assert judged([0.0010, 0.0011, 0.0009, 0.0010]).word == "no difference that matters"
    assert judged([0.0010, 0.0011, 0.0009, 0.0010], rope=0.0).word == "better"


def test_significance_before_the_correction_alone_is_undecided_and_says_so():
    verdict = judged([0.030, 0.045, 0.020], p=0.2, comparisons=5)
    assert verdict.word == "undecided"
    assert "without the correction for 5" in verdict.sentence


def test_no_pair_one_pair_identical_and_equal_differences_are_said():
    assert "no seed" in judged([]).sentence
    assert "single seed" in judged([0.02]).sentence
    identical = judged([0.0, 0.0, 0.0])
    assert identical.word == "no difference that matters"
    assert "identical" in identical.sentence
    equal = judged([0.01, 0.01, 0.01])
    assert equal.word == "undecided"
    assert "equal" in equal.sentence


def test_two_seeds_give_a_rough_guess():
    verdict = judged([0.03, 0.01])
    assert verdict.word == "undecided"
    assert "rough guess" in verdict.sentence


@pytest.mark.parametrize(("mean", "sd"), [(0.02, 0.02), (0.03, 0.015), (-0.02, 0.03)])
def test_the_number_of_seeds_that_decides_has_the_power_it_promises(mean, sd):
    n = statistics.seeds_to_decide(mean, sd, ROPE)
    assert n is not None

    def power(seeds: int) -> float:
        draws = np.random.default_rng(0).normal(mean, sd, (20_000, seeds))
        return float((stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean())

    assert power(n) > 0.79
    assert n <= 3 or power(n - 2) < 0.81


def test_more_comparisons_need_more_seeds():
    one, ten = (judged([0.03, -0.02, 0.05], comparisons=k).seeds_needed for k in (1, 10))
    assert one is not None
    assert ten is not None
    assert ten > one


def test_more_seeds_decide_for_no_difference_too():
    n = statistics.seeds_to_decide(0.0, 0.01, ROPE)
    assert n is not None
    draws = np.random.default_rng(0).normal(0, 0.01, (2000, n))
    words = [judged(d).word for d in draws]
    assert 0.75 < words.count("no difference that matters") / len(words) < 0.9


def test_where_images_are_the_doubt_no_number_of_seeds_helps():
    seeds = Estimate(0.02, 0.001, 4, 5)
    both = Estimate(0.02, 0.02, 40, 5)
    verdict = statistics.verdict(both, both.p_value, rope=ROPE, seeds=seeds, images=100)
    assert verdict.word == "undecided"
    assert verdict.seeds_needed is None
    assert "no number of seeds" in verdict.sentence
    assert "images would" in verdict.sentence


def test_over_sets_is_a_t_interval_of_the_sets_means():
    per_set = [Estimate(m, 0.01, 2, 3) for m in (0.02, 0.03, 0.01)]
    new, these = statistics.over_sets(per_set)
    assert new.interval() == pytest.approx(paired_difference([0.02, 0.03, 0.01], [0, 0, 0]).interval())
    assert these.se == pytest.approx(0.01 / 3**0.5)
    assert these.df == pytest.approx(6)
    assert not statistics.over_sets(per_set[:1])[0].usable


def test_points_are_hundredths_with_a_sign():
    assert statistics.points(0.0123) == "+1.2"
    assert statistics.points(-0.0123) == "−1.2"  # noqa: RUF001
    assert statistics.points(-0.0001) == "0.0"
    assert statistics.points(math.nan) == "n/a"


# --- by simulation ---------------------------------------------------------------------------------------------------

EXPERIMENTS = 2000


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_the_interval_over_seeds_covers(n):
    rng = np.random.default_rng(n)
    covered = 0
    for _ in range(EXPERIMENTS):
        pair = rng.normal(0.5, 0.02, n)  # what both runs of a seed share
        a, b = pair + rng.normal(0.01, 0.02, n), pair + rng.normal(0, 0.02, n)
        low, high = paired_difference(a, b).interval()
        covered += low <= 0.01 <= high
    assert 0.93 <= covered / EXPERIMENTS <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize(
    ("seed_sd", "image_sd", "interaction_sd"),
    [(0.01, 0.1, 0.1), (0.01, 0.03, 0.1), (0.02, 0.0, 0.1), (0.003, 0.2, 0.05)],
)
def test_the_interval_over_seeds_and_images_covers(n, seed_sd, image_sd, interaction_sd):
    """The metric is a mean over images; over new seeds and new images at once, its difference is 0."""
    rng = np.random.default_rng(n)
    images = 100
    weights = bootstrap_weights(images, 200, seed=1) / images
    covered = alone = 0
    for _ in range(EXPERIMENTS):
        table = (
            rng.normal(0, seed_sd, (n, 1))
            + rng.normal(0, image_sd, images)
            + rng.normal(0, interaction_sd, (n, images))
        )
        seeds = paired_difference(table.mean(1), np.zeros(n))
        low, high = statistics.over_seeds_and_images(seeds, (table @ weights).T, images).interval()
        covered += low <= 0 <= high
        alone += abs(seeds.mean) <= seeds.interval()[1] - seeds.mean
    assert 0.93 <= covered / EXPERIMENTS <= 0.97
    if image_sd > 0.1:
        assert alone / EXPERIMENTS < 0.8  # the interval over seeds says nothing on other images


@pytest.mark.slow
def test_the_interval_over_images_covers():
    rng = np.random.default_rng(0)
    images, n = 100, 3
    weights = bootstrap_weights(images, 1000, seed=1) / images
    covered = 0
    for _ in range(EXPERIMENTS):
        model = rng.normal(0, 0.01, (n, 1))  # fixed: the interval is about these models
        table = model + rng.normal(0, 0.1, images) + rng.normal(0, 0.05, (n, images))
        low, high = statistics.percentile_interval((table @ weights).T.mean(1))
        covered += low <= model.mean() <= high
    assert 0.93 <= covered / EXPERIMENTS <= 0.97


@pytest.mark.parametrize("sets", [3, 5])
def test_the_hierarchical_interval_covers(sets):
    rng = np.random.default_rng(sets)
    covered = 0
    for _ in range(EXPERIMENTS):
        effects = rng.normal(0.01, 0.01, sets)
        noise = rng.uniform(0.005, 0.03, sets)
        per_set = [paired_difference(rng.normal(e, s, 3), np.zeros(3)) for e, s in zip(effects, noise, strict=True)]
        low, high = statistics.over_sets(per_set)[0].interval()
        covered += low <= 0.01 <= high
    assert 0.93 <= covered / EXPERIMENTS <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("with_images", [False, True])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_of_null_comparisons_at_most_five_percent_are_called_better(n, with_images):
    """Family-wise: an experiment of five configurations, none of which differs, counts once if any is called better."""
    rng = np.random.default_rng(n)
    k, images = 5, 50
    weights = bootstrap_weights(images, 100, seed=1) / images
    better = worse = 0
    for _ in range(EXPERIMENTS):
        runs = rng.normal(0, 0.02, (1, n, 1)) + rng.normal(0, 0.02, (k + 1, n, 1))
        if with_images:
            runs = runs + rng.normal(0, 0.05, (k + 1, 1, images)) + rng.normal(0, 0.05, (k + 1, n, images))
        differences = runs[1:] - runs[:1]
        seeds = [paired_difference(d.mean(1), np.zeros(n)) for d in differences]
        found = [
            statistics.over_seeds_and_images(s, (d @ weights).T, images) if with_images else s
            for s, d in zip(seeds, differences, strict=True)
        ]
        adjusted = statistics.holm([statistics.p_value_over_both(s, e) for s, e in zip(seeds, found, strict=True)])
        words = {
            statistics.verdict(e, p, rope=0.0005, comparisons=k).word
            for e, p in zip(found, adjusted, strict=True)
            if p <= 0.05
        }
        better += "better" in words
        worse += "worse" in words
    assert better / EXPERIMENTS <= 0.05
    assert worse / EXPERIMENTS <= 0.05
    assert (better + worse) / EXPERIMENTS <= 0.065  # either way; 0.05 and what 2,000 experiments leave open
