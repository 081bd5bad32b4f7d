"""SCYLLA-IoU loss: adds angle-aware distance and shape costs to 1 - IoU."""

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
    intersection,
    nonzero,
    relative_difference,
    total,
)
from yolo_losses.registry.parameters import Param


def siou_terms(pred: Tensor, target: Tensor, eps: float = EPS, theta: float = 4.0) -> Terms:
    """Return the IoU, half the distance cost and half the shape cost."""
    a, b = corners(pred), corners(target)
    # As in the original, eps keeps coinciding centres apart. Both axes at once: operations cost more than arithmetic.
    center_offset = ((b[0] - a[0]) + (b[1] - a[1])) / 2 + eps
    dx, dy = center_offset.unbind(-1)
    # sin(2 alpha) from the legs of the triangle: no arcsin, no root, and finite gradients where the centres coincide.
    angle = 2 * (dx * dy).abs() / (dx * dx + dy * dy).clamp_min(eps * eps)
    enclosing = torch.maximum(a[1], b[1]) - torch.minimum(a[0], b[0])
    neg_distance_cost = (
        ((angle - 2).unsqueeze(-1) * (center_offset / enclosing.abs().clamp_min(eps)).square()).expm1().sum(-1)
    )
    # eps is added to the heights alone.
    heights = eps * torch.arange(2, dtype=pred.dtype, device=pred.device)
    size_a, size_b = a[1] - a[0] + heights, b[1] - b[0] + heights
    shape = power(-(-relative_difference(size_a, size_b, eps)).expm1(), theta).sum(-1)
    (w1, h1), (w2, h2) = size_a.unbind(-1), size_b.unbind(-1)
    shared = intersection(a, b)
    iou = shared / nonzero(w1 * h1 + w2 * h2 - shared + eps, eps)
    return iou, neg_distance_cost / -2, shape / 2


@loss_function(BOXES)
def siou_loss(
    pred: Tensor,
    target: Tensor,
    eps: float = EPS,
    theta: Annotated[float, Param("exponent of the shape cost", above=0)] = 4.0,
) -> Tensor:
    """SIoU loss, per pair: adds a distance cost that depends on the angle between the centres, and a shape cost.

    `a` is the angle between the line through the centres and the nearer axis.

    Formula:
        L = 1 - IoU + (distance + shape)/2
        distance = 2 - exp(-g dx^2/c_w^2) - exp(-g dy^2/c_h^2)
        g = 2 - sin(2 a)
        shape = (1 - exp(-|w-w'|/max(w,w')))^theta + (1 - exp(-|h-h'|/max(h,h')))^theta

    Args:
        pred: boxes `xyxy` with `x1 <= x2` and `y1 <= y2`, shape `(..., 4)`, in any unit.
        target: same shape.
        eps: added to the heights, to the union, and to dx and dy.
        theta: exponent of the shape cost, above 0; 2 to 6 in the paper.

    Returns:
        In [0, 3), shape `(...)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import siou_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
        >>> siou_loss(pred, target)
        tensor([0.7326, 1.2944])

    Source:
        Gevorgyan, arXiv 2205.12740, equal to YOLOv6's, which is NaN for pairs of width 0. MMDetection's default
        has the sign of the angle flipped, which rewards distance.

    See also:
        shape_iou: the same shape cost, weighted by the target's shape
        ciou: distance and aspect ratio without the angle
    """
    return total(siou_terms(pred, target, eps, theta))


@register_box_loss(
    "siou",
    aliases=("siouloss", "siou_loss", "scylla_iou", "scyllaiou"),
    source="arXiv 2205.12740; YOLOv6",
)
class SIoULoss(BoxLoss):
    """SCYLLA-IoU loss: adds angle-aware distance and shape costs to 1 - IoU."""

    formula: ClassVar[Formula] = staticmethod(siou_loss)
    terms: ClassVar[TermsFormula] = staticmethod(siou_terms)
    theta: float
