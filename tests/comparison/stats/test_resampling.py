"""Average precision on resampled images equals that of Ultralytics."""

from __future__ import annotations

import time

import numpy as np
import pytest
from made_up_runs import detections

from yolo_losses.comparison.stats.resampling import Detections, bootstrap_weights, resample


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


def test_ap_if_every_recall_is_a_sampled_one():
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


def test_chunked_resampling_gives_the_same_result(monkeypatch):
    found = detections(1.0, np.random.default_rng(0))
    weights = bootstrap_weights(found.images, 20)
    whole = resample(found, weights)
    monkeypatch.setattr("yolo_losses.comparison.stats.resampling.CHUNK", 10_000)
    parts = resample(found, weights)
    np.testing.assert_array_equal(whole.ap, parts.ap)
    np.testing.assert_array_equal(whole.precision, parts.precision)


def test_a_class_without_labels_in_a_resample_is_ignored():
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
