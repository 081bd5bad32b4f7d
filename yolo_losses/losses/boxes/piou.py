"""Powerful-IoU loss: adds edge distances normalised by the target's size to 1 - IoU."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.boxes._base import BOXES, BoxLoss, TermsFormula, register_box_loss
from yolo_losses.losses.boxes._geometry import EPS, Terms, corners, overlap, sides, total
from yolo_losses.registry.parameters import Param


def edge_distance(pred: Tensor, target: Tensor, eps: float = EPS) -> Tensor:
    """Return P, the mean distance of the four edges, each divided by the target's side in that direction."""
    left, top, right, bottom = (pred - target).abs().unbind(-1)
    width, height = sides(corners(target))
    return ((left + right) / width.abs().clamp_min(eps) + (top + bottom) / (height + eps).abs().clamp_min(eps)) / 4


def piou_terms(pred: Tensor, target: Tensor, lambda_: float = 1.3, eps: float = EPS) -> Terms:
    """Return the IoU and the edge penalty, in [0, 1]."""
    a, b = corners(pred), corners(target)
    return overlap(a, b, eps), 1 - (-edge_distance(pred, target, eps).square()).exp()


@loss_function(BOXES)
def piou_loss(
    pred: Tensor,
    target: Tensor,
    lambda_: Annotated[float, Param("unused; it is the parameter of piou2", above=0, used=False)] = 1.3,
    eps: float = EPS,
) -> Tensor:
    """PIoU loss, per pair: adds a penalty on the mean distance `P` of the four edges, in units of the target's sides.

    Formula:
        L = 1 - IoU + 1 - e^(-P^2)
        P = (|x_1-x'_1|/w' + |x_2-x'_2|/w' + |y_1-y'_1|/h' + |y_2-y'_2|/h')/4

    Args:
        pred: boxes `xyxy` with `x1 <= x2` and `y1 <= y2`, shape `(..., 4)`, in any unit.
        target: same shape.
        lambda_: unused; accepted so that `piou` and `piou2` are interchangeable.
        eps: added to both heights and to the union.

    Returns:
        In [0, 2], shape `(...)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import piou_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
        >>> piou_loss(pred, target)
        tensor([0.7036, 1.6321])

    Source:
        Liu et al., *Powerful-IoU*, Neural Networks 170 (2024), equal to the authors' code, which is NaN for targets
        of width 0. Not the Pixels-IoU of rotated boxes.

    See also:
        piou2: with an attention on boxes of medium quality
        mpdiou: distances of corners, in units of the image
    """
    return total(piou_terms(pred, target, lambda_, eps))


@register_box_loss(
    "piou",
    aliases=("piouloss", "piou_loss", "powerful_iou", "powerfuliou"),
    source="doi 10.1016/j.neunet.2023.11.041; its authors' code",
)
class PIoULoss(BoxLoss):
    """Powerful-IoU loss: adds edge distances normalised by the target's size to 1 - IoU."""

    formula: ClassVar[Formula] = staticmethod(piou_loss)
    terms: ClassVar[TermsFormula] = staticmethod(piou_terms)
    lambda_: float
