"""L1 loss of box distances."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.distances._base import DISTANCES, DistanceLoss


@loss_function(DISTANCES)
def l1_distance_loss(pred: Tensor, target: Tensor) -> Tensor:
    """L1 loss of box distances, per side.

    Formula:
        L = |d|

    Args:
        pred: distances as shares of the image's side, shape `(..., 4)`.
        target: same shape.

    Returns:
        At least 0, shape `(..., 4)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import l1_distance_loss
        >>> l1_distance_loss(torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.full((4,), 0.25))
        tensor([0.1500, 0.0500, 0.0500, 0.1500])

    Source:
        Ultralytics' `BboxLoss`, for heads that predict no distribution.

    See also:
        l1_smooth_l1: small errors have a smaller gradient
    """
    return (pred - target).abs()


@declares(
    "l1",
    DistanceLoss,
    "l1",
    summary="L1 loss of box distances, equal to the stock loss",
    aliases=("l1loss", "l1_loss", "mae"),
    source="Ultralytics",
)
class L1DistanceLoss(DistanceLoss):
    """L1 loss of box distances."""

    formula: ClassVar[Formula] = staticmethod(l1_distance_loss)
