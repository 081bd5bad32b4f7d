"""Focal loss per pixel: BCE per pixel weighted by (1 - p_t)^gamma."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.classification.focal import focal_loss
from yolo_losses.losses.masks._base import MASKS, MaskLoss, pixel_mean, register_seg_loss
from yolo_losses.registry.parameters import Param


@loss_function(MASKS)
def mask_focal_loss(
    logits: Tensor,
    targets: Tensor,
    gamma: Annotated[float, Param("focusing exponent; 0 disables it", low=0)] = 1.5,
    alpha: Annotated[
        float | None, Param("weight of foreground; background gets 1 - alpha; -1 disables it", low=-1, high=1, off=-1)
    ] = 0.25,
    area: Tensor | None = None,
) -> Tensor:
    """Focal loss averaged over the pixels of each mask.

    Formula:
        L = sum((t alpha + (1-t) (1-alpha)) (1-p_t)^gamma BCE)/N

    Args:
        logits: shape `(N, H, W)`.
        targets: same shape, in [0, 1].
        gamma: focusing exponent, at least 0.
        alpha: weight of foreground, in [0, 1]; background gets 1 - alpha. Below 0 or `None`: no balancing.
        area: the share of the grid that each mask's box covers, shape `(N,)`, for masks cropped to their boxes, whose
            loss outside is 0; the mean is divided by it. `None`: the mean over the grid.

    Returns:
        At least 0, shape `(N,)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import mask_focal_loss
        >>> logits = torch.tensor([[[4.0, -4.0], [1.0, -4.0]]])
        >>> targets = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
        >>> mask_focal_loss(logits, targets)
        tensor([0.1539])

    Source:
        Lin et al., arXiv 1708.02002, per pixel as `focal_loss` is per element.

    See also:
        seg_bce: without the focusing
    """
    return pixel_mean(focal_loss(logits.flatten(1), targets.flatten(1), gamma, alpha), area)


@register_seg_loss(
    "focal",
    summary="Focal loss per pixel: BCE weighted by (1 - p_t)^gamma",
    aliases=("focalloss", "focal_loss"),
    source="arXiv 1708.02002; torchvision",
)
class MaskFocalLoss(MaskLoss):
    """Focal loss per pixel: BCE per pixel weighted by (1 - p_t)^gamma."""

    formula: ClassVar[Formula] = staticmethod(mask_focal_loss)
    gamma: float
    alpha: float
