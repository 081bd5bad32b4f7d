"""Quality focal loss: BCE toward a soft quality target, weighted by |t - p|^beta."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from yolo_losses.losses._function import ELEMENTS, Formula, loss_function
from yolo_losses.losses._math import balance, balanced, power
from yolo_losses.losses.classification._base import ClassificationLoss, register_cls_loss
from yolo_losses.losses.classification._modulated import modulated
from yolo_losses.registry.parameters import Param


@loss_function(ELEMENTS)
def quality_focal_loss(
    logits: Tensor,
    targets: Tensor,
    beta: Annotated[float, Param("focusing exponent on |t - p|; 0 disables it", low=0)] = 2.0,
    alpha: Annotated[
        float | None, Param("weight of positives; negatives get 1 - alpha; -1 disables it", low=-1, high=1, off=-1)
    ] = None,
) -> Tensor:
    """Quality focal loss, per element: BCE weighted by the distance from a soft target; nothing is detached.

    Formula:
        L = |t - p|^beta BCE

    Args:
        logits: any shape.
        targets: same shape, in [0, 1]: the quality at the positives, 0 elsewhere.
        beta: focusing exponent, at least 0.
        alpha: weight of positives, in [0, 1]: the loss is multiplied by `t alpha + (1-t)(1-alpha)`, as in YOLOv5's
            `QFocalLoss`. Below 0 or `None`: no balancing.

    Returns:
        At least 0; 0 at `p = t`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import quality_focal_loss
        >>> logits = torch.tensor([[2.0, -1.0, 0.5]])
        >>> targets = torch.tensor([[0.7, 0.0, 0.0]])
        >>> quality_focal_loss(logits, targets)
        tensor([[0.0238, 0.0227, 0.3774]])

    Source:
        Li et al., arXiv 2006.04388, equal to MMDetection's. The authors' first code lacks the absolute value.

    See also:
        focal: for hard labels
        vfl: weights positives by their target instead
        eqfl: a larger exponent for rare classes
    """
    bce = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return balanced(power((targets - logits.sigmoid()).abs(), beta) * bce, targets, alpha)


@register_cls_loss(
    "qfl",
    aliases=("qualityfocal", "quality_focal", "qualityfocalloss", "quality_focal_loss"),
    source="arXiv 2006.04388; MMDetection",
)
class QualityFocalLoss(ClassificationLoss):
    """Quality focal loss: BCE toward a soft quality target, weighted by |t - p|^beta."""

    formula: ClassVar[Formula] = staticmethod(quality_focal_loss)
    default_target: ClassVar[str] = "iou"
    beta: float
    alpha: float

    def closed_form(self, logits: Tensor, targets: Tensor | None, **supplied: Any) -> tuple[Tensor, Tensor]:
        """Return the loss and its derivative per element."""
        if targets is None:
            return modulated(logits, None, self.beta, self.alpha)
        p = logits.sigmoid()
        gap = p - targets
        value = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        if not self.beta:
            gradient = gap
        else:
            if self.beta < 1:  # the derivative at 0 is infinite
                gap = gap.abs().clamp_min_(torch.finfo(p.dtype).tiny).copysign_(gap)
            # With d = p - t and s = |d|^(beta - 1) sign(d): the loss is s d BCE, its derivative
            # s (d^2 + beta p (1 - p) BCE).
            scale = gap if self.beta == 2 else gap.abs().pow_(self.beta - 1).copysign_(gap)
            square, spread = gap * gap, torch.addcmul(p, p, p, value=-1)
            gradient = torch.addcmul(square, spread, value, value=self.beta).mul_(scale)
            value.mul_(square if self.beta == 2 else scale * gap)
        if self.alpha >= 0:
            weight = balance(targets, self.alpha)
            value.mul_(weight)
            gradient.mul_(weight)
        return value, gradient
