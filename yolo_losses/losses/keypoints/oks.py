"""OKS loss of keypoints: one minus the object keypoint similarity."""

from __future__ import annotations

import torch
from torch import Tensor

from yolo_losses.losses._function import loss_function
from yolo_losses.losses.keypoints._base import KEYPOINTS

EPS = 1e-9


@loss_function(KEYPOINTS)
def oks_loss(pred: Tensor, target: Tensor, area: Tensor, sigmas: Tensor) -> Tensor:
    """OKS loss, per keypoint: one minus its object keypoint similarity.

    Formula:
        L = 1 - exp(-distance^2 / (8 sigma^2 area))

    Args:
        pred: keypoints, shape `(N, K, 2)`; further columns are not used.
        target: keypoints in the same unit, shape `(N, K, 2)`; further columns are not used.
        area: the area of each object in the square of that unit, shape `(N, 1)`.
        sigmas: how far each keypoint may lie off, as a share of the object's size, shape `(K,)`.

    Returns:
        In [0, 1], shape `(N, K)`.

    Example:
        >>> import torch
        >>> from yolo_losses.losses.keypoints.oks import oks_loss
        >>> pred, target = torch.tensor([[[3.0, 4.0]]]), torch.zeros(1, 1, 2)
        >>> oks_loss(pred, target, torch.tensor([[100.0]]), torch.tensor([0.25]))
        tensor([[0.3935]])

    Source:
        COCO's keypoint evaluation, as in Ultralytics' `KeypointLoss`.
    """
    d2 = (pred[..., :2] - target[..., :2]).square().sum(-1)
    return -torch.expm1(-d2 / ((2 * sigmas).square() * (area + EPS) * 2))
