"""Focal loss of a softmax over classes, per pixel."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses._math import power
from yolo_losses.losses.semantic._base import PIXELS, PixelLoss, log_probability, weighted
from yolo_losses.registry.parameters import Param


@loss_function(PIXELS)
def pixel_focal_loss(
    logits: Tensor,
    targets: Tensor,
    gamma: Annotated[float, Param("focusing exponent; 0 disables it", low=0)] = 2.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Focal loss of a softmax over classes, per pixel: cross-entropy with easy pixels weighted down.

    Formula:
        L = -w (1-p_y)^gamma log(p_y)

    Args:
        logits: of the valid pixels, shape `(P, C)`.
        targets: labels, shape `(P,)`.
        gamma: exponent, at least 0. At 0 it is cross-entropy.
        class_weights: one for each class, shape `(C,)`.

    Returns:
        At least 0, shape `(P,)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import pixel_focal_loss
        >>> pixel_focal_loss(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]))
        tensor([0.0018, 0.1733])

    Source:
        Lin et al., arXiv 1708.02002, whose formula is for a sigmoid; for a softmax as kornia's `focal_loss` with
        `alpha=None`.

    See also:
        ce_ce: the same with gamma 0
        ce_ohem: the hard pixels only
    """
    log_p = log_probability(logits, targets)
    # -expm1(log p) keeps the digits of 1 - p near p = 1.
    return weighted(-power(-log_p.expm1(), gamma) * log_p, targets, class_weights)


@declares(
    "ce",
    PixelLoss,
    "focal",
    summary="Focal loss per pixel: easy pixels are weighted down",
    aliases=("focal_loss", "focalloss", "softmax_focal"),
    source="arXiv 1708.02002; kornia",
)
class PixelFocalLoss(PixelLoss):
    """Focal loss of a softmax over classes, per pixel."""

    formula: ClassVar[Formula] = staticmethod(pixel_focal_loss)
    gamma: float
