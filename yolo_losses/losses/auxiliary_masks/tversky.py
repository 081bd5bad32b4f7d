"""Tversky loss of the auxiliary masks."""

from __future__ import annotations

from yolo_losses.losses._declaration import declares
from yolo_losses.losses.masks._base import MaskLoss
from yolo_losses.losses.masks.tversky import TverskyLoss


@declares(
    "sem",
    MaskLoss,
    "tversky",
    aliases=("tverskyloss", "tversky_loss"),
    source="arXiv 1706.05721; segmentation_models.pytorch",
    summary="Dice loss with separate weights for false positives and false negatives",
)
class AuxiliaryTverskyLoss(TverskyLoss):
    """Tversky loss of the auxiliary masks."""
