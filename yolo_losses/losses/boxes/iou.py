"""IoU loss: 1 - IoU."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from yolo_losses.losses._module import with_reduction
from yolo_losses.losses.boxes._base import BoxLoss, Formula, TermsFormula, register_box_loss
from yolo_losses.losses.boxes._geometry import EPS, Terms, corners, overlap, total


def iou_terms(pred: Tensor, target: Tensor, eps: float = EPS) -> Terms:
    """Return the IoU, without penalties."""
    a, b = corners(pred), corners(target)
    return (overlap(a, b, eps),)


@with_reduction
def iou_loss(pred: Tensor, target: Tensor, eps: float = EPS) -> Tensor:
    """IoU loss, per pair. Disjoint boxes have no gradient.

    Formula:
        L = 1 - IoU

    Args:
        pred: boxes `xyxy`, shape `(..., 4)`, in any unit.
        target: same shape.
        eps: added to both heights and to the union.
        weight: per pair.
        reduction: `none`, `mean` or `sum`.
        avg_factor: divisor of `mean`, in place of the number of pairs.

    Returns:
        In [0, 1], shape `(...)`; 1, without gradient, for disjoint boxes.

    Source:
        Equal to one minus Ultralytics' `bbox_iou` on `xyxy`; torchvision has no eps on the heights, which differs by
        1e-8 on ordinary boxes. Not UnitBox's `-log(I)`.

    See also:
        giou: has a gradient for disjoint boxes
    """
    return total(iou_terms(pred, target, eps))


@register_box_loss(
    "iou",
    summary="IoU loss: 1 - IoU",
    aliases=("iouloss", "iou_loss"),
    source="Ultralytics; torchvision",
)
class IoULoss(BoxLoss):
    """IoU loss: 1 - IoU."""

    formula: ClassVar[Formula] = staticmethod(iou_loss)
    terms: ClassVar[TermsFormula] = staticmethod(iou_terms)
