"""The outcome follows from the interval, and the advised number of seeds has the stated power."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

stats = pytest.importorskip("scipy.stats")

from yolo_losses.comparison.stats.differences import Estimate, estimate_differences  # noqa: E402
from yolo_losses.comparison.stats.verdict import DECIDED, Verdict, format_points, judge, outcome, seeds_needed  # noqa: E402

ROPE = 0.005


def judged(differences, rope=ROPE) -> Verdict:
    values = {"base": dict.fromkeys(range(len(differences)), 0.0), "new": dict(enumerate(differences))}
    return judge(estimate_differences(values, "base")[0]["new"], rope)


def test_outcomes_of_clear_cases():
    assert judged([0.030, 0.032, 0.029]).word == "better"
    assert judged([-0.030, -0.032, -0.029]).word == "worse"
    assert judged([0.001, -0.001, 0.0005, 0.0001]).word == "practically equal"
    assert judged([0.03, -0.02, 0.05]).word == "inconclusive"


def test_a_certain_difference_within_the_rope_is_practically_equal():
    assert judged([0.0010, 0.0011, 0.0009, 0.00102]).word == "practically equal"
    assert judged([0.0010, 0.0011, 0.0009, 0.00102], rope=0.0).word == "better"


@pytest.mark.parametrize("sign", [1, -1])
def test_a_difference_that_only_the_individual_interval_shows_leans(sign):
    estimate = Estimate(sign * 0.02, 0.008, 20.0, 3.0, 3)
    assert estimate.own_interval[0] * estimate.own_interval[1] > 0
    assert estimate.interval[0] * estimate.interval[1] < 0
    assert outcome(estimate, ROPE) == ("leans better" if sign > 0 else "leans worse")


def test_the_sentence_names_no_pair_one_pair_identical_runs_and_equal_differences():
    assert "no seed" in judged([]).sentence
    assert "one seed" in judged([0.02]).sentence
    identical = judged([0.0, 0.0, 0.0])
    assert identical.word == "practically equal"
    assert "identical" in identical.sentence
    assert "without any spread" in judged([0.01, 0.01, 0.01]).sentence


def test_two_seeds_give_a_rough_guess():
    assert "rough guess" in judged([0.03, 0.01]).sentence


@pytest.mark.parametrize(("mean", "sd"), [(0.02, 0.02), (0.03, 0.015), (-0.02, 0.03)])
def test_the_advised_number_of_seeds_has_a_power_of_80_percent(mean, sd):
    seen = Estimate(mean, sd / math.sqrt(3), 2.0, float(stats.t.ppf(0.975, 2)), 3)
    n = seeds_needed(seen, ROPE)
    assert n is not None

    def power(seeds: int) -> float:
        draws = np.random.default_rng(0).normal(mean, sd, (20_000, seeds))
        return float((stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean())

    assert power(n) > 0.79
    assert n <= 4 or power(n - 2) < 0.81


def test_a_larger_family_needs_more_seeds():
    seen = Estimate(0.02, 0.015, 8.0, 2.3, 3)
    one, many = (seeds_needed(dataclasses.replace(seen, critical=critical), ROPE) for critical in (2.3, 3.5))
    assert one is not None
    assert many is not None
    assert many > one


def test_no_number_of_seeds_is_advised_if_the_images_are_too_few():
    verdict = judge(Estimate(0.02, 0.02, 40.0, 2.0, 5, image_variance=0.02**2 - 0.001**2, images=100), ROPE)
    assert verdict.word not in DECIDED
    assert verdict.seeds_needed is None
    assert "100 validation images are too few" in verdict.sentence


def test_points_are_hundredths_with_a_sign():
    assert format_points(0.0123) == "+1.2"
    assert format_points(-0.0123) == "−1.2"  # noqa: RUF001
    assert format_points(-0.0001) == "0.0"
    assert format_points(math.nan) == "n/a"
