"""DIoU loss: IoU, and the distance of the centres."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from yolo_losses.boxes._base import BoxLoss, Formula, TermsFormula, register_box_loss
from yolo_losses.boxes._geometry import EPS, Terms, centre_penalty, corners, overlap_and_union, total
from yolo_losses.formula import with_reduction


def diou_terms(pred: Tensor, target: Tensor, eps: float = EPS) -> Terms:
    """Return the IoU and the distance of the centres."""
    a, b = corners(pred), corners(target)
    iou, _ = overlap_and_union(a, b, eps)
    return iou, centre_penalty(a, b, eps)


@with_reduction
def diou_loss(pred: Tensor, target: Tensor, eps: float = EPS) -> Tensor:
    """DIoU loss, one value a pair: `1 - I + r2/c2`.

    r2 is the squared distance of the centres, c2 the squared diagonal of the enclosing box.

    Args:
        pred: boxes `xyxy`, shape `(..., 4)`, in any unit.
        target: of the same shape.
        eps: added to the denominators.
        weight: one a pair.
        reduction: `none`, `mean` or `sum`.
        avg_factor: what `mean` divides by in place of the number of pairs.

    Returns:
        In [0, 2), shape `(...)`.

    Source:
        Zheng et al., arXiv 1911.08287, equal to torchvision's `distance_box_iou_loss`; Ultralytics' has eps on the
        heights too, which differs by 1e-8 on boxes of usual size.
    """
    return total(diou_terms(pred, target, eps))


@register_box_loss(
    "diou", aliases=("diouloss", "diou_loss", "distance_iou"), source="arXiv 1911.08287; torchvision, Ultralytics"
)
class DIoULoss(BoxLoss):
    """DIoU loss: IoU, and the distance of the centres."""

    formula: ClassVar[Formula] = staticmethod(diou_loss)
    terms: ClassVar[TermsFormula] = staticmethod(diou_terms)
