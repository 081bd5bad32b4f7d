"""MPDIoU loss: adds the distances of two corner pairs, normalised by the image size, to 1 - IoU."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.boxes._base import BOXES, BoxLoss, TermsFormula, register_box_loss
from yolo_losses.losses.boxes._geometry import EPS, Terms, corners, overlap, total


def mpdiou_terms(pred: Tensor, target: Tensor, image_wh: Tensor | tuple[float, float], eps: float = EPS) -> Terms:
    """Return the IoU and the normalised squared distances of the top left and bottom right corners."""
    a, b = corners(pred), corners(target)
    size = torch.as_tensor(image_wh, dtype=pred.dtype, device=pred.device)
    x1, y1, x2, y2 = ((pred - target) / size.square().sum(-1, keepdim=True).sqrt()).square().unbind(-1)
    return overlap(a, b, eps), x1 + y1, x2 + y2


@loss_function(BOXES)
def mpdiou_loss(pred: Tensor, target: Tensor, image_wh: Tensor | tuple[float, float], eps: float = EPS) -> Tensor:
    """MPDIoU loss, per pair: adds the squared distances of the top left and of the bottom right corners.

    `d_1` and `d_2` are the distances, `W` and `H` the width and height of the image.

    Formula:
        L = 1 - IoU + (d_1^2 + d_2^2)/(W^2 + H^2)

    Args:
        pred: boxes `xyxy` with `x1 <= x2` and `y1 <= y2`, shape `(..., 4)`.
        target: same shape.
        image_wh: width and height of the image in the unit of the boxes, shape `(2,)`, or per pair `(..., 2)`.
        eps: added to both heights and to the union.

    Returns:
        In [0, 3] for boxes inside the image, shape `(...)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import mpdiou_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
        >>> mpdiou_loss(pred, target, image_wh=(64, 48))
        tensor([0.6576, 1.1250])

    Source:
        Ma and Xu, arXiv 2307.07662. Some ports normalise by the enclosing box or the feature map instead.

    See also:
        piou: distances of the edges, in units of the target
    """
    return total(mpdiou_terms(pred, target, image_wh, eps))


@register_box_loss(
    "mpdiou",
    aliases=("mpdiouloss", "mpdiou_loss", "mpd_iou"),
    source="arXiv 2307.07662",
)
class MPDIoULoss(BoxLoss):
    """MPDIoU loss: adds the distances of two corner pairs, normalised by the image size, to 1 - IoU.

    Its calls need `image_wh`, in the unit of the boxes.
    """

    formula: ClassVar[Formula] = staticmethod(mpdiou_loss)
    terms: ClassVar[TermsFormula] = staticmethod(mpdiou_terms)
