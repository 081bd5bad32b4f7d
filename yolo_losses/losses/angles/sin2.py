"""Angle loss of rotated boxes with a period of a quarter turn."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.angles._base import AngleLoss, aspect_weight
from yolo_losses.losses.boxes._base import ROTATED_BOXES


@loss_function(ROTATED_BOXES)
def sin2_angle_loss(pred: Tensor, target: Tensor, lambda_: float = 3.0) -> Tensor:
    """Angle loss of rotated boxes, per pair: the squared sine of twice the difference of the angles.

    `D` is the difference of the angles. The loss has a period of 90 degrees: at an error of a quarter turn, value and
    gradient are 0.

    Formula:
        L = exp(-(log(w'/h') / lambda)^2) sin(2 D)^2

    Args:
        pred: boxes `xywhr`, shape `(..., 5)`, angles in radians.
        target: same shape.
        lambda_: how slowly the weight falls with the aspect ratio, above 0.

    Returns:
        In [0, 1], shape `(...)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import sin2_angle_loss
        >>> a, b = torch.tensor([[8.0, 8, 6, 2, 0.3]]), torch.tensor([[8.0, 8, 6, 2, 0.0]])
        >>> sin2_angle_loss(a, b)
        tensor([0.2788])

    Source:
        Ultralytics' `v8OBBLoss.calculate_angle_loss`.

    See also:
        angle_cos2: a period of half a turn
    """
    return aspect_weight(target, lambda_) * torch.sin(2 * (pred[..., 4] - target[..., 4])) ** 2


@declares(
    "angle",
    AngleLoss,
    "sin2",
    summary="Squared sine of twice the difference of the angles, equal to the stock loss",
    aliases=("sin", "sin2_loss"),
    source="Ultralytics v8OBBLoss.calculate_angle_loss",
)
class Sin2AngleLoss(AngleLoss):
    """Angle loss of rotated boxes with a period of a quarter turn."""

    formula: ClassVar[Formula] = staticmethod(sin2_angle_loss)
