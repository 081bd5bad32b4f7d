"""Wing loss of keypoints: a logarithm for small errors, L1 for large ones."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.keypoints._base import KEYPOINTS, KeypointLoss
from yolo_losses.registry.parameters import Param


@loss_function(KEYPOINTS)
def wing_loss(
    pred: Tensor,
    target: Tensor,
    w: Annotated[float, Param("below it, in pixels, the loss is a logarithm", above=0)] = 10.0,
    epsilon: Annotated[float, Param("curvature of the logarithm, in pixels", above=0)] = 2.0,
) -> Tensor:
    """Wing loss, per keypoint: a logarithm for errors below w, L1 less a constant above, in x and in y.

    Formula:
        L = wing(|dx|) + wing(|dy|)
        wing(x) = w log(1 + x / epsilon) if x < w, x - w + w log(1 + w / epsilon) otherwise

    Args:
        pred: keypoints in pixels, shape `(N, K, 2)`; further columns are not used.
        target: keypoints in pixels, shape `(N, K, 2)`; further columns are not used.
        w: where the logarithm ends, in pixels, above 0.
        epsilon: in pixels, above 0. The gradient at an error of 0 is `w / epsilon`.

    Returns:
        At least 0, shape `(N, K)`. The loss of an error of 10 px is 18, of one as large as the image several hundred,
        while OKS loss is at most 1: lower the gain `pose`, which was tuned for OKS loss, to a tenth or less.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import wing_loss
        >>> wing_loss(torch.tensor([[[3.0, 20.0]]]), torch.zeros(1, 1, 2))
        tensor([[37.0805]])

    Source:
        Feng et al., arXiv 1711.06753; mmpose's `WingLoss` with `omega=10, epsilon=2`.

    See also:
        pose_l1: in units of the size of the object
    """
    x = (pred[..., :2] - target[..., :2]).abs()
    below = w * (x.clamp_max(w) / epsilon).log1p()
    return torch.where(x < w, below, x - w + w * math.log1p(w / epsilon)).sum(-1)


@declares(
    "pose",
    KeypointLoss,
    "wing",
    aliases=("wingloss", "wing_loss"),
    source="arXiv 1711.06753; mmpose",
    summary="Wing loss in pixels: small errors have a larger gradient than in L1 loss",
)
class WingLoss(KeypointLoss):
    """Wing loss of keypoints, in pixels: a logarithm for small errors, L1 loss for large ones."""

    formula: ClassVar[Formula] = staticmethod(wing_loss)
    w: float
    epsilon: float
    in_pixels: ClassVar[bool] = True
