"""Equalized focal loss: focal loss with a larger focusing exponent on rarer classes."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor, nn

from yolo_losses.losses._function import ELEMENTS, Formula, loss_function
from yolo_losses.losses._math import balance, balanced, negative_weight
from yolo_losses.losses.classification._base import register_cls_loss
from yolo_losses.losses.classification._equalized import EqualizedLoss, equalized
from yolo_losses.losses.classification._modulated import one_minus_p_t_and_gradient
from yolo_losses.registry.parameters import Param


@loss_function(ELEMENTS)
def equalized_focal_loss(
    logits: Tensor,
    targets: Tensor,
    pos_neg_ratio: Tensor,
    gamma: Annotated[float, Param("focusing exponent of a balanced class", low=0.1)] = 2.0,
    alpha: Annotated[
        float | None, Param("weight of positives; negatives get 1 - alpha; -1 disables it", low=-1, high=1, off=-1)
    ] = 0.25,
    scale: Annotated[float, Param("added to the exponent of a class without positive gradients", low=0)] = 8.0,
) -> Tensor:
    """Equalized focal loss, per element: focal loss whose exponent grows with the rarity of the class.

    For class `j`, `q_j` in [0, 1] is the ratio of the accumulated gradients of positives to those of negatives. The
    exponent `gamma_j` and the factor `gamma_j/gamma` are detached.

    Formula:
        L = (t alpha + (1-t) (1-alpha)) gamma_j/gamma (1-p_t)^gamma_j BCE
        gamma_j = gamma + scale (1 - q_j)

    Args:
        logits: shape `(..., C)`.
        targets: same shape, in [0, 1].
        pos_neg_ratio: `q`, the accumulated gradients of each class's positives over those of its negatives, shape
            `(C,)`, clamped to [0, 1]. At 1 the loss of the class is focal loss.
        gamma: focusing exponent of a class whose `q` is 1, at least 0.1.
        alpha: weight of positives, in [0, 1]; negatives get 1 - alpha. Below 0 or `None`: no balancing.
        scale: increase of the exponent at `q = 0`, at least 0.

    Returns:
        At least 0.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import equalized_focal_loss
        >>> logits = torch.tensor([[2.0, -1.0, 0.5]])
        >>> targets = torch.tensor([[1.0, 0.0, 0.0]])
        >>> equalized_focal_loss(logits, targets, pos_neg_ratio=torch.tensor([1.0, 0.5, 0.1]))
        tensor([[0.0005, 0.0003, 0.0429]])

    Source:
        Li et al., arXiv 2201.02593, and the authors' United-Perception, whose YOLOX configs have a scale of 4. Their
        code takes the logarithm of the probability, which is infinite in float32 at saturated logits; here it is
        finite.

    See also:
        focal: the same exponent for every class
        eqfl: the same for quality targets
    """
    bce = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    one_minus_p_t = targets * (-logits).sigmoid() + (1 - targets) * logits.sigmoid()
    return balanced(equalized(one_minus_p_t, bce, pos_neg_ratio, gamma, scale), targets, alpha)


@register_cls_loss(
    "efl",
    aliases=("equalized_focal", "equalizedfocal", "equalized_focal_loss", "equalizedfocalloss"),
    source="arXiv 2201.02593; ModelTC/United-Perception",
)
class EqualizedFocalLoss(EqualizedLoss):
    """Equalized focal loss: focal loss with a larger focusing exponent on rarer classes.

    The exponent follows the ratio of the accumulated gradients of positives and negatives, see `EqualizedLoss`.

    The authors train it with hard labels, `cls_target=hard`. The assigner's scores are small while the boxes are poor:
    in a training from scratch the positives of a rare class may then have almost no gradient, and its ratio stays at 0.
    """

    formula: ClassVar[Formula] = staticmethod(equalized_focal_loss)
    tal_warning: ClassVar[str] = (
        "efl's authors train it with hard labels, cls_target=hard: toward the assigner's scores a rare class may learn"
        " next to nothing from scratch"
    )
    gamma: float
    alpha: float
    scale: float

    def distance(self, logits: Tensor, p: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return `1 - p_t` and the derivative of its logarithm."""
        return one_minus_p_t_and_gradient(logits, p, targets)

    def balance(self, targets: Tensor) -> Tensor | float:
        """Return `t alpha + (1-t)(1-alpha)` over gamma."""
        return super().balance(targets) if self.alpha < 0 else balance(targets, self.alpha, self.gamma)

    @property
    def negative_weight(self) -> float:
        """Weight of negatives."""
        return negative_weight(self.alpha)
