"""Measure mAP50-95 by size of object, in the sizes of `loss_stats`.

    python examples/evidence/map_by_size.py DATA WEIGHTS ... [--imgsz 320]

DATA is a `data.yaml` of the task detect, whose validation images are used; WEIGHTS are checkpoints, such as the
`runs/*/seed*/weights/best.pt` in the folder of a comparison. A size is the square root of an object's area in pixels of
the network's input. As in COCO's evaluation, objects of another size are ignored, with the detections that match them,
and so are false positives of another size.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from ultralytics import YOLO
from ultralytics.data.utils import IMG_FORMATS, check_det_dataset, img2label_paths
from ultralytics.utils.metrics import compute_ap

from yolo_losses.monitor.gather import SIDES, SIZES

Array = NDArray[np.float64]
THRESHOLDS = np.linspace(0.5, 0.95, 10)
BOUNDS = (0, *SIDES, math.inf)


class Found(NamedTuple):
    """What there is of one class in one image.

    Attributes:
        boxes: detected, `xyxy` in pixels of the input, most confident first, shape `(N, 4)`.
        confidence: of each, shape `(N,)`.
        objects: labelled boxes, shape `(M, 4)`.
    """

    boxes: Array
    confidence: Array
    objects: Array


def sides(boxes: Array) -> Array:
    """Return the square roots of the areas."""
    return np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def iou(a: Array, b: Array) -> Array:
    """Return the IoU of each box with each other one, shape `(len(a), len(b))`."""
    shared = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    inside = shared.clip(0).prod(2)
    return inside / (sides(a)[:, None] ** 2 + sides(b)[None] ** 2 - inside + 1e-9)


def judged(found: Found, threshold: float, low: float, high: float) -> tuple[list[float], list[bool], int]:
    """Return confidence and truth of the detections that count, and the number of objects that do."""
    wanted, own = ((low <= sides(b)) & (sides(b) < high) for b in (found.objects, found.boxes))
    overlap = iou(found.boxes, found.objects)
    free = np.ones(len(found.objects), bool)
    confidence: list[float] = []
    truth: list[bool] = []
    for d in range(len(found.boxes)):
        matches = list(np.flatnonzero(free & (overlap[d] >= threshold)))
        best = max(matches, key=lambda g: (wanted[g], overlap[d, g]), default=None)
        if best is not None:
            free[best] = False
        if wanted[best] if best is not None else own[d]:
            confidence.append(float(found.confidence[d]))
            truth.append(best is not None)
    return confidence, truth, int(wanted.sum())


def mean_ap(found: Iterable[tuple[int, Found]], size: str) -> float:
    """Return mAP50-95 of the objects of a size, NaN where there is none.

    Args:
        found: class and detections, image by image.
        size: one of `SIZES`.
    """
    low, high = BOUNDS[SIZES.index(size) :][:2]
    by_class: dict[int, list[Found]] = defaultdict(list)
    for label, each in found:
        by_class[label].append(each)
    values = []
    for images in by_class.values():
        for threshold in THRESHOLDS:
            parts = [judged(each, threshold, low, high) for each in images]
            objects = sum(count for *_, count in parts)
            if not objects:
                break
            order = np.argsort([-c for confidence, _, _ in parts for c in confidence], kind="stable")
            true = np.array([t for _, truth, _ in parts for t in truth], bool)[order].cumsum()
            recall, precision = true / objects, true / np.arange(1, len(true) + 1)
            values.append(float(compute_ap(recall, precision)[0]) if len(true) else 0.0)
    return float(np.mean(values)) if values else math.nan


def detections(weights: str, images: list[Path], imgsz: int) -> list[tuple[int, Found]]:
    """Return what a checkpoint detects, and what is labelled, by class and image."""
    found = []
    options: dict[str, Any] = {"imgsz": imgsz, "conf": 0.001, "iou": 0.7, "max_det": 300, "verbose": False}
    model = YOLO(weights)
    for image, label in zip(images, img2label_paths([str(path) for path in images]), strict=True):
        (result,) = model.predict(image, **options)
        height, width = result.orig_shape
        scale = imgsz / max(height, width)
        boxes = result.boxes.xyxy.cpu().numpy().astype(float) * scale
        confidence, classes = (t.cpu().numpy().astype(float) for t in (result.boxes.conf, result.boxes.cls))
        rows = [[float(x) for x in line.split()] for line in Path(label).read_text().splitlines() if line.strip()]
        labels = np.array(rows, float).reshape(-1, 5)
        middle, half = (labels[:, i : i + 2] * (width * scale, height * scale) for i in (1, 3))
        objects = np.hstack((middle - half / 2, middle + half / 2))
        order = np.argsort(-confidence, kind="stable")
        boxes, confidence, classes = boxes[order], confidence[order], classes[order]
        for c in {*classes.tolist(), *labels[:, 0].tolist()}:
            own = Found(boxes[classes == c], confidence[classes == c], objects[labels[:, 0] == c])
            found.append((int(c), own))
    return found


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("weights", nargs="+")
    parser.add_argument("--imgsz", type=int, default=640)
    given = parser.parse_args()
    folder = Path(check_det_dataset(given.data)["val"])
    images = sorted(path for path in folder.iterdir() if path.suffix[1:].lower() in IMG_FORMATS)
    print("weights", *SIZES, sep=",")
    for weights in given.weights:
        found = detections(weights, images, given.imgsz)
        print(weights, *(f"{mean_ap(found, size):.4f}" for size in SIZES), sep=",")


if __name__ == "__main__":
    main()
