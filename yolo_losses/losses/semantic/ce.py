"""Cross-entropy of a softmax over classes, per pixel."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.semantic._base import PIXELS, PixelLoss, log_probability, weighted


@loss_function(PIXELS)
def pixel_cross_entropy_loss(logits: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of a softmax over classes, per pixel.

    Formula:
        L = -w log(p_y)

    Args:
        logits: of the valid pixels, shape `(P, C)`.
        targets: labels, shape `(P,)`.
        class_weights: one for each class, shape `(C,)`.

    Returns:
        At least 0, shape `(P,)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import pixel_cross_entropy_loss
        >>> pixel_cross_entropy_loss(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]))
        tensor([0.1269, 0.6931])

    Source:
        `torch.nn.functional.cross_entropy`, which divides a weighted mean by the sum of the labels' weights: pass that
        as `avg_factor`.

    See also:
        ce_focal: easy pixels weighted down
        ce_ohem: the hard pixels only
    """
    return weighted(-log_probability(logits, targets), targets, class_weights)


@declares(
    "ce",
    PixelLoss,
    "ce",
    summary="Cross-entropy per pixel, equal to the stock loss",
    aliases=("cross_entropy", "crossentropy", "softmax"),
    source="torch.nn.functional.cross_entropy",
)
class PixelCrossEntropyLoss(PixelLoss):
    """Cross-entropy of a softmax over classes, per pixel."""

    formula: ClassVar[Formula] = staticmethod(pixel_cross_entropy_loss)
