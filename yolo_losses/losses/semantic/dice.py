"""Dice loss of a softmax over classes."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.semantic._base import CLASSES, RegionLoss, overlaps


@loss_function(CLASSES)
def softmax_dice_loss(logits: Tensor, targets: Tensor, *, smooth: float = 1.0) -> Tensor:
    """Dice loss of a softmax over classes, per class, over all pixels of a batch; `s` is `smooth`, in pixels.

    Formula:
        L = 1 - (2 TP + s)/(2 TP + FP + FN + s)

    Args:
        logits: of the valid pixels, shape `(P, C)`.
        targets: labels, shape `(P,)`.
        smooth: added to numerator and denominator, in pixels, at least 0.

    Returns:
        In [0, 1], shape `(C,)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import softmax_dice_loss
        >>> softmax_dice_loss(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]))
        tensor([0.1832, 0.2364])

    Source:
        Milletari et al., arXiv 1606.04797, without the squares in its denominator, as in Ultralytics' semantic
        segmentation, which averages over all classes, absent ones included.

    See also:
        dice_tversky: weights for false positives and false negatives
        dice_lovasz: a surrogate of the IoU
    """
    hit, predicted, size = overlaps(logits, targets)
    return 1 - (2 * hit + smooth) / (predicted + size + smooth)


@declares(
    "dice",
    RegionLoss,
    "dice",
    summary="Dice loss per class, equal to the stock loss",
    aliases=("dice_loss", "diceloss"),
    source="arXiv 1606.04797; Ultralytics",
)
class SoftmaxDiceLoss(RegionLoss):
    """Dice loss of a softmax over classes, the mean over all classes."""

    formula: ClassVar[Formula] = staticmethod(softmax_dice_loss)
