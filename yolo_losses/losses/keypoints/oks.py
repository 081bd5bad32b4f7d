"""OKS loss of keypoints: one minus the object keypoint similarity."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.keypoints._base import KEYPOINTS, KeypointLoss

EPS = 1e-9


@loss_function(KEYPOINTS)
def oks_loss(pred: Tensor, target: Tensor, area: Tensor, sigmas: Tensor) -> Tensor:
    """OKS loss, per keypoint: one minus the object keypoint similarity.

    Formula:
        L = 1 - exp(-distance^2 / (8 sigma^2 area))

    Args:
        pred: keypoints, shape `(N, K, 2)`; further columns are not used.
        target: keypoints in the same unit, shape `(N, K, 2)`; further columns are not used.
        area: the area of each object in the square of that unit, shape `(N, 1)`.
        sigmas: the tolerance of each keypoint, as a share of the object's size, shape `(K,)`.

    Returns:
        In [0, 1], shape `(N, K)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import oks_loss
        >>> pred, target = torch.tensor([[[3.0, 4.0]]]), torch.zeros(1, 1, 2)
        >>> oks_loss(pred, target, torch.tensor([[100.0]]), torch.tensor([0.25]))
        tensor([[0.3935]])

    Source:
        COCO's keypoint evaluation, as in Ultralytics' `KeypointLoss`.

    See also:
        pose_l1: its gradient does not vanish for large errors
        pose_wing: in pixels
    """
    d2 = (pred[..., :2] - target[..., :2]).square().sum(-1)
    return -torch.expm1(-d2 / ((2 * sigmas).square() * (area + EPS) * 2))


@declares(
    "pose",
    KeypointLoss,
    "oks",
    aliases=("oksloss", "oks_loss", "keypointloss", "keypoint_loss"),
    source="Ultralytics KeypointLoss; COCO keypoint evaluation",
    summary="OKS loss, equal to the stock loss",
)
class OKSLoss(KeypointLoss):
    """OKS loss of keypoints, equal to the stock loss up to float32 rounding."""

    formula: ClassVar[Formula] = staticmethod(oks_loss)
