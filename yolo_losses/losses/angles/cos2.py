"""Angle loss of rotated boxes with a period of half a turn."""

from __future__ import annotations

import torch
from torch import Tensor

from yolo_losses.losses._function import loss_function
from yolo_losses.losses.angles._base import aspect_weight
from yolo_losses.losses.boxes._base import ROTATED_BOXES


@loss_function(ROTATED_BOXES)
def cos2_angle_loss(pred: Tensor, target: Tensor, lambda_: float = 3.0) -> Tensor:
    """Angle loss of rotated boxes, per pair: the squared sine of the difference of the angles.

    Formula:
        L = exp(-(log(w'/h') / lambda)^2) (1 - cos(2 D)) / 2

    D is the difference of the angles. The loss has a period of 180 degrees and its maximum at an error of 90 degrees,
    where `sin2_angle_loss` is 0. So it also penalizes a correct box that is predicted with its sides swapped and its
    angle a quarter turn away, and, on a square, whose angle has a period of 90 degrees, a difference that is no error.

    Args:
        pred: boxes `xywhr`, shape `(..., 5)`, angles in radians.
        target: same shape.
        lambda_: how slowly the weight falls with the aspect ratio, above 0.

    Returns:
        In [0, 1], shape `(...)`.

    Example:
        >>> import torch
        >>> from yolo_losses.losses.angles.cos2 import cos2_angle_loss
        >>> a, b = torch.tensor([[8.0, 8, 6, 2, 0.3]]), torch.tensor([[8.0, 8, 6, 2, 0.0]])
        >>> cos2_angle_loss(a, b)
        tensor([0.0764])

    Source:
        Half of `1 - cos(2 D)`, the usual distance of directions that are the same after half a turn.
    """
    return aspect_weight(target, lambda_) * torch.sin(pred[..., 4] - target[..., 4]) ** 2
