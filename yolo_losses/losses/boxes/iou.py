"""IoU loss: 1 - IoU."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.boxes._base import BOXES, BoxLoss, TermsFormula, register_box_loss
from yolo_losses.losses.boxes._geometry import EPS, Terms, corners, overlap, total


def iou_terms(pred: Tensor, target: Tensor, eps: float = EPS) -> Terms:
    """Return the IoU, without penalties."""
    a, b = corners(pred), corners(target)
    return (overlap(a, b, eps),)


@loss_function(BOXES)
def iou_loss(pred: Tensor, target: Tensor, eps: float = EPS) -> Tensor:
    """IoU loss, per pair. Disjoint boxes have no gradient.

    Formula:
        L = 1 - IoU

    Args:
        pred: boxes `xyxy` with `x1 <= x2` and `y1 <= y2`, shape `(..., 4)`, in any unit.
        target: same shape.
        eps: added to both heights and to the union.

    Returns:
        In [0, 1], shape `(...)`; 1, without gradient, for disjoint boxes.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import iou_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
        >>> iou_loss(pred, target)
        tensor([0.6494, 1.0000])

    Source:
        Equal to one minus Ultralytics' `bbox_iou` on `xyxy`; torchvision has no eps on the heights, which differs by
        1e-8 on ordinary boxes. UnitBox's IoU loss is `-log(IoU)`.

    See also:
        giou: has a gradient for disjoint boxes
    """
    return total(iou_terms(pred, target, eps))


@register_box_loss(
    "iou",
    aliases=("iouloss", "iou_loss"),
    source="Ultralytics; torchvision",
)
class IoULoss(BoxLoss):
    """IoU loss: 1 - IoU."""

    formula: ClassVar[Formula] = staticmethod(iou_loss)
    terms: ClassVar[TermsFormula] = staticmethod(iou_terms)
