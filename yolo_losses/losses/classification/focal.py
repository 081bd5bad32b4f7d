"""Focal loss: BCE weighted by (1 - p_t)^gamma, which down-weights easy examples."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from torch import Tensor, nn

from yolo_losses.losses._function import ELEMENTS, Formula, loss_function
from yolo_losses.losses._math import balanced, power
from yolo_losses.losses.classification._base import ClassificationLoss, register_cls_loss
from yolo_losses.losses.classification._modulated import modulated
from yolo_losses.registry.parameters import Param


@loss_function(ELEMENTS)
def focal_loss(
    logits: Tensor,
    targets: Tensor,
    gamma: Annotated[float, Param("focusing exponent; 0 disables it", low=0)] = 1.5,
    alpha: Annotated[
        float | None, Param("weight of positives; negatives get 1 - alpha; -1 disables it", low=-1, high=1, off=-1)
    ] = 0.25,
) -> Tensor:
    """Focal loss, per element: BCE in which easy examples count less, balanced between positives and negatives.

    Formula:
        L = (t alpha + (1-t) (1-alpha)) (1-p_t)^gamma BCE

    Args:
        logits: any shape.
        targets: same shape, in [0, 1].
        gamma: focusing exponent on `1 - p_t`, at least 0; the gradient flows through the modulating factor.
        alpha: weight of positives, in [0, 1]; negatives get 1 - alpha. Below 0 or `None`: no balancing.

    Returns:
        At least 0. With soft targets it is not 0 at `p = t`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import focal_loss
        >>> logits = torch.tensor([[2.0, -1.0, 0.5]])
        >>> targets = torch.tensor([[1.0, 0.0, 0.0]])
        >>> focal_loss(logits, targets)
        tensor([[0.0013, 0.0328, 0.3588]])
        >>> focal_loss(logits, targets, gamma=0.0, alpha=None)
        tensor([[0.1269, 0.3133, 0.9741]])

    Source:
        Lin et al., arXiv 1708.02002, whose gamma is 2; 1.5 is YOLOv5's. Unlike torchvision's, fvcore's and
        MMDetection's, the gradient is finite for a gamma below 1 at saturated logits too.

    See also:
        qfl: for soft targets, 0 where the prediction equals its target
        poly: the same with one more term
        efl: a larger exponent for rare classes
    """
    bce = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p = logits.sigmoid()
    # sigmoid(-z) rather than 1 - p, which cancels at large logits.
    one_minus_p_t = targets * (-logits).sigmoid() + (1 - targets) * p
    return balanced(power(one_minus_p_t, gamma) * bce, targets, alpha)


@register_cls_loss(
    "focal",
    aliases=("focalloss", "focal_loss"),
    source="arXiv 1708.02002; YOLOv5, torchvision",
)
class FocalLoss(ClassificationLoss):
    """Focal loss: BCE weighted by (1 - p_t)^gamma, which down-weights easy examples."""

    formula: ClassVar[Formula] = staticmethod(focal_loss)
    gamma: float
    alpha: float

    def closed_form(self, logits: Tensor, targets: Tensor | None, **supplied: Any) -> tuple[Tensor, Tensor]:
        """Return the loss and its derivative per element."""
        return modulated(logits, targets, self.gamma, self.alpha)
