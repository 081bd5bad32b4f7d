"""Dice loss of the auxiliary masks."""

from __future__ import annotations

from yolo_losses.losses._declaration import declares
from yolo_losses.losses.masks._base import MaskLoss
from yolo_losses.losses.masks.dice import DiceLoss


@declares(
    "sem",
    MaskLoss,
    "dice",
    aliases=("diceloss", "dice_loss"),
    source="Ultralytics MultiChannelDiceLoss",
    summary="Dice loss: 1 - dice coefficient of mask and target",
)
class AuxiliaryDiceLoss(DiceLoss):
    """Dice loss of the auxiliary masks."""
