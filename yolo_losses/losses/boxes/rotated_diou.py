"""Rotated DIoU loss: adds the normalised centre distance to 1 - IoU of rotated boxes."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.boxes._base import ROTATED_BOXES, BoxLoss, register_box_loss
from yolo_losses.losses.boxes._polygon import EPS, in_own_unit, rotated_overlap


@loss_function(ROTATED_BOXES)
def rotated_diou_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Rotated DIoU loss, per pair: rotated IoU plus the squared distance of the centres.

    IoU is exact, `r` is the distance of the centres, and `c` the diagonal of the smallest axis-aligned box around both.
    Disjoint boxes have a gradient, in the centres.

    Formula:
        L = 1 - IoU + r^2/c^2

    Args:
        pred: boxes `xywhr`, shape `(..., 5)`: centre, sides, and angle in radians, in any unit. Negative sides count
            as 0.
        target: same shape.

    Returns:
        In [0, 2), shape `(...)`. The enclosing box, and with it the loss, is not invariant to a common rotation.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import rotated_diou_loss
        >>> pred = torch.tensor([[5.0, 5.0, 10.0, 4.0, 0.0]])
        >>> target = torch.tensor([[6.0, 5.0, 10.0, 4.0, 0.5]])
        >>> rotated_diou_loss(pred, target)
        tensor([0.4908])

    Source:
        Zheng et al., arXiv 1911.08287, extended to rotated boxes: equal to `cal_diou(enclosing_type="aligned")` of
        lilanxiao/Rotated_IoU up to the eps of its intersection. Other codes use the minimum-area rotated rectangle or
        the convex hull.

    See also:
        rotated_iou: without the distance
    """
    pair = in_own_unit(pred, target)
    offset = torch.stack((pair.dx, pair.dy))
    half, other = _half_extent(pair.w1, pair.h1, pair.r1), _half_extent(pair.w2, pair.h2, pair.r2)
    enclosing = torch.maximum(offset + half, other) - torch.minimum(offset - half, -other)
    return 1 - rotated_overlap(pair) + offset.square().sum(0) / enclosing.square().sum(0).clamp_min(EPS)


def _half_extent(width: Tensor, height: Tensor, angle: Tensor) -> Tensor:
    """Return half the sides of the axis-aligned boxes that enclose rotated ones, shape `(2, ...)`."""
    cos, sin = angle.cos().abs(), angle.sin().abs()
    return torch.stack((width * cos + height * sin, width * sin + height * cos)) / 2


@register_box_loss(
    "rotated_diou",
    aliases=("rotateddiou", "rotated_diou_loss", "rdiou", "rotated_diouloss"),
    source="arXiv 1911.08287; lilanxiao/Rotated_IoU",
)
class RotatedDIoULoss(BoxLoss):
    """Rotated DIoU loss: adds the normalised centre distance to 1 - IoU of rotated boxes."""

    formula: ClassVar[Formula] = staticmethod(rotated_diou_loss)
    rotated: ClassVar[bool] = True
