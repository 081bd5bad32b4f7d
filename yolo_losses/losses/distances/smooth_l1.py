"""Smooth L1 loss of box distances."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor, nn

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.distances._base import DISTANCES, DistanceLoss
from yolo_losses.registry.parameters import Param


@loss_function(DISTANCES)
def smooth_l1_distance_loss(
    pred: Tensor,
    target: Tensor,
    beta: Annotated[float, Param("below it the loss is a square, a share of the image's side", above=0)] = 0.01,
) -> Tensor:
    """Smooth L1 loss of box distances, per side: a square below beta, L1 less a constant above.

    Formula:
        L = d^2 / (2 beta) if |d| < beta, |d| - beta/2 otherwise

    Args:
        pred: distances as shares of the image's side, shape `(..., 4)`.
        target: same shape.
        beta: where the square ends, above 0. The unit is the image's side: 1.0 would be a square everywhere.

    Returns:
        At least 0, shape `(..., 4)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import smooth_l1_distance_loss
        >>> smooth_l1_distance_loss(torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.full((4,), 0.25))
        tensor([0.1450, 0.0450, 0.0450, 0.1450])

    Source:
        Girshick, arXiv 1504.08083; `torch.nn.functional.smooth_l1_loss`.

    See also:
        l1_l1: without the square
    """
    return nn.functional.smooth_l1_loss(pred, target, reduction="none", beta=beta)


@declares(
    "l1",
    DistanceLoss,
    "smooth_l1",
    summary="Smooth L1 loss of box distances: a square below beta, L1 less a constant above",
    aliases=("smoothl1", "smoothl1loss", "smooth_l1_loss"),
    source="arXiv 1504.08083",
)
class SmoothL1DistanceLoss(DistanceLoss):
    """Smooth L1 loss of box distances."""

    formula: ClassVar[Formula] = staticmethod(smooth_l1_distance_loss)
    beta: float
