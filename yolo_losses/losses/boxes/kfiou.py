"""KFIoU loss: Kalman filter overlap of rotated boxes as Gaussians, and a smooth L1 loss of the centres."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.boxes._base import ROTATED_BOXES, BoxLoss, register_box_loss
from yolo_losses.losses.boxes._gaussian import along_axes, gaussians
from yolo_losses.registry.parameters import Param

EPS = 1e-6  # as in the original, in the denominator and the logarithm
BETA = 1 / 9  # of the smooth L1 loss


@loss_function(ROTATED_BOXES)
def kfiou_loss(
    pred: Tensor,
    target: Tensor,
    fun: Annotated[str, Param("none: 1 - K; ln: -ln K; exp: e^(1-K) - 1", words=("none", "ln", "exp"))] = "none",
    centre: Annotated[
        str,
        Param(
            "centre term: offsets over the target's sides, offsets in the unit of the boxes, or no term",
            words=("size", "unit", "off"),
        ),
    ] = "size",
) -> Tensor:
    """KFIoU loss, per pair: one minus the overlap `K` of two Gaussians, and a smooth L1 loss of the centres.

    A box is a Gaussian with standard deviations `w/2` and `h/2` along its axes and covariance `S`; `V` is the area of
    the box of their product. With `fun`, `-ln K` or `e^(1-K) - 1` takes the place of `1 - K`. `K` ignores the positions
    of the boxes; only the smooth L1 loss (beta 1/9) of the centre offsets moves the centres.

    The original computes that term on the offsets that an anchor-based head regresses, divided by the sides of the
    anchor; an anchor-free head has no such encoding. `centre=size` comes closest: the offsets in the axes of the
    target, divided by its sides, which makes the term scale-invariant. `unit` takes the offsets along x and y in the
    unit of the boxes, in training the stride: the term then grows with the object and dominates (3.8 of 4.5 on boxes of
    side 5 to 30). `off` omits it: a loss for the shape alone.

    A Gaussian cannot represent the angle of a square: if one of the boxes is square, the angle has no gradient.
    `rotated_iou` has one, and so has the angle term (gain `angle`) of recent Ultralytics releases.

    Formula:
        L = 1 - K + smooth_l1(dx/w') + smooth_l1(dy/h')
        K = V/(w h + w' h' - V)
        V = 4 sqrt(|S| |S'|/|S + S'|)

    Args:
        pred: boxes `xywhr`, shape `(..., 5)`: centre, sides, and angle in radians. Sides below 1e-7 count as 1e-7.
        target: same shape.
        fun: `none`, `ln` or `exp`.
        centre: `size`, `unit` or `off`.

    Returns:
        At least 2/3 (`none`), ln 3 (`ln`) or e^(2/3) - 1 (`exp`), the values for identical boxes, since K is at most
        1/3; shape `(...)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import kfiou_loss
        >>> pred = torch.tensor([[5.0, 5.0, 10.0, 4.0, 0.0]])
        >>> target = torch.tensor([[6.0, 5.0, 10.0, 4.0, 0.5]])
        >>> kfiou_loss(pred, target)
        tensor([0.8115])

    Source:
        Yang et al., arXiv 2201.12558, equal to mmrotate's `kfiou_loss` with `centre=unit`.

    See also:
        rotated_iou: the exact overlap
    """
    a, b, c, d, dx, dy, cos2, sin2 = gaussians(pred, target)
    # |S + S'| as a sum of non-negative terms.
    crossed = (a * d).square() + (b * c).square()
    same = (a * c).square() + (b * d).square()
    det = (a * b).square() + (c * d).square() + crossed * cos2 + same * sin2
    shared = 4 * (a * b) * (c * d) / det.sqrt()
    overlap = shared / (4 * a * b + 4 * c * d - shared + EPS)
    if fun == "none":
        loss = 1 - overlap
    elif fun == "ln":
        loss = -(overlap + EPS).log()
    else:
        loss = (1 - overlap).expm1()
    if centre == "off":
        return loss
    if centre == "size":
        dx, dy = along_axes(dx, dy, target[..., 4])
        dx, dy = dx / (2 * c), dy / (2 * d)
    return loss + _smooth_l1(dx) + _smooth_l1(dy)


def _smooth_l1(x: Tensor) -> Tensor:
    size = x.abs()
    quadratic = size.clamp_max(BETA)
    return quadratic * (size - quadratic / 2) / BETA


@register_box_loss(
    "kfiou",
    aliases=("kfiouloss", "kfiou_loss", "kf_iou"),
    source="arXiv 2201.12558; mmrotate",
)
class KFIoULoss(BoxLoss):
    """KFIoU loss: Kalman filter overlap of rotated boxes as Gaussians, and a smooth L1 loss of the centres."""

    formula: ClassVar[Formula] = staticmethod(kfiou_loss)
    rotated: ClassVar[bool] = True
