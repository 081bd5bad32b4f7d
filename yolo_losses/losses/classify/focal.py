"""Focal loss of a softmax over classes."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses._math import power
from yolo_losses.losses.classify._base import IMAGES, ClassifyLoss, as_probabilities, sum_over_classes
from yolo_losses.registry.parameters import Param


@loss_function(IMAGES)
def softmax_focal_loss(
    logits: Tensor,
    targets: Tensor,
    gamma: Annotated[float, Param("focusing exponent; 0 disables it", low=0)] = 1.5,
    smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Focal loss of a softmax over classes, per image: cross-entropy with easy images weighted down.

    Formula:
        L = -sum(w t (1-p)^gamma log(p))

    Args:
        logits: shape `(N, C)`.
        targets: labels, shape `(N,)`, or probabilities, shape `(N, C)`.
        gamma: exponent, at least 0. At 0 it is cross-entropy.
        smoothing: the share of each target that is spread evenly over all classes, in [0, 1).
        class_weights: one for each class, shape `(C,)`.

    Returns:
        At least 0, shape `(N,)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import softmax_focal_loss
        >>> softmax_focal_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([0]), gamma=2.0)
        tensor([0.0018])

    Source:
        Lin et al., arXiv 1708.02002, whose formula is for a sigmoid; for a softmax as kornia's `focal_loss` with
        `alpha=None`.

    See also:
        classify_ce: the stock loss
    """
    log_p = logits.log_softmax(-1)
    # 1 - p as the sum of the others' probabilities would cost a pass per class; -expm1(log p) keeps its digits near 1.
    modulation = power(-log_p.expm1(), gamma)
    return sum_over_classes(-as_probabilities(targets, logits, smoothing) * modulation * log_p, class_weights)


@declares(
    "classify",
    ClassifyLoss,
    "focal",
    summary="Focal loss of a softmax over classes: easy images are weighted down",
    aliases=("focal_loss", "focalloss", "softmax_focal"),
    source="arXiv 1708.02002; kornia",
)
class SoftmaxFocalLoss(ClassifyLoss):
    """Focal loss of a softmax over classes."""

    formula: ClassVar[Formula] = staticmethod(softmax_focal_loss)
    gamma: float
