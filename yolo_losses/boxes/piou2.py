"""PIoU2 loss: PIoU with an attention that favours boxes of middling quality."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.boxes._base import BoxLoss, Formula, register_box_loss
from yolo_losses.boxes._geometry import EPS, corners, overlap
from yolo_losses.boxes.piou import edge_distance
from yolo_losses.formula import with_reduction
from yolo_losses.parameters import Param


@with_reduction
def piou2_loss(
    pred: Tensor,
    target: Tensor,
    lambda_: Annotated[float, Param("where the attention peaks: at exp(-P) = 0.7071 / lambda", above=0)] = 1.3,
    eps: float = EPS,
) -> Tensor:
    """PIoU2 loss, one value a pair: `3 x exp(-x^2) (1 - I + 1 - exp(-P^2))`, `x = lambda exp(-P)`.

    P is the mean distance of the four edges, each by the target's side along it. Gradient flows through the
    attention too: a bad enough box, whose attention rises as it improves, is pushed away.

    Args:
        pred: boxes `xyxy`, shape `(..., 4)`, in any unit.
        target: of the same shape.
        lambda_: above 0; the higher, the worse the boxes that the attention favours.
        eps: added to both heights and to the union.
        weight: one a pair.
        reduction: `none`, `mean` or `sum`.
        avg_factor: what `mean` divides by in place of the number of pairs.

    Returns:
        In [0, 2.6), shape `(...)`; not monotonic in the distance, and towards 0 for boxes far away.

    Source:
        Liu et al., *Powerful-IoU*, Neural Networks 170 (2024), equal to the authors' code, which is NaN at targets
        of width 0.
    """
    a, b = corners(pred), corners(target)
    distance = edge_distance(pred, target, eps)
    x = lambda_ * (-distance).exp()
    loss = 2 - overlap(a, b, eps) - (-distance.square()).exp()
    return 3 * x * (-x.square()).exp() * loss


@register_box_loss(
    "piou2",
    aliases=("piouv2", "piou_v2", "piou2loss", "piou2_loss", "powerful_iou2", "powerful_iou_v2", "powerfuliou2"),
    source="Powerful-IoU, its authors' code",
)
class PIoU2Loss(BoxLoss):
    """PIoU2 loss: PIoU with an attention that favours boxes of middling quality."""

    formula: ClassVar[Formula] = staticmethod(piou2_loss)
    lambda_: float
