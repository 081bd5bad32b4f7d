"""Rotated IoU loss: 1 - IoU of rotated boxes, by the exact area of their intersection."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.boxes._base import ROTATED_BOXES, BoxLoss, TermsFormula, register_box_loss
from yolo_losses.losses.boxes._geometry import Terms, total
from yolo_losses.losses.boxes._polygon import in_own_unit, rotated_overlap


def rotated_iou_terms(pred: Tensor, target: Tensor) -> Terms:
    """Return the IoU of rotated boxes, alone."""
    return (rotated_overlap(in_own_unit(pred, target)),)


@loss_function(ROTATED_BOXES)
def rotated_iou_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Rotated IoU loss, per pair, by the exact area of the intersection.

    The result does not depend on the angle convention: `(w, h, r)`, `(h, w, r + pi/2)` and `(w, h, r + pi)` are one
    box. Unlike the losses that treat a box as a Gaussian (`probiou`, `gwd`, `kld`, `kfiou`), this one has a gradient in
    the angle of a square. Disjoint boxes have none.

    Formula:
        L = 1 - IoU

    Args:
        pred: boxes `xywhr`, shape `(..., 5)`: centre, sides, and angle in radians, in any unit. Negative sides count
            as 0.
        target: same shape.

    Returns:
        In [0, 1], shape `(...)`; 1, with zero gradient, for disjoint boxes. Only the first derivative is exact.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import rotated_iou_loss
        >>> pred = torch.tensor([[5.0, 5.0, 10.0, 4.0, 0.0]])
        >>> target = torch.tensor([[6.0, 5.0, 10.0, 4.0, 0.5]])
        >>> rotated_iou_loss(pred, target)
        tensor([0.4857])

    Source:
        Zhou et al., arXiv 1908.03851. The area is exact up to rounding. mmcv's `diff_iou_rotated` adds 1e-8 to a
        denominator, which makes the IoU of boxes of side 0.1 wrong by 1e-2 in float32, and fails where it finds more
        than eight vertices, as for a box and the same box with width and height swapped.

    See also:
        rotated_diou: has a gradient for disjoint boxes
        probiou: the stock loss
    """
    return total(rotated_iou_terms(pred, target))


@register_box_loss(
    "rotated_iou",
    aliases=("rotatediou", "rotated_iou_loss", "riou", "rotated_iouloss"),
    source="arXiv 1908.03851",
)
class RotatedIoULoss(BoxLoss):
    """Rotated IoU loss: 1 - IoU of rotated boxes, by the exact area of their intersection."""

    formula: ClassVar[Formula] = staticmethod(rotated_iou_loss)
    terms: ClassVar[TermsFormula] = staticmethod(rotated_iou_terms)
    rotated: ClassVar[bool] = True
