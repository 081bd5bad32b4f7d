"""Binary cross entropy of the auxiliary masks, averaged over their pixels."""

from __future__ import annotations

from yolo_losses.losses._declaration import declares
from yolo_losses.losses.masks._base import MaskLoss
from yolo_losses.losses.masks.bce import MaskBCELoss


@declares(
    "sem",
    MaskLoss,
    "bce",
    aliases=("binary_cross_entropy", "bceloss"),
    source="torch BCEWithLogitsLoss",
    summary="Binary cross entropy per pixel",
)
class AuxiliaryBCELoss(MaskBCELoss):
    """Binary cross entropy of the auxiliary masks, averaged over their pixels."""
