"""Generalized IoU loss: adds the empty fraction of the enclosing box to 1 - IoU."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.boxes._base import BOXES, BoxLoss, TermsFormula, register_box_loss
from yolo_losses.losses.boxes._geometry import EPS, Terms, corners, enclosing, overlap_and_union, total


def giou_terms(pred: Tensor, target: Tensor, eps: float = EPS) -> Terms:
    """Return the IoU and the empty fraction of the enclosing box."""
    a, b = corners(pred), corners(target)
    iou, union = overlap_and_union(a, b, eps)
    width, height = enclosing(a, b)
    area = width * height
    return iou, (area - union) / (area + eps)


@loss_function(BOXES)
def giou_loss(pred: Tensor, target: Tensor, eps: float = EPS) -> Tensor:
    """GIoU loss, per pair: adds the share of the enclosing box that neither box covers.

    `U` is the area of the union and `C` that of the enclosing box.

    Formula:
        L = 1 - IoU + (C - U)/C

    Args:
        pred: boxes `xyxy` with `x1 <= x2` and `y1 <= y2`, shape `(..., 4)`, in any unit.
        target: same shape.
        eps: added to the denominators.

    Returns:
        In [0, 2], shape `(...)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import giou_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
        >>> giou_loss(pred, target)
        tensor([0.6869, 1.3333])

    Source:
        Rezatofighi et al., arXiv 1902.09630, equal to torchvision's `generalized_box_iou_loss`; Ultralytics' has eps
        on the heights too, which differs by 1e-8 on ordinary boxes.

    See also:
        diou: the distance of the centres in place of the empty area
    """
    return total(giou_terms(pred, target, eps))


@register_box_loss(
    "giou",
    aliases=("giouloss", "giou_loss", "generalized_iou"),
    source="arXiv 1902.09630; torchvision, Ultralytics",
)
class GIoULoss(BoxLoss):
    """Generalized IoU loss: adds the empty fraction of the enclosing box to 1 - IoU."""

    formula: ClassVar[Formula] = staticmethod(giou_loss)
    terms: ClassVar[TermsFormula] = staticmethod(giou_terms)
