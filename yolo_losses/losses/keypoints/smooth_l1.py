"""Smooth L1 loss of keypoints, in units of the object's size."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.keypoints._base import KEYPOINTS, KeypointLoss
from yolo_losses.losses.keypoints.l1 import relative_distance
from yolo_losses.registry.parameters import Param


@loss_function(KEYPOINTS)
def smooth_l1_keypoint_loss(
    pred: Tensor,
    target: Tensor,
    area: Tensor,
    beta: Annotated[float, Param("below it the loss is a square, a share of the object's size", above=0)] = 0.1,
) -> Tensor:
    """Smooth L1 loss, per keypoint: `l1_keypoint_loss` with a square below beta, in x and in y.

    Formula:
        L = s(dx / sqrt(area)) + s(dy / sqrt(area))
        s(x) = x^2 / (2 beta) if |x| < beta, |x| - beta/2 otherwise

    Args:
        pred: keypoints, shape `(N, K, 2)`; further columns are not used.
        target: keypoints in the same unit, shape `(N, K, 2)`; further columns are not used.
        area: the area of each object in the square of that unit, shape `(N, 1)`.
        beta: where the square ends, a share of the square root of the area, above 0.

    Returns:
        At least 0, shape `(N, K)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import smooth_l1_keypoint_loss
        >>> smooth_l1_keypoint_loss(torch.tensor([[[3.0, 4.0]]]), torch.zeros(1, 1, 2), torch.tensor([[100.0]]))
        tensor([[0.6000]])

    Source:
        Girshick, arXiv 1504.08083; `torch.nn.functional.smooth_l1_loss`.

    See also:
        pose_l1: a constant gradient, for small errors too
    """
    d = relative_distance(pred, target, area)
    return nn.functional.smooth_l1_loss(d, torch.zeros_like(d), reduction="none", beta=beta).sum(-1)


@declares(
    "pose",
    KeypointLoss,
    "smooth_l1",
    aliases=("smoothl1", "smoothl1loss", "smooth_l1_loss"),
    source="arXiv 1504.08083; torch smooth_l1_loss",
    summary="Smooth L1 loss in units of the size of the object: a square below beta",
)
class SmoothL1KeypointLoss(KeypointLoss):
    """Smooth L1 loss of keypoints, in units of the size of the object."""

    formula: ClassVar[Formula] = staticmethod(smooth_l1_keypoint_loss)
    beta: float
