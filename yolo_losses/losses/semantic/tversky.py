"""Tversky and focal Tversky loss of a softmax over classes."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.semantic._base import CLASSES, RegionLoss, overlaps
from yolo_losses.registry.parameters import Param


@loss_function(CLASSES)
def softmax_tversky_loss(
    logits: Tensor,
    targets: Tensor,
    alpha: Annotated[float, Param("weight of false positives", low=0)] = 0.3,
    beta: Annotated[float, Param("weight of false negatives", low=0)] = 0.7,
    gamma: Annotated[float, Param("1 is Tversky; above 1 (4/3) classes that overlap well count more", above=0)] = 1.0,
    *,
    smooth: float = 1.0,
) -> Tensor:
    """Tversky loss of a softmax over classes, per class, over all pixels of a batch; `s` is `smooth`, in pixels.

    Formula:
        L = (1 - T)^(1 / gamma)
        T = (TP + s)/(TP + alpha FP + beta FN + s)

    Args:
        logits: of the valid pixels, shape `(P, C)`.
        targets: labels, shape `(P,)`.
        alpha: weight of false positives, at least 0.
        beta: weight of false negatives, at least 0. With `alpha = beta = 0.5` and half its `smooth`, it is dice loss.
        gamma: above 0. At 1 it is Tversky loss, at 4/3 focal Tversky loss as in its paper; above 1 the gradient grows
            towards a perfect overlap.
        smooth: added to numerator and denominator, in pixels, at least 0.

    Returns:
        In [0, 1], shape `(C,)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import softmax_tversky_loss
        >>> softmax_tversky_loss(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]))
        tensor([0.1104, 0.2046])

    Source:
        Salehi et al., arXiv 1706.05721; Abraham and Khan, arXiv 1810.07842, for `gamma`.

    See also:
        dice_dice: both weights 0.5
    """
    hit, predicted, size = overlaps(logits, targets)
    index = (hit + smooth) / (hit + alpha * (predicted - hit) + beta * (size - hit) + smooth)
    loss = 1 - index
    if gamma == 1:
        return loss
    # The gradient of a root at 0 is infinite: a straight line below the smallest difference from 1.
    least = torch.finfo(loss.dtype).eps
    return torch.where(loss > least, loss.clamp_min(least) ** (1 / gamma), loss * least ** (1 / gamma - 1))


@declares(
    "dice",
    RegionLoss,
    "tversky",
    summary="Tversky and focal Tversky loss per class: Dice with weights for false positives and false negatives",
    aliases=("tversky_loss", "tverskyloss", "focal_tversky"),
    source="arXiv 1706.05721; arXiv 1810.07842",
)
class SoftmaxTverskyLoss(RegionLoss):
    """Tversky loss of a softmax over classes, the mean over all classes."""

    formula: ClassVar[Formula] = staticmethod(softmax_tversky_loss)
    alpha: float
    beta: float
    gamma: float
