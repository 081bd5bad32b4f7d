"""Focal loss of the auxiliary masks, averaged over their pixels."""

from __future__ import annotations

from yolo_losses.losses._declaration import declares
from yolo_losses.losses.masks._base import MaskLoss
from yolo_losses.losses.masks.focal import MaskFocalLoss


@declares(
    "sem",
    MaskLoss,
    "focal",
    aliases=("focalloss", "focal_loss"),
    source="arXiv 1708.02002; torchvision",
    summary="Focal loss per pixel: BCE weighted by (1 - p_t)^gamma",
)
class AuxiliaryFocalLoss(MaskFocalLoss):
    """Focal loss of the auxiliary masks, averaged over their pixels."""
