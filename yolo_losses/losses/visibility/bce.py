"""Binary cross entropy of the keypoints' visibility, equal to the stock loss."""

from __future__ import annotations

from typing import ClassVar

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Formula
from yolo_losses.losses.classification.bce import bce_loss
from yolo_losses.losses.visibility._base import VisibilityLoss


@declares(
    "kobj",
    VisibilityLoss,
    "bce",
    aliases=("binary_cross_entropy", "bceloss"),
    source="torch BCEWithLogitsLoss",
    summary="Binary cross entropy with logits, equal to the stock loss",
)
class VisibilityBCELoss(VisibilityLoss):
    """Binary cross entropy of the keypoints' visibility, equal to the stock loss up to float32 rounding."""

    formula: ClassVar[Formula] = staticmethod(bce_loss)
