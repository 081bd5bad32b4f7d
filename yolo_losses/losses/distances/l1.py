"""L1 loss of box distances."""

from __future__ import annotations

from torch import Tensor

from yolo_losses.losses._function import loss_function
from yolo_losses.losses.distances._base import DISTANCES


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
        >>> from yolo_losses.losses.distances.l1 import l1_distance_loss
        >>> l1_distance_loss(torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.full((4,), 0.25))
        tensor([0.1500, 0.0500, 0.0500, 0.1500])

    Source:
        What Ultralytics computes where a head predicts no distribution.
    """
    return (pred - target).abs()
