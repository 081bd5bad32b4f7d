"""MPDIoU loss: IoU, and the distances of the corners by the image."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from yolo_losses.boxes._base import BoxLoss, Formula, TermsFormula, register_box_loss
from yolo_losses.boxes._geometry import EPS, Terms, corners, overlap, total
from yolo_losses.formula import with_reduction


def mpdiou_terms(pred: Tensor, target: Tensor, image_wh: Tensor | tuple[float, float], eps: float = EPS) -> Terms:
    """Return the IoU and the distances of the top left and of the bottom right corners."""
    a, b = corners(pred), corners(target)
    size = torch.as_tensor(image_wh, dtype=pred.dtype, device=pred.device)
    x1, y1, x2, y2 = ((pred - target) / size.square().sum(-1, keepdim=True).sqrt()).square().unbind(-1)
    return overlap(a, b, eps), x1 + y1, x2 + y2


@with_reduction
def mpdiou_loss(pred: Tensor, target: Tensor, image_wh: Tensor | tuple[float, float], eps: float = EPS) -> Tensor:
    """MPDIoU loss, one value a pair: `1 - I + (d1^2 + d2^2)/(W^2 + H^2)`.

    d1 and d2 are the distances of the top left and of the bottom right corners, W and H the image's sides.

    Args:
        pred: boxes `xyxy`, shape `(..., 4)`.
        target: of the same shape.
        image_wh: width and height of the image in the boxes' unit: a pair, shape `(2,)`, or one a pair `(..., 2)`.
        eps: added to both heights and to the union.
        weight: one a pair.
        reduction: `none`, `mean` or `sum`.
        avg_factor: what `mean` divides by in place of the number of pairs.

    Returns:
        In [0, 3] for boxes inside the image, shape `(...)`.

    Source:
        Ma and Xu, arXiv 2307.07662. Some copies put the enclosing box or the feature map in the image's place.
    """
    return total(mpdiou_terms(pred, target, image_wh, eps))


@register_box_loss("mpdiou", aliases=("mpdiouloss", "mpdiou_loss", "mpd_iou"), source="arXiv 2307.07662")
class MPDIoULoss(BoxLoss):
    """MPDIoU loss: IoU, and the distances of the corners by the image; it needs `image_wh`, in the boxes' unit."""

    formula: ClassVar[Formula] = staticmethod(mpdiou_loss)
    terms: ClassVar[TermsFormula] = staticmethod(mpdiou_terms)
