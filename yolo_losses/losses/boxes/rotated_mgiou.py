"""MGIoU loss of rotated boxes: the mean GIoU of their projections onto the axes of both."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.boxes._base import ROTATED_BOXES, BoxLoss, register_box_loss
from yolo_losses.losses.boxes._polygon import EPS, in_own_unit


@loss_function(ROTATED_BOXES)
def rotated_mgiou_loss(pred: Tensor, target: Tensor) -> Tensor:
    """MGIoU loss of rotated boxes, per pair: the mean GIoU of their projections onto the axes of both.

    Each box has two axes, along its sides. On each of the four, `s` is the length of the overlap of the projections,
    or, where these are disjoint, minus the length of the gap; `c` is the length of the interval that encloses both.
    Disjoint boxes have a gradient, and so has the angle of a square.

    Formula:
        L = (1 - sum(s/c)/4)/2

    Args:
        pred: boxes `xywhr`, shape `(..., 5)`: centre, sides, and angle in radians, in any unit. Negative sides count
            as 0.
        target: same shape.

    Returns:
        In [0, 1), shape `(...)`. Close to the target the gradient is a quarter of that of the IoU loss.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import rotated_mgiou_loss
        >>> pred = torch.tensor([[5.0, 5.0, 10.0, 4.0, 0.0]])
        >>> target = torch.tensor([[6.0, 5.0, 10.0, 4.0, 0.5]])
        >>> rotated_mgiou_loss(pred, target)
        tensor([0.1712])

    Source:
        Le et al., arXiv 2504.16443, equal to `MGIoU2D` of the authors' package 0.1.0, which counts angles in the
        opposite direction.

    See also:
        rotated_iou: by the exact area
        mgiou: for axis-aligned boxes
    """
    pair = in_own_unit(pred, target)
    # Along the axes of the predicted box, then of the target: the offset of the centres, half the sides of the box that
    # the axes belong to, and half the extent of the other one.
    angle = torch.stack((pair.r1, pair.r2))
    cos, sin = angle.cos(), angle.sin()
    offset = torch.stack((pair.dx * cos + pair.dy * sin, pair.dy * cos - pair.dx * sin))
    width, height = torch.stack((pair.w1, pair.w2)) / 2, torch.stack((pair.h1, pair.h2)) / 2
    cos, sin = (pair.r1 - pair.r2).cos().abs(), (pair.r1 - pair.r2).sin().abs()
    own = torch.stack((width, height))
    other = torch.stack((width * cos + height * sin, width * sin + height * cos)).flip(1)
    shared = torch.minimum(offset + own, other) - torch.maximum(offset - own, -other)
    enclosing = torch.maximum(offset + own, other) - torch.minimum(offset - own, -other)
    return (1 - (shared / enclosing.clamp_min(EPS)).mean((0, 1))) / 2


@register_box_loss(
    "rotated_mgiou",
    aliases=("rotatedmgiou", "rotated_mgiou_loss", "rmgiou", "rotated_mgiouloss", "mgiou_rotated"),
    source="arXiv 2504.16443; its authors' code",
)
class RotatedMGIoULoss(BoxLoss):
    """MGIoU loss of rotated boxes: the mean GIoU of their projections onto the axes of both."""

    formula: ClassVar[Formula] = staticmethod(rotated_mgiou_loss)
    rotated: ClassVar[bool] = True
