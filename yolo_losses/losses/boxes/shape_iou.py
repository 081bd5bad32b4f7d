"""Shape-IoU loss: adds distance and shape costs weighted by the target's shape to 1 - IoU."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses._math import power
from yolo_losses.losses.boxes._base import BOXES, BoxLoss, TermsFormula, register_box_loss
from yolo_losses.losses.boxes._geometry import (
    EPS,
    Terms,
    corners,
    enclosing,
    offset,
    overlap_and_union,
    relative_difference,
    sides,
    total,
)
from yolo_losses.registry.parameters import Param


def shape_iou_terms(pred: Tensor, target: Tensor, scale: float = 0.0, eps: float = EPS) -> Terms:
    """Return the IoU, the weighted distance of the centres and half the weighted shape cost."""
    a, b = corners(pred), corners(target)
    (w1, h1), (w2, h2) = sides(a), sides(b)
    dx, dy = offset(a, b)
    width, height = enclosing(a, b)
    x2, y2 = dx * dx, dy * dy
    delta_w, delta_h = relative_difference(w1, w2, eps), relative_difference(h1, h2, eps)
    if scale:
        # 2 w^s / (w^s + h^s), written as the logistic function of s log(w/h), which cannot overflow.
        tiny = torch.finfo(pred.dtype).tiny
        tall = 2 * (scale * (h2.clamp_min(tiny).log() - w2.clamp_min(tiny).log())).sigmoid()
        wide = 2 - tall
        x2, y2, delta_w, delta_h = tall * x2, wide * y2, tall * delta_w, wide * delta_h
    shape = power(-(-delta_w).expm1(), 4) + power(-(-delta_h).expm1(), 4)
    iou, _ = overlap_and_union(a, b, eps)
    return iou, (x2 + y2) / (width * width + height * height + eps), shape / 2


@loss_function(BOXES)
def shape_iou_loss(
    pred: Tensor,
    target: Tensor,
    scale: Annotated[float, Param("exponent of the target's sides in the shape weights; 0 disables them", low=0)] = 0.0,
    eps: float = EPS,
) -> Tensor:
    """Shape-IoU loss, per pair: distance and shape costs, weighted by the shape of the target.

    Formula:
        L = 1 - IoU + distance + shape/2
        distance = (H dx^2 + W dy^2)/c^2
        shape = (1 - exp(-H |w-w'|/max(w,w')))^4 + (1 - exp(-W |h-h'|/max(h,h')))^4
        W = 2 w'^scale/(w'^scale + h'^scale)
        H = 2 - W

    Args:
        pred: boxes `xyxy` with `x1 <= x2` and `y1 <= y2`, shape `(..., 4)`, in any unit.
        target: same shape.
        scale: at least 0; the paper sets it by the object sizes of the data set.
        eps: added to the denominators.

    Returns:
        In [0, 4), shape `(...)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import shape_iou_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
        >>> shape_iou_loss(pred, target)
        tensor([0.7206, 1.4000])

    Source:
        Zhang and Zhang, arXiv 2312.17663, equal to the authors' code, which is NaN for targets of size 0.

    See also:
        siou: the same shape cost, and the angle
    """
    return total(shape_iou_terms(pred, target, scale, eps))


@register_box_loss(
    "shape_iou",
    aliases=("shapeiou", "shapeiouloss", "shape_iou_loss"),
    source="arXiv 2312.17663; its authors' code",
)
class ShapeIoULoss(BoxLoss):
    """Shape-IoU loss: adds distance and shape costs weighted by the target's shape to 1 - IoU."""

    formula: ClassVar[Formula] = staticmethod(shape_iou_loss)
    terms: ClassVar[TermsFormula] = staticmethod(shape_iou_terms)
    scale: float
