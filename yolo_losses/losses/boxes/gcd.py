"""GCD loss: Gaussian combined distance between boxes, for small objects."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.boxes._base import BOXES, BoxLoss, register_box_loss
from yolo_losses.losses.boxes._geometry import corners, offset, sides


@loss_function(BOXES)
def gcd_loss(pred: Tensor, target: Tensor, eps: float = 1e-6) -> Tensor:
    """GCD loss, per pair: a function of the Gaussian combined distance of two boxes.

    It is scale-invariant and has a gradient for disjoint boxes. A box with a side of 0 has a loss of 1 and no gradient.

    It contains no IoU: `inner_gcd` and `focaler_gcd` add the plain IoU less the modified one, which no publication
    covers.

    Formula:
        L = 1 - exp(-sqrt(D))
        D = (A + B/4)/2
        A = dx^2/w^2 + dy^2/h^2 + dx^2/w'^2 + dy^2/h'^2
        B = (w-w')^2 (1/w^2 + 1/w'^2) + (h-h')^2 (1/h^2 + 1/h'^2)

    Args:
        pred: boxes `xyxy` with `x1 <= x2` and `y1 <= y2`, shape `(..., 4)`, in any unit.
        target: same shape.
        eps: added to each divisor; negative sides count as 0 there.

    Returns:
        In [0, 1], shape `(...)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import gcd_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
        >>> gcd_loss(pred, target)
        tensor([0.3783, 0.8647])

    Source:
        Guan et al., doi 10.1109/LGRS.2025.3531970, equal to `gcd_loss(mode="exp")` of the authors' mmdet-GCD, whose
        gradient is NaN for identical boxes. Its other modes return `1 - distance`, which decreases with distance: they
        are not losses.

    See also:
        nwd: the Wasserstein distance, which depends on the size of the boxes
    """
    a, b = corners(pred), corners(target)
    dx, dy = offset(a, b)
    distance = torch.zeros_like(dx)
    for shift, one, other in zip((dx, dy), sides(a), sides(b), strict=True):
        difference = one - other
        for side in (one, other):
            divisor = side.clamp_min(0) + eps
            distance = distance + (shift / divisor).square() + (difference / divisor).square() / 4
    # The derivative of the root is infinite at 0; identical boxes get a gradient of 0.
    return -torch.expm1(-(distance / 2).clamp_min(torch.finfo(distance.dtype).tiny).sqrt())


@register_box_loss(
    "gcd",
    aliases=("gcdloss", "gcd_loss", "gaussian_combined_distance"),
    source="doi 10.1109/LGRS.2025.3531970; MArKkwanGuan/mmdet-GCD",
)
class GCDLoss(BoxLoss):
    """GCD loss: Gaussian combined distance between boxes, for small objects."""

    formula: ClassVar[Formula] = staticmethod(gcd_loss)
