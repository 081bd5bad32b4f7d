"""Varifocal loss: positives count by their quality, negatives by how wrong they are."""

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
def varifocal_loss(
    logits: Tensor,
    targets: Tensor,
    alpha: Annotated[float, Param("weight of the negatives", low=0)] = 0.75,
    gamma: Annotated[float, Param("how much easy negatives are played down", low=0)] = 2.0,
    iou_weighted: Annotated[bool, Param("weigh positives by their target; False: by 1")] = True,
    detach_weight: Annotated[bool, Param("no gradient through the weight, as RT-DETR and DEIM have it")] = False,
    positive_mask: Tensor | None = None,
) -> Tensor:
    """Varifocal loss, one value an element: BCE times the target where positive, times `alpha p^gamma` where not.

    Args:
        logits: any shape.
        targets: same shape, in [0, 1]: the quality (IoU or task-aligned score) at the positives, 0 elsewhere.
        alpha: weight of the negatives, at least 0.
        gamma: exponent on the negatives' probability, at least 0.
        iou_weighted: whether a positive counts by its target; otherwise by 1.
        detach_weight: whether the weight is taken as a constant.
        positive_mask: which elements are positive; `None`: those whose target is above 0.
        weight: of the logits' shape, of its leading dimensions, or flat.
        reduction: `none`, `mean` or `sum`.
        avg_factor: what `mean` divides by in place of the number of elements.

    Returns:
        At least 0.

    Source:
        Zhang et al., arXiv 2008.13367, as VarifocalNet and MMDetection have it: gradient flows through the weight.
        Ultralytics' own `VarifocalLoss` averages over the anchors as well.
    """
    bce = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    positive = targets > 0 if positive_mask is None else positive_mask
    p = logits.sigmoid()
    focal = alpha * power(p.detach() if detach_weight else p, gamma)
    return torch.where(positive, targets if iou_weighted else torch.ones_like(targets), focal) * bce


@register_cls_loss(
    "vfl",
    aliases=("varifocal", "varifocalloss", "varifocal_loss"),
    source="arXiv 2008.13367; VarifocalNet, MMDetection",
)
class VarifocalLoss(ClassificationLoss):
    """Varifocal loss: positives count by their quality, negatives by how wrong they are."""

    formula: ClassVar[Formula] = staticmethod(varifocal_loss)
    alpha: float
    gamma: float
    detach_weight: bool

    def background(self, logits: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return `alpha p^gamma softplus(z)` and its derivative."""
        return modulated_background(logits, self.gamma, self.alpha, self.detach_weight, out=out)
