"""The class losses that tutorials paste over Ultralytics' `loss.py`: the same number for the same batch.

There `self.bce` is one of `FocalLoss_YOLO`, `VarifocalLoss_YOLO`, `QualityfocalLoss_YOLO` and `SlideLoss`. What these
return is written out below element by element, in Python's own floats, as is what the criterion makes of it.

The copies in circulation agree in the formulas. They differ from each other in what the overlap of a positive is: IoU
in the varifocal and the quality focal branch, CIoU for the mean that slide compares with; never below 1e-6 as a target.
Divided is by the number of positives where targets are overlaps, by the sum of the assigner's scores where they are
these scores. `cls_target=ciou` is the first with CIoU, for each of the four; slide's mean is then that of the targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from conftest import criterion_of, made_up_batch, predictions, run

import yolo_losses
from yolo_losses.integration.criteria.assignment import Assignment

Box = Sequence[float]
SMALLEST = 1e-6


def bce(z: float, t: float) -> float:
    return max(z, 0) - z * t + math.log1p(math.exp(-abs(z)))


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def focal(z: float, t: float, positive: bool, mean: float) -> float:
    """`FocalLoss_YOLO(gamma=1.5, alpha=0.25)`, with soft labels."""
    p = sigmoid(z)
    return bce(z, t) * (1 - (t * p + (1 - t) * (1 - p))) ** 1.5 * (t * 0.25 + (1 - t) * 0.75)


def varifocal(z: float, t: float, positive: bool, mean: float) -> float:
    """`VarifocalLoss_YOLO(alpha=0.75, gamma=2.0)`: positive is what has a target above 0."""
    return bce(z, t) * (t if t > 0 else 0.75 * abs(sigmoid(z) - t) ** 2)


def quality_focal(z: float, t: float, positive: bool, mean: float) -> float:
    """`QualityfocalLoss_YOLO(beta=2.0)`: positive is the class of an assigned anchor."""
    return bce(z, t) * abs(t - sigmoid(z)) ** 2 if positive else bce(z, 0) * sigmoid(z) ** 2


def slide(z: float, t: float, positive: bool, mean: float) -> float:
    """`SlideLoss(nn.BCEWithLogitsLoss(reduction="none"))`: bands about the mean overlap, 0.2 or more."""
    mean = max(mean, 0.2)
    if t <= mean - 0.1:
        return bce(z, t)
    return bce(z, t) * math.exp(1 - mean if t < mean else 1 - t)


FORMULAS: dict[str, Callable[[float, float, bool, float], float]] = {
    "focal": focal,
    "vfl": varifocal,
    "qfl": quality_focal,
    "slide": slide,
}


def iou(a: Box, b: Box) -> float:
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def ciou(a: Box, b: Box) -> float:
    """IoU less the distance of the centres over the enclosing diagonal, squared, less the sides' proportion."""
    apart = sum(((a[i] + a[i + 2]) / 2 - (b[i] + b[i + 2]) / 2) ** 2 for i in (0, 1))
    diagonal = sum((max(a[i + 2], b[i + 2]) - min(a[i], b[i])) ** 2 for i in (0, 1))
    angles = [math.atan((box[2] - box[0]) / (box[3] - box[1])) for box in (a, b)]
    v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    overlap = iou(a, b)
    return overlap - apart / diagonal - v * v / (v - overlap + 1)


def predicted(args: Any, kwargs: Any) -> Any:
    """Return the predicted boxes among an assigner's arguments."""
    return kwargs["pd_bboxes"] if "pd_bboxes" in kwargs else args[1]


class Batch:
    """A batch of made-up predictions as tutorials' code sees it: logits, assigner's scores, boxes of positives."""

    def __init__(self) -> None:
        self.outputs, self.batch = predictions("v8", images=2), made_up_batch("v8", images=2, each=4)
        criterion = self.criterion()
        self.gain = float(criterion.hyp.cls)
        found: dict[str, Any] = {}

        def assigned(module: Any, args: Any, kwargs: Any, result: Any) -> None:
            found.update(boxes=predicted(args, kwargs), assigned=[tensor.clone() for tensor in result[:4]])

        criterion.assigner.register_forward_hook(assigned, with_kwargs=True)
        criterion.bce.register_forward_pre_hook(lambda module, args: found.update(logits=args[0].detach()))
        run(criterion, self.outputs, self.batch)
        labels, targets, scores, positive = found["assigned"]
        self.logits, self.scores = found["logits"].double().tolist(), scores.double().tolist()
        self.pairs = {
            (image, anchor, int(labels[image, anchor])): (
                found["boxes"][image, anchor].double().tolist(),
                targets[image, anchor].double().tolist(),
            )
            for image, anchor in positive.nonzero().tolist()
        }

    @staticmethod
    def criterion() -> Any:
        """Return a stock criterion whose positives are in part far from their objects, in part close."""
        criterion = criterion_of("v8")
        stock = criterion.assigner.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            labels, boxes, *rest = stock(*args, **kwargs)
            boxes = boxes.clone()
            boxes[:, ::6] += 50
            close = predicted(args, kwargs)[:, 1::2]
            sides = (close[..., 2:] - close[..., :2]).repeat(1, 1, 2)
            boxes[:, 1::2] = close + sides * ((torch.arange(close.shape[1]) % 7 + 1) / 18).view(1, -1, 1)
            return labels, boxes, *rest

        criterion.assigner.forward = forward
        return criterion

    def term(self, cls_loss: str, targets: dict[tuple[int, int, int], float], mean: float, divisor: float) -> float:
        """Return the class term with these targets of the positives, 0 elsewhere."""
        total = 0.0
        for image, rows in enumerate(self.logits):
            for anchor, row in enumerate(rows):
                for number, z in enumerate(row):
                    key = (image, anchor, number)
                    total += FORMULAS[cls_loss](z, targets.get(key, 0.0), key in targets, mean)
        return self.gain * total / max(divisor, 1)

    def ours(self, **keys: Any) -> float:
        """Return the class term that is logged with the plugin."""
        criterion = self.criterion()
        yolo_losses.equip(criterion, keys)
        return run(criterion, self.outputs, self.batch)[0]["cls_loss"]


@pytest.fixture(scope="module")
def batch() -> Batch:
    found = Batch()
    overlaps = [ciou(*pair) for pair in found.pairs.values()]
    assert len(overlaps) > 20
    assert min(overlaps) < 0 < max(overlaps), "some are clamped"
    assert max(abs(ciou(*pair) - iou(*pair)) for pair in found.pairs.values()) > 0.05
    targets = {key: min(max(ciou(*pair), SMALLEST), 1) for key, pair in found.pairs.items()}
    mean, other = (sum(values) / len(values) for values in (targets.values(), [iou(*p) for p in found.pairs.values()]))
    terms = [found.term("slide", targets, of, 1) for of in (mean, other)]
    assert abs(terms[0] - terms[1]) > 1e-4 * terms[0], "whose mean it is tells"
    return found


@pytest.mark.parametrize("cls_loss", FORMULAS)
def test_with_ciou_targets_each_loss_is_the_tutorial_s(cls_loss: str, batch: Batch) -> None:
    """Targets: CIoU within [1e-6, 1]; slide's mean: of these; divisor: the number of positives."""
    targets = {key: min(max(ciou(*pair), SMALLEST), 1) for key, pair in batch.pairs.items()}
    mean = sum(targets.values()) / len(targets)
    expected = batch.term(cls_loss, targets, mean, len(targets))
    assert batch.ours(cls_loss=cls_loss, cls_target="ciou") == pytest.approx(expected, rel=1e-5)


def test_the_smallest_target_is_1e_6_and_the_largest_1() -> None:
    anchor, apart = [0.0, 0, 4, 4], [50.0, 50, 54, 54]
    boxes, objects = torch.tensor([[anchor, anchor]]), torch.tensor([[apart, anchor]])
    assigned = (torch.zeros(1, 2), objects, torch.ones(1, 2, 1), torch.ones(1, 2, dtype=torch.bool))
    at = Assignment(boxes, torch.zeros(2, 2), assigned, training=False)
    assert at.ciou.flatten().tolist() == pytest.approx([SMALLEST, 1], rel=1e-6)


@pytest.mark.parametrize("cls_loss", ["vfl", "qfl"])
def test_with_iou_targets_the_two_quality_losses_are_the_tutorial_s(cls_loss: str, batch: Batch) -> None:
    """As the copies in circulation have them: IoU, not below 1e-6, over the number of positives."""
    targets = {key: max(iou(*pair), SMALLEST) for key, pair in batch.pairs.items()}
    expected = batch.term(cls_loss, targets, 0.0, len(targets))
    assert batch.ours(cls_loss=cls_loss, cls_target="iou") == pytest.approx(expected, rel=1e-5)


def test_with_the_assigner_s_scores_focal_is_the_tutorial_s(batch: Batch) -> None:
    """Over the sum of the scores: nothing but `self.bce` is replaced there."""
    scores = {key: batch.scores[key[0]][key[1]][key[2]] for key in batch.pairs}
    expected = batch.term("focal", scores, 0.0, sum(scores.values()))
    assert batch.ours(cls_loss="focal", cls_target="tal") == pytest.approx(expected, rel=1e-5)


def test_with_the_assigner_s_scores_slide_has_the_paper_s_mean_not_the_tutorial_s(batch: Batch) -> None:
    """The paper's mean is that of IoU. The copies take that of CIoU, negative ones included, for the same targets."""
    scores = {key: batch.scores[key[0]][key[1]][key[2]] for key in batch.pairs}
    overlaps, with_ciou = ([of(*pair) for pair in batch.pairs.values()] for of in (iou, ciou))
    mean, other = sum(overlaps) / len(overlaps), sum(with_ciou) / len(with_ciou)
    ours = batch.ours(cls_loss="slide", cls_target="tal")
    assert ours == pytest.approx(batch.term("slide", scores, mean, sum(scores.values())), rel=1e-5)
    assert max(mean, other) > 0.2, "the means are told apart"
    tutorial = batch.term("slide", scores, other, sum(scores.values()))
    assert ours == pytest.approx(tutorial, rel=0.1)
