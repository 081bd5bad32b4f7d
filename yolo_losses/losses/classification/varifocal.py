"""Varifocal loss: BCE with positives weighted by their target and negatives by alpha p^gamma."""

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
def varifocal_loss(
    logits: Tensor,
    targets: Tensor,
    alpha: Annotated[float, Param("weight of negatives", low=0)] = 0.75,
    gamma: Annotated[float, Param("focusing exponent of negatives; 0 disables it", low=0)] = 2.0,
    iou_weighted: Annotated[bool, Param("weight positives by their target; False: by 1")] = True,
    detach_weight: Annotated[bool, Param("detach the weight, as in RT-DETR and DEIM")] = False,
    positive_mask: Tensor | None = None,
) -> Tensor:
    """Varifocal loss, per element: BCE with positives weighted by their target, and easy negatives weighted down.

    Formula:
        L = w BCE
        w = t if t > 0, alpha p^gamma otherwise

    Args:
        logits: any shape.
        targets: same shape, in [0, 1]: the quality (IoU or task-aligned score) at the positives, 0 elsewhere.
        alpha: weight of negatives, at least 0.
        gamma: focusing exponent of negatives, at least 0.
        iou_weighted: whether positives are weighted by their target, or by 1.
        detach_weight: whether the weight is detached.
        positive_mask: positive elements; `None`: those with a target above 0.

    Returns:
        At least 0.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import varifocal_loss
        >>> logits = torch.tensor([[2.0, -1.0, 0.5]])
        >>> targets = torch.tensor([[0.7, 0.0, 0.0]])
        >>> varifocal_loss(logits, targets)
        tensor([[0.5088, 0.0170, 0.2831]])

    Source:
        Zhang et al., arXiv 2008.13367, equal to VarifocalNet's and MMDetection's: the gradient flows through the
        weight. RT-DETR and DEIM detach it, which gives the same value and another gradient (`detach_weight`).
        Ultralytics' own `VarifocalLoss` also averages over the anchors, which makes it thousands of times smaller.

    See also:
        qfl: weights by the distance from the target
        mal: the target itself raised to a power
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
    """Varifocal loss: BCE with positives weighted by their target and negatives by alpha p^gamma."""

    formula: ClassVar[Formula] = staticmethod(varifocal_loss)
    alpha: float
    gamma: float
    iou_weighted: bool
    detach_weight: bool

    def closed_form(
        self, logits: Tensor, targets: Tensor | None, positive_mask: Tensor | None = None, **supplied: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the loss and its derivative per element."""
        if targets is None:
            return weighted_negatives(logits, self.gamma, self.alpha, self.detach_weight)
        positive = targets > 0 if positive_mask is None else positive_mask
        p = logits.sigmoid()
        value = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        focal = power_without_gradient(p, self.gamma)
        focal = focal.mul(self.alpha) if focal is p else focal.mul_(self.alpha)
        weight = torch.where(positive, targets if self.iou_weighted else 1.0, focal)
        gradient = p - targets
        if self.gamma and not self.detach_weight:
            # The derivative of p^gamma is gamma p^gamma (1 - p).
            of_weight = torch.addcmul(value, p, value, value=-1)
            gradient.add_(of_weight.masked_fill_(positive, 0), alpha=self.gamma)
        return value.mul_(weight), gradient.mul_(weight)
