"""Matchability-aware loss: positives train toward a power of their IoU at full weight."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from yolo_losses.classification._base import ClassificationLoss, register_cls_loss
from yolo_losses.classification._modulated import modulated_background
from yolo_losses.formula import Formula, with_reduction
from yolo_losses.numerics import power
from yolo_losses.parameters import Param


@with_reduction
def matchability_loss(
    logits: Tensor,
    quality: Tensor,
    gamma: Annotated[float, Param("exponent on the quality and on the negatives' probability", low=0)] = 1.5,
    positive_mask: Tensor | None = None,
) -> Tensor:
    """Matchability-aware loss, one value an element: BCE against `q^gamma`, weighed by `p^gamma` off the positives.

    Args:
        logits: any shape.
        quality: same shape: the IoU, in [0, 1], at the positives, 0 elsewhere.
        gamma: exponent on the quality and on the negatives' probability, at least 0.
        positive_mask: which elements are positive; `None`: those whose quality is above 0.
        weight: of the logits' shape, of its leading dimensions, or flat.
        reduction: `none`, `mean` or `sum`.
        avg_factor: what `mean` divides by in place of the number of elements.

    Returns:
        At least 0. The weight is taken as a constant, and is 1 at the positives.

    Source:
        Huang et al. (DEIM), arXiv 2412.04234. A positive of quality 0 stays a positive only where `positive_mask`
        says so.
    """
    positive = quality > 0 if positive_mask is None else positive_mask
    target = torch.where(positive, power(quality, gamma), 0)
    weight = torch.where(positive, 1, power(logits.detach().sigmoid(), gamma))
    return weight * nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")


@register_cls_loss(
    "mal", aliases=("matchability", "matchability_loss", "malloss", "mal_loss"), source="arXiv 2412.04234; DEIM"
)
class MatchabilityLoss(ClassificationLoss):
    """Matchability-aware loss: positives train toward a power of their IoU at full weight."""

    formula: ClassVar[Formula] = staticmethod(matchability_loss)
    default_target: ClassVar[str] = "iou"
    one2one_warning: ClassVar[str] = (
        "mal on a one-to-one branch: a published run on YOLO26n lost 4 AP by it; loss_branches=one2many leaves it out"
    )
    gamma: float

    def background(self, logits: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return `p^gamma softplus(z)` and its derivative, the weight taken as a constant."""
        return modulated_background(logits, self.gamma, detached=True, out=out)
