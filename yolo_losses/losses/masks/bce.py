"""Binary cross entropy per pixel, the mask loss that Ultralytics uses."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from yolo_losses.losses._module import Formula, with_reduction
from yolo_losses.losses.classification.bce import bce_loss
from yolo_losses.losses.masks._base import MaskLoss, pixel_mean, pixels, register_seg_loss


@with_reduction
def mask_bce_loss(logits: Tensor, targets: Tensor, area: Tensor | None = None) -> Tensor:
    """Binary cross entropy with logits, averaged over the pixels of each mask.

    Formula:
        L = sum(BCE)/N

    Args:
        logits: shape `(N, H, W)`.
        targets: same shape, in [0, 1].
        area: the share of the grid that each mask's box covers, shape `(N,)`, where all outside the box is certain
            background; the mean is divided by it. `None`: the mean over the grid.
        weight: per mask.
        reduction: `none`, `mean` or `sum`.
        avg_factor: divisor of `mean`, in place of the number of masks.

    Returns:
        At least 0, shape `(N,)`.

    Source:
        Ultralytics' `v8SegmentationLoss.single_mask_loss`.

    See also:
        seg_bce_dice: together with dice
    """
    return pixel_mean(bce_loss(*pixels(logits, targets)), area)


@register_seg_loss(
    "bce",
    summary="Binary cross entropy per pixel, equal to the stock loss",
    aliases=("binary_cross_entropy", "bceloss"),
    source="Ultralytics v8SegmentationLoss",
)
class MaskBCELoss(MaskLoss):
    """Binary cross entropy per pixel, equal to stock to float32 rounding."""

    formula: ClassVar[Formula] = staticmethod(mask_bce_loss)
