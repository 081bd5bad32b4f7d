"""InterpIoU loss: adds the IoU loss of a box interpolated between the predicted box and its target."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.boxes._base import BOXES, BoxLoss, TermsFormula, register_box_loss
from yolo_losses.losses.boxes._geometry import EPS, Corners, Terms, corners, overlap, total
from yolo_losses.registry.parameters import Param


def interpolated_penalty(pred: Corners, target: Corners, alpha: Tensor | float, eps: float) -> Tensor:
    """Return 1 - IoU of the target with the box at the share `alpha` of the way from `pred` to it."""
    top_left, bottom_right = (end + (start - end) * (1 - alpha) for start, end in zip(pred, target, strict=True))
    return 1 - overlap((top_left, bottom_right), target, eps)


def interp_iou_terms(pred: Tensor, target: Tensor, alpha: float = 0.98, eps: float = EPS) -> Terms:
    """Return the IoU, and 1 - IoU of the interpolated box."""
    a, b = corners(pred), corners(target)
    return overlap(a, b, eps), interpolated_penalty(a, b, alpha, eps)


@loss_function(BOXES)
def interp_iou_loss(
    pred: Tensor,
    target: Tensor,
    alpha: Annotated[
        float, Param("share of the way from the predicted box to the target at which the box lies", low=0, high=1)
    ] = 0.98,
    eps: float = EPS,
) -> Tensor:
    """InterpIoU loss, per pair: 1 - IoU of the predicted box, and of a box between it and its target.

    `J` is the IoU of the target with the box `alpha` of the way from the predicted box to the target, whose
    corners are interpolated. It overlaps the target where the predicted box does not yet, so that there is a gradient
    without a penalty of distances or shapes: `1 - alpha` times that of the IoU loss of a box that nearly fits. A
    predicted box farther away than `1/(1 - alpha)` sides has none.

    Formula:
        L = 1 - IoU + 1 - J

    Args:
        pred: boxes `xyxy` with `x1 <= x2` and `y1 <= y2`, shape `(..., 4)`, in any unit.
        target: same shape.
        alpha: in [0, 1]; 0 gives twice the IoU loss, 1 the IoU loss.
        eps: added to the heights and to the unions.

    Returns:
        In [0, 2], shape `(...)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import interp_iou_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
        >>> interp_iou_loss(pred, target)
        tensor([0.6681, 1.0769])

    Source:
        Liu and Watanabe, arXiv 2507.12420, equal to one minus `bbox_iou_ext(iou_type="InterpIoU")` of the first
        author's code up to its eps. Other code averages the IoU over several interpolated boxes, which is another loss.

    See also:
        d_interp_iou: the share follows the IoU
        diou: a gradient for disjoint boxes by the distance of the centres
    """
    return total(interp_iou_terms(pred, target, alpha, eps))


@register_box_loss(
    "interp_iou",
    aliases=("interpiou", "interpiouloss", "interp_iou_loss", "interpolated_iou"),
    source="arXiv 2507.12420; its authors' code",
)
class InterpIoULoss(BoxLoss):
    """InterpIoU loss: adds the IoU loss of a box interpolated between the predicted box and its target."""

    formula: ClassVar[Formula] = staticmethod(interp_iou_loss)
    terms: ClassVar[TermsFormula] = staticmethod(interp_iou_terms)
    alpha: float
