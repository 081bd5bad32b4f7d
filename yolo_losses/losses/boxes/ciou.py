"""Complete-IoU loss: adds centre distance and aspect ratio terms to 1 - IoU; the stock loss."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.boxes._base import BOXES, BoxLoss, TermsFormula, register_box_loss
from yolo_losses.losses.boxes._geometry import EPS, Terms, centre_penalty, corners, intersection, nonzero, sides, total


def ciou_terms(pred: Tensor, target: Tensor, eps: float = EPS) -> Terms:
    """Return the IoU, the normalised centre distance and the weighted aspect ratio term."""
    a, b = corners(pred), corners(target)
    w1, h1 = sides(a)
    w2, h2 = sides(b)
    h1, h2 = nonzero(h1 + eps, eps), h2 + eps
    shared = intersection(a, b)
    iou = shared / nonzero(w1 * h1 + w2 * h2 - shared + eps, eps)
    v = (4 / math.pi**2) * ((w2 / h2).atan() - (w1 / h1).atan()).square()
    with torch.no_grad():
        balance = v / (v - iou + (1 + eps))
    return iou, centre_penalty(a, b, eps), v * balance


@loss_function(BOXES)
def ciou_loss(pred: Tensor, target: Tensor, eps: float = EPS) -> Tensor:
    """CIoU loss, per pair: DIoU plus a penalty `v` on the aspect ratio, whose coefficient `a` is detached.

    Formula:
        L = 1 - IoU + r^2/c^2 + a v
        v = 4/pi^2 (atan(w/h) - atan(w'/h'))^2
        a = v/(v - IoU + 1)

    Args:
        pred: boxes `xyxy` with `x1 <= x2` and `y1 <= y2`, shape `(..., 4)`, in any unit.
        target: same shape.
        eps: added to both heights and to the denominators.

    Returns:
        At least 0 and below 3, shape `(...)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import ciou_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
        >>> ciou_loss(pred, target)
        tensor([0.7204, 1.4000])

    Source:
        Zheng et al., arXiv 1911.08287, equal to one minus Ultralytics' `bbox_iou(CIoU=True)` on `xyxy`. MMDetection
        and the authors set `a` to 0 where the IoU is at most 0.5; torchvision's is NaN at height 0.

    See also:
        diou: without the aspect ratio
        eiou: width and height in place of the aspect ratio
        siou: with the angle between the centres
    """
    return total(ciou_terms(pred, target, eps))


@register_box_loss(
    "ciou",
    aliases=("ciouloss", "ciou_loss", "complete_iou"),
    source="arXiv 1911.08287; Ultralytics",
)
class CIoULoss(BoxLoss):
    """Complete-IoU loss: adds centre distance and aspect ratio terms to 1 - IoU; the stock loss."""

    formula: ClassVar[Formula] = staticmethod(ciou_loss)
    terms: ClassVar[TermsFormula] = staticmethod(ciou_terms)
