"""GIoU loss: IoU, and how empty the enclosing box is."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from yolo_losses.boxes._base import BoxLoss, Formula, TermsFormula, register_box_loss
from yolo_losses.boxes._geometry import EPS, Terms, corners, enclosing, overlap_and_union, total
from yolo_losses.formula import with_reduction


def giou_terms(pred: Tensor, target: Tensor, eps: float = EPS) -> Terms:
    """Return the IoU and the empty share of the enclosing box."""
    a, b = corners(pred), corners(target)
    iou, union = overlap_and_union(a, b, eps)
    width, height = enclosing(a, b)
    area = width * height
    return iou, (area - union) / (area + eps)


@with_reduction
def giou_loss(pred: Tensor, target: Tensor, eps: float = EPS) -> Tensor:
    """GIoU loss, one value a pair: `1 - I + (C - U)/C`, with U the union's area and C the enclosing box's.

    Args:
        pred: boxes `xyxy`, shape `(..., 4)`, in any unit.
        target: of the same shape.
        eps: added to the denominators.
        weight: one a pair.
        reduction: `none`, `mean` or `sum`.
        avg_factor: what `mean` divides by in place of the number of pairs.

    Returns:
        In [0, 2], shape `(...)`.

    Source:
        Rezatofighi et al., arXiv 1902.09630, equal to torchvision's `generalized_box_iou_loss`; Ultralytics' has eps
        on the heights too, which differs by 1e-8 on boxes of usual size.
    """
    return total(giou_terms(pred, target, eps))


@register_box_loss(
    "giou", aliases=("giouloss", "giou_loss", "generalized_iou"), source="arXiv 1902.09630; torchvision, Ultralytics"
)
class GIoULoss(BoxLoss):
    """GIoU loss: IoU, and how empty the enclosing box is."""

    formula: ClassVar[Formula] = staticmethod(giou_loss)
    terms: ClassVar[TermsFormula] = staticmethod(giou_terms)
