"""Efficient IoU loss: adds centre distance, width and height terms to 1 - IoU."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.boxes._base import BOXES, BoxLoss, TermsFormula, register_box_loss
from yolo_losses.losses.boxes._geometry import EPS, Terms, corners, enclosing, offset, overlap, sides, total


def eiou_terms(pred: Tensor, target: Tensor, eps: float = EPS) -> Terms:
    """Return the IoU, the normalised centre distance, and the width and height terms."""
    a, b = corners(pred), corners(target)
    (w1, h1), (w2, h2) = sides(a), sides(b)
    dx, dy = offset(a, b)
    width, height = enclosing(a, b)
    width2, height2 = width * width, height * height
    distance = (dx * dx + dy * dy) / (width2 + height2 + eps)
    return (
        overlap(a, b, eps),
        distance,
        (w1 - w2).square() / (width2 + eps),
        (h1 - h2).square() / (height2 + eps),
    )


@loss_function(BOXES)
def eiou_loss(pred: Tensor, target: Tensor, eps: float = EPS) -> Tensor:
    """EIoU loss, per pair: DIoU plus penalties on width and height.

    Formula:
        L = 1 - IoU + r^2/c^2 + (w-w')^2/c_w^2 + (h-h')^2/c_h^2

    Args:
        pred: boxes `xyxy` with `x1 <= x2` and `y1 <= y2`, shape `(..., 4)`, in any unit.
        target: same shape.
        eps: added to both heights within the IoU, and to the denominators.

    Returns:
        In [0, 4), shape `(...)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import eiou_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
        >>> eiou_loss(pred, target)
        tensor([0.7459, 1.4000])

    Source:
        Zhang et al., *Focal and Efficient IoU*, arXiv 2101.08158. Two other losses have this name: MMDetection's
        `EIoULoss` is Extended IoU, and the wiou repository's has a different distance.

    See also:
        ciou: the aspect ratio in place of the sides
        focal_iou: the weighting of the same paper, as in `focal_eiou`
    """
    return total(eiou_terms(pred, target, eps))


@register_box_loss(
    "eiou",
    aliases=("eiouloss", "eiou_loss", "efficient_iou", "efficientiou"),
    source="arXiv 2101.08158",
)
class EIoULoss(BoxLoss):
    """Efficient IoU loss: adds centre distance, width and height terms to 1 - IoU."""

    formula: ClassVar[Formula] = staticmethod(eiou_loss)
    terms: ClassVar[TermsFormula] = staticmethod(eiou_terms)
