"""Dice loss: 1 - Dice coefficient, independent of object size."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.masks._base import MASKS, MaskLoss, foreground, ratio, register_seg_loss
from yolo_losses.registry.parameters import Param


@loss_function(MASKS)
def dice_loss(
    logits: Tensor,
    targets: Tensor,
    smooth: Annotated[float, Param("smoothing, in pixels, added to numerator and denominator", low=0)] = 1.0,
) -> Tensor:
    """Dice loss of each mask: one minus the Dice coefficient of prediction and target; `s` is `smooth`.

    Formula:
        L = 1 - (2 sum(p t) + s)/(sum(p) + sum(t) + s)

    Args:
        logits: shape `(N, H, W)`.
        targets: same shape, in [0, 1].
        smooth: `s`, in pixels, at least 0. If it is above 0, an empty prediction of an empty target has loss 0.

    Returns:
        In [0, 1], shape `(N,)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import dice_loss
        >>> logits = torch.tensor([[[4.0, -4.0], [1.0, -4.0]]])
        >>> targets = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
        >>> dice_loss(logits, targets)
        tensor([0.2094])

    Source:
        MMDetection's `DiceLoss` with `naive_dice=True` (there `s` is 1e-3), and the dice of Ultralytics' `BCEDiceLoss`.
        V-Net (arXiv 1606.04797) has squares in the denominator.

    See also:
        seg_tversky: separate weights for false positives and false negatives
        seg_bce_dice: together with BCE
    """
    overlap, predicted, size = foreground(logits, targets)
    return 1 - ratio(2 * overlap + smooth, predicted + size + smooth)


@register_seg_loss(
    "dice",
    summary="Dice loss: 1 - dice coefficient of mask and target",
    aliases=("diceloss", "dice_loss"),
    source="MMDetection DiceLoss (naive); Ultralytics",
)
class DiceLoss(MaskLoss):
    """Dice loss: 1 - Dice coefficient, independent of object size."""

    formula: ClassVar[Formula] = staticmethod(dice_loss)
    smooth: float
