"""MGIoU loss: the mean over both axes of the GIoU of the boxes' projections."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.boxes._base import BOXES, BoxLoss, register_box_loss
from yolo_losses.losses.boxes._geometry import EPS, corners


@loss_function(BOXES)
def mgiou_loss(pred: Tensor, target: Tensor, eps: float = EPS) -> Tensor:
    """MGIoU loss, per pair: the mean over both axes of the GIoU of the boxes' projections, as a loss in [0, 1).

    `s_x` and `s_y` are the lengths of the overlap of the projections; where these are disjoint, minus the length of the
    gap. Both axes are treated separately, so that all boxes, disjoint ones too, have a gradient in both.

    Formula:
        L = (1 - (s_x/c_w + s_y/c_h)/2)/2
        s_x = min(x_2, x'_2) - max(x_1, x'_1)
        s_y = min(y_2, y'_2) - max(y_1, y'_1)

    Args:
        pred: boxes `xyxy` with `x1 <= x2` and `y1 <= y2`, shape `(..., 4)`, in any unit.
        target: same shape.
        eps: lower bound of the sides of the enclosing box.

    Returns:
        In [0, 1), shape `(...)`. Close to the target the gradient is a quarter of that of the IoU loss; a larger
        gain `box` makes up for it.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import mgiou_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
        >>> mgiou_loss(pred, target)
        tensor([0.1813, 0.3333])

    Source:
        Le et al., arXiv 2504.16443, equal to `MGIoU2D` of the authors' package 0.1.0 for axis-aligned boxes, which is
        NaN for two boxes of width 0 at the same place.

    See also:
        giou: the same with areas
        rotated_mgiou: for rotated boxes
    """
    a, b = corners(pred), corners(target)
    shared = torch.minimum(a[1], b[1]) - torch.maximum(a[0], b[0])
    enclosing = torch.maximum(a[1], b[1]) - torch.minimum(a[0], b[0])
    return (1 - (shared / enclosing.clamp_min(eps)).mean(-1)) / 2


@register_box_loss(
    "mgiou",
    aliases=("mgiouloss", "mgiou_loss", "marginalized_giou", "marginalised_giou"),
    source="arXiv 2504.16443; its authors' code",
)
class MGIoULoss(BoxLoss):
    """MGIoU loss: the mean over both axes of the GIoU of the boxes' projections."""

    formula: ClassVar[Formula] = staticmethod(mgiou_loss)
