"""Asymmetric loss: separate focusing exponents for positives and negatives, negatives with a margin."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from yolo_losses.losses._function import ELEMENTS, Formula, loss_function
from yolo_losses.losses._math import power_without_gradient
from yolo_losses.losses.classification._base import ClassificationLoss, register_cls_loss
from yolo_losses.registry.parameters import Param

FLOOR = 1e-8  # the authors' clamp of probabilities before the logarithm
BELOW_ONE = 1 - 2**-24  # largest float32 below 1


@loss_function(ELEMENTS)
def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    gamma_pos: Annotated[float, Param("focusing exponent of positives; 0 disables it", low=0)] = 1.0,
    gamma_neg: Annotated[float, Param("focusing exponent of negatives; 0 disables it", low=0)] = 4.0,
    shift: Annotated[float, Param("probability margin: negatives below it have no loss", low=0, high=1)] = 0.05,
    detach_weight: Annotated[bool, Param("detach the focusing weight, as in the authors' code")] = True,
) -> Tensor:
    """Asymmetric loss, per element: focal loss with an exponent for positives and one for negatives, and a margin.

    Logarithms are clamped at `log 1e-8`, where the gradient is 0: positives with a logit below -18.4 receive none, as
    in the authors' code.

    Formula:
        L = -(t log(p) + (1-t) log(1-m)) (t (1-p) + (1-t) m)^g
        m = max(p - shift, 0)
        g = t gamma_pos + (1-t) gamma_neg

    Args:
        logits: any shape.
        targets: same shape, in [0, 1].
        gamma_pos: focusing exponent of positives, at least 0.
        gamma_neg: focusing exponent of negatives, at least 0.
        shift: probability margin, in [0, 1]; negatives with p below it have no loss.
        detach_weight: whether the focusing weight is detached.

    Returns:
        At least 0, at most 18.42.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import asymmetric_loss
        >>> logits = torch.tensor([[2.0, -1.0, 0.5]])
        >>> targets = torch.tensor([[1.0, 0.0, 0.0]])
        >>> asymmetric_loss(logits, targets)
        tensor([[0.0151, 0.0006, 0.0913]])

    Source:
        Ridnik et al., arXiv 2009.14119, Alibaba-MIIL/ASL, which returns the sum and computes `log(1 - p)` from p;
        here the logarithms are taken of the logits, which keeps the precision of small losses.

    See also:
        focal: one exponent, no margin
        vfl: negatives alone are focused
    """
    margin = (logits.sigmoid() - shift).clamp_min(0)
    log_p = nn.functional.logsigmoid(logits).clamp_min(math.log(FLOOR))
    log_rest = (
        (-margin.clamp_max(BELOW_ONE)).log1p()
        if shift
        else nn.functional.logsigmoid(-logits).clamp_min(math.log(FLOOR))
    )
    distance = targets * (-logits).sigmoid() + (1 - targets) * margin
    if detach_weight:
        distance = distance.detach()
    focus = distance.clamp_min(1e-30) ** (targets * gamma_pos + (1 - targets) * gamma_neg)
    return -(targets * log_p + (1 - targets) * log_rest) * focus


@register_cls_loss(
    "asl",
    aliases=("asymmetric", "asymmetricloss", "asymmetric_loss"),
    source="arXiv 2009.14119; Alibaba-MIIL/ASL",
)
class AsymmetricLoss(ClassificationLoss):
    """Asymmetric loss: separate focusing exponents for positives and negatives, negatives with a margin."""

    formula: ClassVar[Formula] = staticmethod(asymmetric_loss)
    gamma_pos: float
    gamma_neg: float
    shift: float
    detach_weight: bool

    def closed_form(self, logits: Tensor, targets: Tensor | None, **supplied: Any) -> tuple[Tensor, Tensor]:
        """Return the loss and its derivative per element."""
        if targets is None:
            return self._negatives(logits)
        lowest = math.log(FLOOR)
        p, rest = logits.sigmoid(), logits.neg().sigmoid_()
        margin = (p - self.shift).clamp_min_(0) if self.shift else p
        p_gradient = p * rest
        live = margin > 0
        log_p = nn.functional.logsigmoid(logits)
        if self.shift:
            below = margin.clamp_max(BELOW_ONE)
            log_rest, gradient_rest = below.neg().log1p_(), p_gradient / (1 - below) * live
        else:
            log_rest = nn.functional.logsigmoid(-logits)
            gradient_rest = p * (log_rest > lowest)
            log_rest = log_rest.clamp_min(lowest)
        # That of positives is -(1 - p) where the logarithm is not clamped, that of negatives the one of -log(1 - m).
        gradient = torch.lerp(gradient_rest, -rest * (log_p > lowest), targets)
        value = -torch.lerp(log_rest, log_p.clamp_min(lowest), targets)
        distance = torch.lerp(margin, rest, targets).clamp_min(1e-30)
        exponent = targets * (self.gamma_pos - self.gamma_neg) + self.gamma_neg
        focus = distance**exponent
        gradient = gradient * focus
        value = value * focus
        if not self.detach_weight:
            gradient += value * exponent * torch.lerp(p_gradient * live, -p_gradient, targets) / distance
        return value, gradient

    def _negatives(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return `-log(1-m) m^gamma_neg` and its derivative."""
        p = logits.sigmoid()
        p_gradient = torch.addcmul(p, p, p, value=-1)
        if self.shift:
            margin = (p - self.shift).clamp_(0, BELOW_ONE)
            loss = margin.neg().log1p_().neg_()
            gradient = p_gradient / (1 - margin)
            if self.gamma_neg < 1:
                gradient.mul_(margin > 0)
        else:
            margin = p
            loss = nn.functional.softplus(logits)
            gradient = p * (loss < -math.log(FLOOR))
            loss.clamp_max_(-math.log(FLOOR))
        focus = power_without_gradient(margin, self.gamma_neg)
        if self.gamma_neg and not self.detach_weight:
            # loss / m tends to 1 at m = 0, so that this is finite for exponents below 1 too.
            gradient.add_(loss / margin.clamp_min(1e-30) * p_gradient.mul_(margin > 0), alpha=self.gamma_neg)
        return loss.mul_(focus), gradient.mul_(focus)
