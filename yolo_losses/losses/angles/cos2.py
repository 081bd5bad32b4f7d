"""Angle loss of rotated boxes with a period of half a turn."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.angles._base import AngleLoss, aspect_weight
from yolo_losses.losses.boxes._base import ROTATED_BOXES


@loss_function(ROTATED_BOXES)
def cos2_angle_loss(pred: Tensor, target: Tensor, lambda_: float = 3.0) -> Tensor:
    """Angle loss of rotated boxes, per pair: the squared sine of the difference of the angles.

    `D` is the difference of the angles. The loss has a period of 180 degrees and its maximum at an error of 90 degrees,
    where `sin2_angle_loss` is 0. It therefore also penalizes a correct box that is predicted with its sides
    swapped and its angle a quarter turn away, and a turn of a square by 90 degrees, which is no error.

    Formula:
        L = exp(-(log(w'/h') / lambda)^2) (1 - cos(2 D)) / 2

    Args:
        pred: boxes `xywhr`, shape `(..., 5)`, angles in radians.
        target: same shape.
        lambda_: how slowly the weight falls with the aspect ratio, above 0.

    Returns:
        In [0, 1], shape `(...)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import cos2_angle_loss
        >>> a, b = torch.tensor([[8.0, 8, 6, 2, 0.3]]), torch.tensor([[8.0, 8, 6, 2, 0.0]])
        >>> cos2_angle_loss(a, b)
        tensor([0.0764])

    Source:
        Half of `1 - cos(2 D)`, the usual distance of directions that are the same after half a turn.

    See also:
        angle_sin2: a period of a quarter turn, the stock loss
    """
    return aspect_weight(target, lambda_) * torch.sin(pred[..., 4] - target[..., 4]) ** 2


@declares(
    "angle",
    AngleLoss,
    "cos2",
    summary="Squared sine of the difference of the angles: a period of half a turn",
    aliases=("cos", "cos2_loss"),
    source="this project",
)
class Cos2AngleLoss(AngleLoss):
    """Angle loss of rotated boxes with a period of half a turn."""

    formula: ClassVar[Formula] = staticmethod(cos2_angle_loss)
    note: ClassVar[str] = (
        "a correct box with its sides swapped and turned by 90 degrees is penalized, and so is any turn of a square"
    )
