"""PIoU loss: IoU, and the distances of the edges by the target's size."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.boxes._base import BoxLoss, Formula, TermsFormula, register_box_loss
from yolo_losses.boxes._geometry import EPS, Terms, corners, overlap, sides, total
from yolo_losses.formula import with_reduction
from yolo_losses.parameters import Param


def edge_distance(pred: Tensor, target: Tensor, eps: float = EPS) -> Tensor:
    """Return P, the mean distance of the four edges, each by the target's side along it."""
    left, top, right, bottom = (pred - target).abs().unbind(-1)
    width, height = sides(corners(target))
    return ((left + right) / width.abs().clamp_min(eps) + (top + bottom) / (height + eps).abs().clamp_min(eps)) / 4


def piou_terms(pred: Tensor, target: Tensor, lambda_: float = 1.3, eps: float = EPS) -> Terms:
    """Return the IoU and the distance of the edges, between 0 and 1."""
    a, b = corners(pred), corners(target)
    return overlap(a, b, eps), 1 - (-edge_distance(pred, target, eps).square()).exp()


@with_reduction
def piou_loss(
    pred: Tensor,
    target: Tensor,
    lambda_: Annotated[float, Param("piou2's; version 1 has no attention, and no use for it", above=0)] = 1.3,
    eps: float = EPS,
) -> Tensor:
    """PIoU loss, one value a pair: `1 - I + 1 - exp(-P^2)`.

    P is the mean distance of the four edges, each by the target's side along it.

    Args:
        pred: boxes `xyxy`, shape `(..., 4)`, in any unit.
        target: of the same shape.
        lambda_: takes no part; `piou2`'s, so that the two can be exchanged.
        eps: added to both heights and to the union.
        weight: one a pair.
        reduction: `none`, `mean` or `sum`.
        avg_factor: what `mean` divides by in place of the number of pairs.

    Returns:
        In [0, 2], shape `(...)`.

    Source:
        Liu et al., *Powerful-IoU*, Neural Networks 170 (2024), equal to the authors' code, which is NaN at targets
        of width 0. Not the rotated boxes' pixels-IoU of that name.
    """
    return total(piou_terms(pred, target, lambda_, eps))


@register_box_loss(
    "piou", aliases=("piouloss", "piou_loss", "powerful_iou", "powerfuliou"), source="Powerful-IoU, its authors' code"
)
class PIoULoss(BoxLoss):
    """PIoU loss: IoU, and the distances of the edges by the target's size."""

    formula: ClassVar[Formula] = staticmethod(piou_loss)
    terms: ClassVar[TermsFormula] = staticmethod(piou_terms)
    lambda_: float
