"""Dynamic InterpIoU loss: InterpIoU whose interpolated box is the nearer to the target the smaller the IoU is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.boxes._base import BOXES, BoxLoss, TermsFormula, register_box_loss
from yolo_losses.losses.boxes._geometry import EPS, Terms, corners, overlap, total
from yolo_losses.losses.boxes.interp_iou import interpolated_penalty
from yolo_losses.registry.parameters import Param


def d_interp_iou_terms(pred: Tensor, target: Tensor, low: float = 0.6, high: float = 0.99, eps: float = EPS) -> Terms:
    """Return the IoU, and 1 - IoU of the interpolated box."""
    a, b = corners(pred), corners(target)
    iou = overlap(a, b, eps)
    alpha = (1 - iou.detach()).clamp(low, high).unsqueeze(-1)
    return iou, interpolated_penalty(a, b, alpha, eps)


@loss_function(BOXES)
def d_interp_iou_loss(
    pred: Tensor,
    target: Tensor,
    low: Annotated[float, Param("lower bound of the share of the way to the target", low=0, high=1)] = 0.6,
    high: Annotated[float, Param("upper bound of it, at least the lower one", low=0, high=1)] = 0.99,
    eps: float = EPS,
) -> Tensor:
    """Dynamic InterpIoU loss, per pair: InterpIoU whose share `alpha` is 1 - IoU, detached, within bounds.

    `J` is the IoU of the target with the box `alpha` of the way from the predicted box to the target. The
    smaller the IoU, the nearer that box is to the target. As a box approaches its object the value can rise for a
    while, since `alpha` falls; the gradient, in which `alpha` is a constant, always points to the object.

    Formula:
        L = 1 - IoU + 1 - J
        alpha = min(max(1 - IoU, low), high)

    Args:
        pred: boxes `xyxy` with `x1 <= x2` and `y1 <= y2`, shape `(..., 4)`, in any unit.
        target: same shape.
        low: lower bound of `alpha`, in [0, 1].
        high: upper bound of `alpha`, from `low` to 1.
        eps: added to the heights and to the unions.

    Returns:
        In [0, 2], shape `(...)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import d_interp_iou_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
        >>> d_interp_iou_loss(pred, target)
        tensor([0.9345, 1.0392])

    Source:
        Liu and Watanabe, arXiv 2507.12420, equal to one minus `bbox_iou_ext(iou_type="D_InterpIoU")` of the first
        author's code up to its eps.

    See also:
        interp_iou: a constant share
    """
    return total(d_interp_iou_terms(pred, target, low, high, eps))


@register_box_loss(
    "d_interp_iou",
    aliases=("dinterpiou", "d_interpiou", "d_interpiouloss", "d_interp_iou_loss", "dynamic_interp_iou"),
    source="arXiv 2507.12420; its authors' code",
)
class DynamicInterpIoULoss(BoxLoss):
    """Dynamic InterpIoU loss: InterpIoU whose interpolated box is the nearer to the target the smaller the IoU is."""

    formula: ClassVar[Formula] = staticmethod(d_interp_iou_loss)
    terms: ClassVar[TermsFormula] = staticmethod(d_interp_iou_terms)
    low: float
    high: float

    @classmethod
    def check_parameters(cls, values: Mapping[str, float], prefix: str = "") -> None:
        """Raise a `ValueError` if the bounds are in the wrong order."""
        low, high = values["low"], values["high"]
        if low > high:
            raise ValueError(
                f"'{prefix}low={low}' and '{prefix}high={high}' do not go together: the first must not be larger"
            )
