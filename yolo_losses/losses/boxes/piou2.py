"""Powerful-IoU v2 loss: PIoU with a non-monotonic attention on boxes of medium quality."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.boxes._base import BOXES, BoxLoss, register_box_loss
from yolo_losses.losses.boxes._geometry import EPS, corners, overlap
from yolo_losses.losses.boxes.piou import edge_distance
from yolo_losses.registry.parameters import Param


@loss_function(BOXES)
def piou2_loss(
    pred: Tensor,
    target: Tensor,
    lambda_: Annotated[float, Param("attention parameter; the peak is at exp(-P) = 0.7071 / lambda", above=0)] = 1.3,
    eps: float = EPS,
) -> Tensor:
    """PIoU2 loss, per pair: PIoU times an attention that is largest for boxes of medium quality.

    The attention is not detached: very poor boxes, whose attention rises as they improve, are pushed away from the
    target.

    Formula:
        L = 3 x e^(-x^2) (1 - IoU + 1 - e^(-P^2))
        x = lambda e^-P
        P = (|x_1-x'_1|/w' + |x_2-x'_2|/w' + |y_1-y'_1|/h' + |y_2-y'_2|/h')/4

    Args:
        pred: boxes `xyxy` with `x1 <= x2` and `y1 <= y2`, shape `(..., 4)`, in any unit.
        target: same shape.
        lambda_: above 0; the larger it is, the lower the quality at which the attention peaks.
        eps: added to both heights and to the union.

    Returns:
        In [0, 2.6), shape `(...)`; not monotonic in the distance, and tends to 0 for distant boxes.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import piou2_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [20.0, 0.0, 30.0, 10.0]])
        >>> piou2_loss(pred, target)
        tensor([0.7553, 1.8629])

    Source:
        Liu et al., *Powerful-IoU*, Neural Networks 170 (2024), equal to the authors' code, which is NaN for targets
        of width 0.

    See also:
        piou: without the attention
        wiou: focuses by the IoU relative to a running mean
    """
    a, b = corners(pred), corners(target)
    distance = edge_distance(pred, target, eps)
    x = lambda_ * (-distance).exp()
    loss = 2 - overlap(a, b, eps) - (-distance.square()).exp()
    return 3 * x * (-x.square()).exp() * loss


@register_box_loss(
    "piou2",
    aliases=("piouv2", "piou_v2", "piou2loss", "piou2_loss", "powerful_iou2", "powerful_iou_v2", "powerfuliou2"),
    source="doi 10.1016/j.neunet.2023.11.041; its authors' code",
)
class PIoU2Loss(BoxLoss):
    """Powerful-IoU v2 loss: PIoU with a non-monotonic attention on boxes of medium quality."""

    formula: ClassVar[Formula] = staticmethod(piou2_loss)
    lambda_: float
