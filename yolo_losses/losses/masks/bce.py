"""Binary cross entropy per pixel, the mask loss that Ultralytics uses."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.classification.bce import bce_loss
from yolo_losses.losses.masks._base import MASKS, MaskLoss, pixel_mean, register_seg_loss


@loss_function(MASKS)
def mask_bce_loss(logits: Tensor, targets: Tensor, area: Tensor | None = None) -> Tensor:
    """Binary cross entropy with logits, averaged over the pixels of each mask.

    Formula:
        L = sum(BCE)/N

    Args:
        logits: shape `(N, H, W)`.
        targets: same shape, in [0, 1].
        area: the share of the grid that each mask's box covers, shape `(N,)`, for masks cropped to their boxes, whose
            loss outside is 0; the mean is divided by it. `None`: the mean over the grid.

    Returns:
        At least 0, shape `(N,)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import mask_bce_loss
        >>> logits = torch.tensor([[[4.0, -4.0], [1.0, -4.0]]])
        >>> targets = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
        >>> mask_bce_loss(logits, targets)
        tensor([0.3419])

    Source:
        Ultralytics' `v8SegmentationLoss.single_mask_loss`.

    See also:
        seg_bce_dice: together with dice
    """
    return pixel_mean(bce_loss(logits.flatten(1), targets.flatten(1)), area)


@register_seg_loss(
    "bce",
    summary="Binary cross entropy per pixel, equal to the stock loss",
    aliases=("binary_cross_entropy", "bceloss"),
    source="Ultralytics v8SegmentationLoss",
)
class MaskBCELoss(MaskLoss):
    """Binary cross entropy per pixel, equal to the stock loss up to float32 rounding."""

    formula: ClassVar[Formula] = staticmethod(mask_bce_loss)
