"""Poly focal loss: focal loss with the first term of its expansion weighted up."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.classification._base import ClassificationLoss, register_cls_loss
from yolo_losses.classification._modulated import modulated_background
from yolo_losses.classification.focal import focal_loss
from yolo_losses.formula import Formula, with_reduction
from yolo_losses.numerics import power
from yolo_losses.parameters import Param


@with_reduction
def poly_focal_loss(
    logits: Tensor,
    targets: Tensor,
    epsilon: Annotated[float, Param("weight of the added term; 0: focal loss", low=-1)] = 1.0,
    gamma: Annotated[float, Param("how much easy examples are played down; 0: not at all", low=0)] = 2.0,
    alpha: Annotated[float | None, Param("share of the positives; -1: no balance", low=-1, high=1, off=-1)] = 0.25,
) -> Tensor:
    """Poly focal loss, one value an element: focal loss plus `epsilon (1-p_t)^(gamma+1)`, gradient through it all.

    Args:
        logits: any shape.
        targets: same shape, in [0, 1].
        epsilon: weight of the added term, at least -1.
        gamma: exponent on `1 - p_t`, at least 0.
        alpha: balance of positives against negatives in the focal part, in [0, 1]; below 0 or `None`: none.
        weight: of the logits' shape, of its leading dimensions, or flat.
        reduction: `none`, `mean` or `sum`.
        avg_factor: what `mean` divides by in place of the number of elements.

    Returns:
        At least 0 for an epsilon of at least 0. With a soft target it is not 0 at `p = t`.

    Source:
        Leng et al., arXiv 2204.12511. The added term has no alpha; some ports balance it too.
    """
    focal: Tensor = focal_loss(logits, targets, gamma, alpha)
    miss = targets * (-logits).sigmoid() + (1 - targets) * logits.sigmoid()
    return focal + epsilon * power(miss, gamma + 1)


@register_cls_loss("poly", aliases=("polyloss", "poly_loss", "poly_focal", "polyfocal"), source="arXiv 2204.12511")
class PolyLoss(ClassificationLoss):
    """Poly focal loss: focal loss with the first term of its expansion weighted up."""

    formula: ClassVar[Formula] = staticmethod(poly_focal_loss)
    epsilon: float
    gamma: float
    alpha: float

    def background(self, logits: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return `(1-a) p^gamma softplus(z) + epsilon p^(gamma+1)` and its derivative."""
        scale = 1 - self.alpha if self.alpha >= 0 else 1.0
        return modulated_background(logits, self.gamma, scale, epsilon=self.epsilon, out=out)
