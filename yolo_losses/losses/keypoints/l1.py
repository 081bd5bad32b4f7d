"""L1 loss of keypoints, in units of the object's size."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.keypoints._base import KEYPOINTS, KeypointLoss
from yolo_losses.losses.keypoints.oks import EPS


def relative_distance(pred: Tensor, target: Tensor, area: Tensor) -> Tensor:
    """Return the distance in x and in y over the square root of the object's area, shape `(N, K, 2)`."""
    return (pred[..., :2] - target[..., :2]) / (area + EPS).sqrt().unsqueeze(-1)


@loss_function(KEYPOINTS)
def l1_keypoint_loss(pred: Tensor, target: Tensor, area: Tensor) -> Tensor:
    """L1 loss, per keypoint: the distances in x and in y over the square root of the object's area.

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
        >>> from yolo_losses.functional import l1_keypoint_loss
        >>> l1_keypoint_loss(torch.tensor([[[3.0, 4.0]]]), torch.zeros(1, 1, 2), torch.tensor([[100.0]]))
        tensor([[0.7000]])

    Source:
        `torch.nn.functional.l1_loss` of the distances in units of the object's size.

    See also:
        pose_smooth_l1: a square for small errors
        pose_oks: the stock loss
    """
    return relative_distance(pred, target, area).abs().sum(-1)


@declares(
    "pose",
    KeypointLoss,
    "l1",
    aliases=("l1loss", "l1_loss"),
    source="torch l1_loss",
    summary="L1 loss in units of the size of the object",
)
class L1KeypointLoss(KeypointLoss):
    """L1 loss of keypoints, in units of the size of the object."""

    formula: ClassVar[Formula] = staticmethod(l1_keypoint_loss)
