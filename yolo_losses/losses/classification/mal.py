"""Matchability-aware loss: BCE toward IoU^gamma, with negatives weighted by p^gamma."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from yolo_losses.losses._function import ELEMENTS, Formula, loss_function
from yolo_losses.losses._math import power, power_without_gradient
from yolo_losses.losses.classification._base import ClassificationLoss, register_cls_loss
from yolo_losses.losses.classification._modulated import weighted_negatives
from yolo_losses.registry.parameters import Param


@loss_function(ELEMENTS)
def matchability_loss(
    logits: Tensor,
    quality: Tensor,
    gamma: Annotated[
        float, Param("exponent of the target IoU^gamma and of the negatives' weight p^gamma", low=0)
    ] = 1.5,
    positive_mask: Tensor | None = None,
) -> Tensor:
    """Matchability-aware loss, per element: BCE toward a power of the quality `q`, with easy negatives weighted down.

    The weight is detached.

    Formula:
        L = -w (y log(p) + (1-y) log(1-p))
        y = q^gamma
        w = 1 if q > 0, p^gamma otherwise

    Args:
        logits: any shape.
        quality: same shape: the IoU, in [0, 1], at the positives, 0 elsewhere.
        gamma: exponent of the quality and of the negatives' weight, at least 0.
        positive_mask: positive elements; `None`: those with a quality above 0.

    Returns:
        At least 0.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import matchability_loss
        >>> logits = torch.tensor([[2.0, -1.0, 0.5]])
        >>> quality = torch.tensor([[0.7, 0.0, 0.0]])
        >>> matchability_loss(logits, quality)
        tensor([[0.9556, 0.0437, 0.4784]])

    Source:
        Huang et al. (DEIM), arXiv 2412.04234. A positive of quality 0 stays a positive only where `positive_mask`
        says so.

    See also:
        vfl: weights positives by their target
        qfl: weights positives and negatives by their distance from the target
    """
    positive = quality > 0 if positive_mask is None else positive_mask
    target = torch.where(positive, power(quality, gamma), 0)
    weight = torch.where(positive, 1, power(logits.detach().sigmoid(), gamma))
    return weight * nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")


@register_cls_loss(
    "mal",
    aliases=("matchability", "matchability_loss", "malloss", "mal_loss"),
    source="arXiv 2412.04234; DEIM",
)
class MatchabilityLoss(ClassificationLoss):
    """Matchability-aware loss: BCE toward IoU^gamma, with negatives weighted by p^gamma."""

    formula: ClassVar[Formula] = staticmethod(matchability_loss)
    default_target: ClassVar[str] = "iou"
    one2one_warning: ClassVar[str] = (
        "mal on a one-to-one branch: a published YOLO26n run lost 4 AP; loss_branches=one2many excludes that branch"
    )
    gamma: float

    def closed_form(
        self, logits: Tensor, targets: Tensor | None, positive_mask: Tensor | None = None, **supplied: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the loss and its derivative per element."""
        if targets is None:
            return weighted_negatives(logits, self.gamma, detached=True)
        positive = targets > 0 if positive_mask is None else positive_mask
        target = power_without_gradient(targets, self.gamma) if self.gamma else positive.to(targets.dtype)
        p = logits.sigmoid()
        weight = power_without_gradient(p, self.gamma).masked_fill(positive, 1)
        value = nn.functional.binary_cross_entropy_with_logits(logits, target, weight, reduction="none")
        return value, (p - target).mul_(weight)
