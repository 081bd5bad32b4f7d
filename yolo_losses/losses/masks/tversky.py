"""Tversky loss: dice loss with separate weights for false positives and false negatives."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses._math import power
from yolo_losses.losses.masks._base import MASKS, MaskLoss, ratio, register_seg_loss
from yolo_losses.registry.parameters import Param


@loss_function(MASKS)
def tversky_loss(
    logits: Tensor,
    targets: Tensor,
    alpha: Annotated[float, Param("weight of false positives", low=0)] = 0.3,
    beta: Annotated[float, Param("weight of false negatives", low=0)] = 0.7,
    smooth: Annotated[float, Param("smoothing, in pixels, added to numerator and denominator", low=0)] = 1.0,
    gamma: Annotated[float, Param("1 is Tversky; above 1 (4/3) masks that overlap well count more", above=0)] = 1.0,
) -> Tensor:
    """Tversky loss of each mask: dice loss with weights of false positives and false negatives; `s` is `smooth`.

    Formula:
        L = (1 - T)^(1/gamma)
        T = (TP + s)/(TP + alpha FP + beta FN + s)
        TP = sum(p t)
        FP = sum(p (1-t))
        FN = sum((1-p) t)

    Args:
        logits: shape `(N, H, W)`.
        targets: same shape, in [0, 1].
        alpha: weight of false positives, at least 0.
        beta: weight of false negatives, at least 0. With `alpha = beta = 0.5` and half its `smooth`, it is dice loss.
        smooth: `s`, in pixels, at least 0. If it is above 0, an empty prediction of an empty target has loss 0.
        gamma: of focal Tversky loss, above 0; 1 is Tversky loss. Above 1 the gradient grows without bound towards a
            perfect mask; there it is 0.

    Returns:
        In [0, 1], shape `(N,)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import tversky_loss
        >>> logits = torch.tensor([[[4.0, -4.0], [1.0, -4.0]]])
        >>> targets = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
        >>> tversky_loss(logits, targets)
        tensor([0.1091])
        >>> tversky_loss(logits, targets, gamma=4 / 3)
        tensor([0.1898])

    Source:
        Salehi et al., arXiv 1706.05721; `alpha` and `beta` as there and in segmentation_models.pytorch's
        `TverskyLoss`, which computes one index over all masks of a batch, and no loss for empty targets. Focal Tversky
        loss: Abraham and Khan, arXiv 1810.07842, with a gamma of 4/3; their Keras code has the exponent 0.75, its
        inverse, and `alpha` on the false negatives.

    See also:
        seg_dice: both weights 0.5
    """
    z, t = logits.flatten(1), targets.flatten(1)
    p = z.sigmoid()
    true_positives = (p * t).sum(1)
    false_positives = (p * (1 - t)).sum(1)
    false_negatives = ((-z).sigmoid() * t).sum(1)
    index = ratio(true_positives + smooth, true_positives + alpha * false_positives + beta * false_negatives + smooth)
    return 1 - index if gamma == 1 else power((1 - index).clamp_min(0), 1 / gamma)


@register_seg_loss(
    "tversky",
    aliases=("tverskyloss", "tversky_loss"),
    source="arXiv 1706.05721, arXiv 1810.07842; segmentation_models.pytorch",
)
class TverskyLoss(MaskLoss):
    """Tversky loss: dice loss with separate weights for false positives and false negatives."""

    formula: ClassVar[Formula] = staticmethod(tversky_loss)
    alpha: float
    beta: float
    smooth: float
    gamma: float
