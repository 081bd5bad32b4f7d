"""Average precision on resamples of the validation images, for all resamples at once.

On the original images, the values equal those of Ultralytics' `ap_per_class`. A resample gives each image a weight, the
number of times that it was drawn; nothing is sorted or matched again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

RECALLS = np.linspace(0, 1, 101)
CONFIDENCES = np.linspace(0, 1, 1000)
CHUNK = 500_000  # elements of an intermediate array: 4 MB, which fit into a cache


@dataclass(frozen=True)
class Detections:
    """A model's detections on a validation set, matched with its labels.

    Attributes:
        tp: whether each detection is correct at IoU 0.50, 0.55, ..., 0.95, shape (detections, 10), bool.
        conf: confidence of each detection, shape (detections,).
        cls: class of each detection, shape (detections,).
        image: index of the image of each detection, shape (detections,).
        target_cls: class of each label, shape (labels,).
        target_image: index of the image of each label, shape (labels,).
        images: number of validation images.
    """

    tp: Array
    conf: Array
    cls: Array
    image: Array
    target_cls: Array
    target_image: Array
    images: int

    @classmethod
    def load(cls, path: Path, which: str) -> Detections:
        """Read the detections of the `best` or the `last` weights from a run's `validation.npz`."""
        with np.load(path) as data:
            own = {name: data[f"{which}_{name}"] for name in ("tp", "conf", "cls", "image")}
            return cls(**own, **{k: data[k] for k in ("target_cls", "target_image")}, images=int(data["images"]))


@dataclass(frozen=True)
class Resampled:
    """The metrics on each resample; NaN where a resample has no label of a class.

    Attributes:
        classes: the classes that have labels, shape (classes,).
        ap: average precision by class and IoU threshold, shape (classes, 10, resamples).
        precision: by class, at the confidence of the largest mean F1, shape (classes, resamples).
        recall: by class, at the same confidence, shape (classes, resamples).
    """

    classes: Array
    ap: Array
    precision: Array
    recall: Array

    def metric(self, name: str) -> Array:
        """Return `map50_95`, `map50`, `map75`, `precision` or `recall` on each resample, shape (resamples,)."""
        values = {
            "map50_95": lambda: self.ap.mean(1),
            "map50": lambda: self.ap[:, 0],
            "map75": lambda: self.ap[:, 5],
            "precision": lambda: self.precision,
            "recall": lambda: self.recall,
        }[name]()
        return _mean_over_classes(values)


def bootstrap_weights(images: int, resamples: int, seed: int = 0) -> Array:
    """Return how often each image is drawn in each resample with replacement, shape (images, resamples)."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(images, np.full(images, 1 / images), size=resamples).T.astype(float)


def resample(detections: Detections, weights: Array) -> Resampled:
    """Return the metrics on resamples of the images.

    Args:
        detections: the detections of one model.
        weights: how often each image counts in each resample, shape (images, resamples).
    """
    order = np.argsort(-detections.conf)  # the same call as in `ap_per_class`, so that ties are in the same order
    tp, conf, cls, image = (a[order] for a in (detections.tp, detections.conf, detections.cls, detections.image))
    classes = np.unique(detections.target_cls).astype(int)
    weights = weights.astype(np.int32)
    step = max(1, CHUNK // max(len(classes) * len(CONFIDENCES), *np.bincount(cls.astype(int), minlength=1), 1))
    parts = []
    for start in range(0, weights.shape[1], step):
        drawn = weights[:, start : start + step]
        ap = np.zeros((len(classes), tp.shape[1], drawn.shape[1]))
        curves = np.zeros((2, len(classes), len(CONFIDENCES), drawn.shape[1]))  # precision and recall by confidence
        for index, c in enumerate(classes):
            labels = drawn[detections.target_image[detections.target_cls == c]].sum(0)
            own = cls == c
            if own.any():
                ap[index], curves[:, index] = _one_class(tp[own], conf[own], image[own], drawn, np.maximum(labels, 1))
            ap[index, :, labels == 0] = np.nan
            curves[:, index, :, labels == 0] = np.nan
        parts.append((ap, *_at_largest_f1(*curves)))
    return Resampled(classes, *(np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)))


def _one_class(tp: Array, conf: Array, image: Array, drawn: Array, labels: Array) -> tuple[Array, tuple[Array, Array]]:
    """Return the average precision of one class at each threshold, and its precision and recall by confidence.

    Args:
        tp: whether each detection is correct at each threshold, shape (detections, thresholds), by falling confidence.
        conf: confidence of each detection.
        image: image of each detection.
        drawn: how often each image counts in each resample, shape (images, resamples).
        labels: number of labels in each resample, at least 1.
    """
    at = np.searchsorted(-conf, -CONFIDENCES, side="right") - 1  # the last detection that is confident enough
    hit_rows = np.flatnonzero(tp.any(1))
    rows = np.unique(np.concatenate([hit_rows, at[at >= 0]]))
    # Most detections are false and lie between two rows that matter: only their sum is used.
    between = np.add.reduceat(drawn[image[: rows[-1] + 1]], np.concatenate([[0], rows[:-1] + 1]), dtype=np.int32)
    total = between.cumsum(0)
    hit_counts, hit_total = drawn[image[hit_rows]], total[np.searchsorted(rows, hit_rows)]
    ap = np.zeros((tp.shape[1], drawn.shape[1]))
    for threshold, hits in enumerate(tp[hit_rows].T):
        if hits.any():
            ap[threshold] = _average_precision(hit_counts[hits].cumsum(0), hit_total[hits], labels)
    correct = np.concatenate([np.zeros_like(drawn[:1]), (hit_counts * tp[hit_rows, :1]).cumsum(0)])
    correct = correct[np.searchsorted(hit_rows, at, side="right")]
    found = np.where(at[:, None] >= 0, total[np.searchsorted(rows, np.maximum(at, 0))], 0)
    return ap, _confidence_curves(tp[:, 0], conf, image, drawn, at, correct, found, labels)


def _average_precision(correct: Array, total: Array, labels: Array) -> Array:
    """Return the average precision of one class at one threshold, shape (resamples,).

    The interpolated precision at a recall is the largest precision from there on, and precision falls between true
    positives: each true positive's envelope holds for the sampled recalls from its predecessor's recall up to below
    its own. Summing over true positives therefore gives the 101-point integral with no search for each recall.

    Args:
        correct: number of true positives up to each of them, shape (true positives, resamples).
        total: number of detections up to there.
        labels: number of labels in each resample.
    """
    envelope = np.maximum.accumulate((correct / np.maximum(total, 1))[::-1])[::-1]
    reached = np.searchsorted(RECALLS, correct / labels)
    integral = np.maximum(reached - 0.5, 0) / 100  # the trapezoids' weights, summed up to that recall
    area: Array = envelope[0] * integral[0] + (envelope[1:] * np.diff(integral, axis=0)).sum(0)
    return area


def _confidence_curves(
    tp: Array, conf: Array, image: Array, drawn: Array, at: Array, correct: Array, found: Array, labels: Array
) -> tuple[Array, Array]:
    """Return precision and recall of one class at each of `CONFIDENCES`, shape (confidences, resamples) each.

    As `np.interp` does on a resample's own detections: between the last drawn one above a confidence, counted in full,
    and the first drawn one below it, counted once.

    Args:
        tp: whether each detection is correct at IoU 0.5, by falling confidence.
        conf: confidence of each detection.
        image: image of each detection.
        drawn: how often each image counts in each resample.
        at: the last detection that is confident enough, -1 for none.
        correct: number of true positives up to there, shape (confidences, resamples).
        found: number of detections up to there.
        labels: number of labels in each resample.
    """
    before, after = _nearest_drawn(image, drawn, at, -1), _nearest_drawn(image, drawn, at + 1, 1)
    higher, lower = conf[before], conf[np.minimum(after, len(conf) - 1)]
    last = after == len(conf)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(last, 0, (higher - CONFIDENCES[:, None]) / (higher - lower))
        at_next = correct + tp[np.minimum(after, len(conf) - 1)]
        precision = correct / found + share * (at_next / (found + 1) - correct / found)
        recall = (correct + share * (at_next - correct)) / labels
    return np.where(found > 0, precision, 1), np.where(found > 0, recall, 0)


def _nearest_drawn(image: Array, drawn: Array, start: Array, step: int) -> Array:
    """Return the first detection from `start` on whose image was drawn, in either direction, by resample."""
    rows, inverse = np.unique(start, return_inverse=True)
    nearest = np.repeat(rows[:, None], drawn.shape[1], axis=1)
    inside = (rows >= 0) & (rows < len(image))
    missing = np.zeros(nearest.shape, bool)
    missing[inside] = drawn[image[rows[inside]]] == 0
    row, column = np.nonzero(missing)
    while len(row):
        nearest[row, column] += step
        found = nearest[row, column]
        inside = (found >= 0) & (found < len(image))
        row, column, found = row[inside], column[inside], found[inside]
        missing = drawn[image[found], column] == 0
        row, column = row[missing], column[missing]
    return nearest[inverse]


def _at_largest_f1(precision: Array, recall: Array) -> tuple[Array, Array]:
    """Return precision and recall by class, at the largest smoothed mean F1, of shape (classes, resamples) each."""
    f1 = _mean_over_classes(2 * precision * recall / (precision + recall + 1e-16))  # (confidences, resamples)
    width = round(len(CONFIDENCES) * 0.2) // 2 + 1
    padded = np.concatenate([np.repeat(f1[:1], width // 2 + 1, 0), f1, np.repeat(f1[-1:], width // 2, 0)])
    total = padded.cumsum(0)
    best = np.argmax(np.nan_to_num(total[width:] - total[:-width]), axis=0)
    columns = np.arange(precision.shape[-1])
    return precision[:, best, columns], recall[:, best, columns]


def _mean_over_classes(values: Array) -> Array:
    """Return the mean over the first axis, ignoring NaN."""
    present = ~np.isnan(values)
    count = present.sum(0)
    return np.where(count > 0, np.where(present, values, 0).sum(0) / np.maximum(count, 1), np.nan)
