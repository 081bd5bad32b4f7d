"""Distance-IoU loss: adds the normalised centre distance to 1 - IoU."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.boxes._base import BOXES, BoxLoss, TermsFormula, register_box_loss
from yolo_losses.losses.boxes._geometry import EPS, Terms, centre_penalty, corners, overlap_and_union, total


def diou_terms(pred: Tensor, target: Tensor, eps: float = EPS) -> Terms:
    """Return the IoU and the normalised centre distance."""
    a, b = corners(pred), corners(target)
    iou, _ = overlap_and_union(a, b, eps)
    return iou, centre_penalty(a, b, eps)


@loss_function(BOXES)
def diou_loss(pred: Tensor, target: Tensor, eps: float = EPS) -> Tensor:
    """DIoU loss, per pair: adds the squared distance of the centres over the squared diagonal of the enclosing box.

    Formula:
        L = 1 - IoU + r^2/c^2

    Args:
        pred: boxes `xyxy` with `x1 <= x2` and `y1 <= y2`, shape `(..., 4)`, in any unit.
        target: same shape.
        eps: added to the denominators.

    Returns:
        In [0, 2), shape `(...)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import diou_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
        >>> diou_loss(pred, target)
        tensor([0.7203, 1.4000])

    Source:
        Zheng et al., arXiv 1911.08287, equal to torchvision's `distance_box_iou_loss`; Ultralytics' has eps on the
        heights too, which differs by 1e-8 on ordinary boxes.

    See also:
        ciou: adds the aspect ratio
        eiou: adds width and height
    """
    return total(diou_terms(pred, target, eps))


@register_box_loss(
    "diou",
    aliases=("diouloss", "diou_loss", "distance_iou"),
    source="arXiv 1911.08287; torchvision, Ultralytics",
)
class DIoULoss(BoxLoss):
    """Distance-IoU loss: adds the normalised centre distance to 1 - IoU."""

    formula: ClassVar[Formula] = staticmethod(diou_loss)
    terms: ClassVar[TermsFormula] = staticmethod(diou_terms)
