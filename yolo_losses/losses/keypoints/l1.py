"""L1 loss of keypoints, in units of the object's size."""

from __future__ import annotations

from torch import Tensor

from yolo_losses.losses._function import loss_function
from yolo_losses.losses.keypoints._base import KEYPOINTS
from yolo_losses.losses.keypoints.oks import EPS


def relative_distance(pred: Tensor, target: Tensor, area: Tensor) -> Tensor:
    """Return the distance in x and in y over the square root of the object's area, shape `(N, K, 2)`."""
    return (pred[..., :2] - target[..., :2]) / (area + EPS).sqrt().unsqueeze(-1)


@loss_function(KEYPOINTS)
def l1_keypoint_loss(pred: Tensor, target: Tensor, area: Tensor) -> Tensor:
    """L1 loss, per keypoint: its distances in x and in y over the square root of the object's area.

    Formula:
        L = (|dx| + |dy|) / sqrt(area)

    Args:
        pred: keypoints, shape `(N, K, 2)`; further columns are not used.
        target: keypoints in the same unit, shape `(N, K, 2)`; further columns are not used.
        area: the area of each object in the square of that unit, shape `(N, 1)`.

    Returns:
        At least 0, shape `(N, K)`.

    Example:
        >>> import torch
        >>> from yolo_losses.losses.keypoints.l1 import l1_keypoint_loss
        >>> l1_keypoint_loss(torch.tensor([[[3.0, 4.0]]]), torch.zeros(1, 1, 2), torch.tensor([[100.0]]))
        tensor([[0.7000]])
    """
    return relative_distance(pred, target, area).abs().sum(-1)
