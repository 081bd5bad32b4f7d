"""Binary cross entropy and dice loss together."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.masks._base import MASKS, MaskLoss, register_seg_loss
from yolo_losses.losses.masks.bce import mask_bce_loss
from yolo_losses.losses.masks.dice import dice_loss
from yolo_losses.registry.parameters import Param


@loss_function(MASKS)
def bce_dice_loss(
    logits: Tensor,
    targets: Tensor,
    ratio: Annotated[float, Param("weight of the dice term; BCE gets 1 - ratio", low=0, high=1)] = 0.5,
    smooth: Annotated[float, Param("smoothing of the dice term, in pixels", low=0)] = 1.0,
    area: Tensor | None = None,
) -> Tensor:
    """Weighted mean of BCE (averaged over the pixels) and dice loss, per mask; `s` is `smooth`.

    Formula:
        L = ratio dice + (1-ratio) sum(BCE)/N
        dice = 1 - (2 sum(p t) + s)/(sum(p) + sum(t) + s)

    Args:
        logits: shape `(N, H, W)`.
        targets: same shape, in [0, 1].
        ratio: weight of the dice term, in [0, 1]; BCE gets 1 - ratio.
        smooth: as in `dice_loss`.
        area: the share of the grid that each mask's box covers, shape `(N,)`, for masks cropped to their boxes, whose
            loss outside is 0; BCE's mean is divided by it. `None`: the mean over the grid.

    Returns:
        At least 0, shape `(N,)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import bce_dice_loss
        >>> logits = torch.tensor([[[4.0, -4.0], [1.0, -4.0]]])
        >>> targets = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
        >>> bce_dice_loss(logits, targets)
        tensor([0.2757])

    Source:
        Ultralytics' `BCEDiceLoss`, which averages over channels too.

    See also:
        seg_bce: BCE alone
        seg_dice: dice alone
    """
    return ratio * dice_loss(logits, targets, smooth) + (1 - ratio) * mask_bce_loss(logits, targets, area)


@register_seg_loss(
    "bce_dice",
    summary="Weighted sum of binary cross entropy and dice loss",
    aliases=("bcedice", "bcediceloss", "dice_bce"),
    source="Ultralytics BCEDiceLoss",
)
class BCEDiceLoss(MaskLoss):
    """Binary cross entropy and dice loss together."""

    formula: ClassVar[Formula] = staticmethod(bce_dice_loss)
    ratio: float
    smooth: float
