"""SDIoU loss: CIoU whose overlap counts less, and whose centre distance counts more, for small objects."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.boxes._base import BOXES, BoxLoss, register_box_loss
from yolo_losses.losses.boxes._geometry import EPS, corners, sides
from yolo_losses.losses.boxes.ciou import ciou_terms
from yolo_losses.registry.parameters import Param

LARGE = 81  # area in pixels of the network input, 9 x 9, from which on the loss is CIoU


@loss_function(BOXES)
def sdiou_loss(
    pred: Tensor,
    target: Tensor,
    stride: Tensor | float = 1.0,
    delta: Annotated[
        float, Param("shift from overlap to centre distance for the smallest objects; 0 gives ciou", low=0, high=1)
    ] = 0.5,
    eps: float = EPS,
) -> Tensor:
    """SDIoU loss, per pair: CIoU in which, for small targets, overlap counts less and centre distance more.

    `b` depends on the area of the target in pixels; from 81 square pixels on the loss is CIoU. The overlap of small
    targets changes much with a shift of one pixel.

    Formula:
        L = (1 - delta + b) (1 - IoU + a v) + (1 + delta - b) r^2/c^2
        b = min(delta w' h'/81, delta)
        v = 4/pi^2 (atan(w/h) - atan(w'/h'))^2
        a = v/(v - IoU + 1)

    Args:
        pred: boxes `xyxy` with `x1 <= x2` and `y1 <= y2`, shape `(..., 4)`.
        target: same shape.
        stride: pixels of the network input per unit of the boxes, shape `(..., 1)`; 1 for boxes in pixels. The
            criterion supplies it.
        delta: shift from overlap to centre distance for the smallest objects, in [0, 1]; 0 gives CIoU.
        eps: as in CIoU.

    Returns:
        At least 0 and below 3, shape `(...)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import sdiou_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
        >>> sdiou_loss(pred, target)
        tensor([0.7204, 1.4000])
        >>> sdiou_loss(pred / 2, target / 2)
        tensor([0.5275, 1.1926])

    Source:
        Yang et al., arXiv 2412.16986, equal to one minus `bbox_iou(SDIoU=True)` of the authors' code for boxes in
        pixels. With boxes in units of the stride, as Ultralytics' criterion has them, b would be 64 to 1024 times too
        small there.

    See also:
        ciou: the same for every size
        nwd: a distance in pixels
    """
    pred, target = pred * stride, target * stride
    iou, distance, aspect = ciou_terms(pred, target, eps)
    width, height = sides(corners(target))
    b = (delta * width * (height + eps) / LARGE).clamp(0, delta)
    return (1 - delta + b) * (1 - iou + aspect) + (1 + delta - b) * distance


@register_box_loss(
    "sdiou",
    aliases=("sdiouloss", "sdiou_loss", "sd_iou", "sdloss"),
    source="arXiv 2412.16986; JN-Yang/PConv-SDloss-Data",
)
class SDIoULoss(BoxLoss):
    """SDIoU loss: CIoU whose overlap counts less, and whose centre distance counts more, for small objects."""

    formula: ClassVar[Formula] = staticmethod(sdiou_loss)
    delta: float
