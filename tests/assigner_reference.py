"""The task-aligned assignment, written out as loops over images, objects and anchors in plain Python numbers.

What the tests compare Ultralytics' assigners with, under every key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Box = Sequence[float]
EPS = 1e-7


@dataclass(frozen=True)
class Rules:
    """What an assigner is set to.

    Attributes:
        topk: candidates per object.
        topk2: how many of these are left after conflicts; equal to `topk`: all.
        alpha: exponent of the score.
        beta: exponent of the overlap.
        overlap: of a predicted box with an object, at least 0.
        below: sides smaller than this are enlarged; `None`: none.
        floor: to what.
    """

    topk: int
    topk2: int
    alpha: float
    beta: float
    overlap: Callable[[Box, Box], float]
    below: float | None = None
    floor: float = 0.0


@dataclass(frozen=True)
class Image:
    """One image.

    Attributes:
        scores: of each anchor, by class.
        boxes: predicted, one for each anchor.
        anchors: points in pixels.
        labels: of the objects.
        objects: their boxes, `xyxy` or `xywhr`.
        allowed: whether an anchor may belong to an object, beside its place; `None`: any.
        pair: the overlap of object and anchor by their numbers, from that of their boxes; `None`: that.
        masks: whether the overlap is the mean of the boxes' and that of `pair`, which the best pairs alone have.
    """

    scores: Sequence[Sequence[float]]
    boxes: Sequence[Box]
    anchors: Sequence[tuple[float, float]]
    labels: Sequence[int]
    objects: Sequence[Box]
    allowed: Callable[[int, int], bool] | None = None
    pair: Callable[[int, int, float], float] | None = None
    masks: bool = False


@dataclass
class Positive:
    """What was assigned to an anchor."""

    number: int
    target: float = field(default=0.0)


def assign(image: Image, rules: Rules) -> dict[int, Positive]:
    """Return the positives of an image by their anchor."""
    anchors, objects = range(len(image.anchors)), range(len(image.objects))
    candidates = [_candidates(image, rules, g) for g in objects]
    overlap = [[0.0] * len(anchors) for _ in objects]
    metric = [[0.0] * len(anchors) for _ in objects]
    for g in objects:
        boxes = {a: rules.overlap(image.boxes[a], image.objects[g]) for a in candidates[g]}
        overlap[g] = _overlaps(image, rules, g, boxes, len(anchors))
        for a in candidates[g]:
            metric[g][a] = image.scores[a][image.labels[g]] ** rules.alpha * overlap[g][a] ** rules.beta
    wanted = [{a for a in _best(metric[g], rules.topk) if a in candidates[g]} for g in objects]
    owned: list[set[int]] = [set() for _ in objects]
    for a in anchors:
        claims = [g for g in objects if a in wanted[g]]
        if len(claims) > 1:
            claims = [max(objects, key=lambda g: overlap[g][a])]  # of all objects, the first of equals
        for g in claims:
            owned[g].add(a)
    if rules.topk2 != rules.topk:
        for g in objects:
            left = [metric[g][a] if a in owned[g] else 0.0 for a in anchors]
            owned[g] &= set(_best(left, rules.topk2))
    found = {}
    for g in objects:
        best = max((metric[g][a] for a in owned[g]), default=0.0)
        scale = max((overlap[g][a] for a in owned[g]), default=0.0) / (best + 1e-9)
        found.update({a: Positive(g, metric[g][a] * scale) for a in owned[g]})
    return found


def _candidates(image: Image, rules: Rules, g: int) -> list[int]:
    box = image.objects[g]
    rotated = len(box) == 5
    x, y, w, h = box[:4] if rotated else xywh(box)
    if rules.below is not None:
        w, h = (rules.floor if side < rules.below else side for side in (w, h))
    angle = box[4] if rotated else 0.0
    found = []
    for a, (px, py) in enumerate(image.anchors):
        along = (px - x) * math.cos(angle) + (py - y) * math.sin(angle)
        across = (py - y) * math.cos(angle) - (px - x) * math.sin(angle)
        if w / 2 - abs(along) > (-1e-9 if rotated else 1e-9) and h / 2 - abs(across) > (-1e-9 if rotated else 1e-9):
            found.append(a)
    if image.allowed is not None:
        found = [a for a in found if image.allowed(g, a)] or found
    return found


def _overlaps(image: Image, rules: Rules, g: int, boxes: dict[int, float], anchors: int) -> list[float]:
    found = [0.0] * anchors
    best = set(boxes)
    if image.masks:
        metric = [0.0] * anchors
        for a, overlap in boxes.items():
            metric[a] = image.scores[a][image.labels[g]] ** rules.alpha * overlap**rules.beta + 1e-9
        best = set(_best(metric, 3 * rules.topk))
    for a, overlap in boxes.items():
        other = overlap if image.pair is None else image.pair(g, a, overlap) if a in best else 0.0
        found[a] = (overlap + other) / 2 if image.masks else other
    return found


def _best(values: Sequence[float], count: int) -> list[int]:
    """Return the positions of the largest values, of equals the first."""
    return sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]


# ------------------------------------------------------------------------------------------------------------ overlaps


def xywh(box: Box) -> tuple[float, float, float, float]:
    """Return centre and sides of a box `xyxy`."""
    x1, y1, x2, y2 = box
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def iou(p: Box, t: Box) -> float:
    """Return the intersection over union."""
    w = max(0.0, min(p[2], t[2]) - max(p[0], t[0]))
    h = max(0.0, min(p[3], t[3]) - max(p[1], t[1]))
    (_, _, pw, ph), (_, _, tw, th) = xywh(p), xywh(t)
    return w * h / (pw * ph + tw * th - w * h + EPS)


def giou(p: Box, t: Box) -> float:
    """Return the generalised IoU, at least 0."""
    (_, _, pw, ph), (_, _, tw, th) = xywh(p), xywh(t)
    hull = (max(p[2], t[2]) - min(p[0], t[0])) * (max(p[3], t[3]) - min(p[1], t[1]))
    union = (pw * ph + tw * th) / (1 + iou(p, t))
    return max(0.0, iou(p, t) - (hull - union) / (hull + EPS))


def _centres(p: Box, t: Box) -> float:
    (px, py, _, _), (tx, ty, _, _) = xywh(p), xywh(t)
    diagonal = (max(p[2], t[2]) - min(p[0], t[0])) ** 2 + (max(p[3], t[3]) - min(p[1], t[1])) ** 2
    return ((px - tx) ** 2 + (py - ty) ** 2) / (diagonal + EPS)


def diou(p: Box, t: Box) -> float:
    """Return the distance IoU, at least 0."""
    return max(0.0, iou(p, t) - _centres(p, t))


def ciou(p: Box, t: Box) -> float:
    """Return the complete IoU, at least 0."""
    (_, _, pw, ph), (_, _, tw, th) = xywh(p), xywh(t)
    v = 4 / math.pi**2 * (math.atan(tw / th) - math.atan(pw / ph)) ** 2
    return max(0.0, iou(p, t) - _centres(p, t) - v * v / (v - iou(p, t) + 1 + EPS))


def nwd(p: Box, t: Box, constant: float = 12.8) -> float:
    """Return the normalised Wasserstein distance of two boxes as Gaussians, 1 where they are equal."""
    (px, py, pw, ph), (tx, ty, tw, th) = xywh(p), xywh(t)
    squared = (px - tx) ** 2 + (py - ty) ** 2 + ((pw - tw) ** 2 + (ph - th) ** 2) / 4
    return math.exp(-math.sqrt(squared + EPS) / constant)


def probiou(p: Box, t: Box) -> float:
    """Return one minus the Hellinger distance of two rotated boxes `xywhr` as Gaussians."""

    def covariance(box: Box) -> tuple[float, float, float]:
        a, b, c, s = box[2] ** 2 / 12, box[3] ** 2 / 12, math.cos(box[4]), math.sin(box[4])
        return a * c * c + b * s * s, a * s * s + b * c * c, (a - b) * c * s

    (a1, b1, c1), (a2, b2, c2) = covariance(p), covariance(t)
    a, b, c, dx, dy = a1 + a2, b1 + b2, c1 + c2, p[0] - t[0], p[1] - t[1]
    whole = a * b - c * c + EPS
    distance = (a * dy * dy + b * dx * dx) / whole / 4 - c * dx * dy / whole / 2
    parts = max(a1 * b1 - c1 * c1, 0.0) * max(a2 * b2 - c2 * c2, 0.0)
    distance += math.log((a * b - c * c) / (4 * math.sqrt(parts) + EPS) + EPS) / 2
    return max(0.0, 1 - math.sqrt(1 - math.exp(-min(max(distance, EPS), 100.0)) + EPS))


OVERLAPS: dict[str, Callable[..., float]] = {"iou": iou, "giou": giou, "diou": diou, "ciou": ciou, "nwd": nwd}
