"""Focal loss of the keypoints' visibility."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import ELEMENTS, Formula, loss_function
from yolo_losses.losses.classification.focal import focal_loss
from yolo_losses.losses.visibility._base import VisibilityLoss
from yolo_losses.registry.parameters import Param


@loss_function(ELEMENTS)
def visibility_focal_loss(
    logits: Tensor,
    targets: Tensor,
    gamma: Annotated[float, Param("focusing exponent; 0 disables it", low=0)] = 1.5,
    alpha: Annotated[
        float | None,
        Param("weight of visible keypoints; hidden ones get 1 - alpha; -1 disables it", low=-1, high=1, off=-1),
    ] = -1.0,
) -> Tensor:
    """Focal loss, per keypoint: BCE of its visibility in which easy keypoints count less.

    Formula:
        L = (t alpha + (1-t) (1-alpha)) (1-p_t)^gamma BCE

    Args:
        logits: any shape, one per keypoint.
        targets: same shape, 1 for a visible keypoint and 0 for a hidden one.
        gamma: focusing exponent on `1 - p_t`, at least 0.
        alpha: weight of visible keypoints, in [0, 1]; hidden ones get 1 - alpha. Below 0 or `None`: no balancing.

    Returns:
        At least 0, of the logits' shape.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import visibility_focal_loss
        >>> visibility_focal_loss(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0]))
        tensor([0.0052, 0.2451])

    Source:
        Lin et al., arXiv 1708.02002, with other defaults: in detection, alpha balances positives against thousands of
        negatives, which there are none of here.

    See also:
        kobj_bce: without the focusing
    """
    loss: Tensor = focal_loss(logits, targets, gamma, alpha)
    return loss


@declares(
    "kobj",
    VisibilityLoss,
    "focal",
    aliases=("focal_loss", "focalloss"),
    source="arXiv 1708.02002",
    summary="Focal loss: BCE weighted by (1 - p_t)^gamma, which down-weights easy keypoints",
)
class VisibilityFocalLoss(VisibilityLoss):
    """Focal loss of the keypoints' visibility."""

    formula: ClassVar[Formula] = staticmethod(visibility_focal_loss)
    gamma: float
    alpha: float
