"""Cross-entropy of a softmax over classes."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.classify._base import IMAGES, ClassifyLoss, as_probabilities, sum_over_classes


@loss_function(IMAGES)
def softmax_cross_entropy_loss(
    logits: Tensor, targets: Tensor, smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy of a softmax over classes, per image.

    Formula:
        L = -sum(w t log(p))

    Args:
        logits: shape `(N, C)`.
        targets: labels, shape `(N,)`, or probabilities, shape `(N, C)`.
        smoothing: the share of each target that is spread evenly over all classes, in [0, 1).
        class_weights: one for each class, shape `(C,)`.

    Returns:
        At least 0, shape `(N,)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import softmax_cross_entropy_loss
        >>> softmax_cross_entropy_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor([0.1269])

    Source:
        `torch.nn.functional.cross_entropy`, which divides a weighted mean by the sum of the labels' weights: pass that
        as `avg_factor`.

    See also:
        classify_focal: easy images weighted down
    """
    return sum_over_classes(-as_probabilities(targets, logits, smoothing) * logits.log_softmax(-1), class_weights)


@declares(
    "classify",
    ClassifyLoss,
    "ce",
    summary="Cross-entropy of a softmax over classes, equal to the stock loss",
    aliases=("cross_entropy", "crossentropy", "softmax"),
    source="torch.nn.functional.cross_entropy",
)
class SoftmaxCrossEntropyLoss(ClassifyLoss):
    """Cross-entropy of a softmax over classes."""

    formula: ClassVar[Formula] = staticmethod(softmax_cross_entropy_loss)
