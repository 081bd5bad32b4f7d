"""Binary cross entropy and dice loss of the auxiliary masks, equal to the stock loss up to float32 rounding."""

from __future__ import annotations

from yolo_losses.losses._declaration import declares
from yolo_losses.losses.masks._base import MaskLoss
from yolo_losses.losses.masks.bce_dice import BCEDiceLoss


@declares(
    "sem",
    MaskLoss,
    "bce_dice",
    aliases=("bcedice", "bcediceloss", "dice_bce"),
    source="Ultralytics BCEDiceLoss",
    summary="Weighted sum of binary cross entropy and dice loss, equal to the stock loss",
)
class AuxiliaryBCEDiceLoss(BCEDiceLoss):
    """Binary cross entropy and dice loss of the auxiliary masks, equal to the stock loss up to float32 rounding."""
