"""PolyLoss: focal loss plus epsilon (1 - p_t)^(gamma + 1)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from torch import Tensor

from yolo_losses.losses._function import ELEMENTS, Formula, loss_function
from yolo_losses.losses._math import power
from yolo_losses.losses.classification._base import ClassificationLoss, register_cls_loss
from yolo_losses.losses.classification._modulated import modulated
from yolo_losses.losses.classification.focal import focal_loss
from yolo_losses.registry.parameters import Param


@loss_function(ELEMENTS)
def poly_focal_loss(
    logits: Tensor,
    targets: Tensor,
    epsilon: Annotated[float, Param("coefficient of the polynomial term; 0 disables it", low=-1)] = 1.0,
    gamma: Annotated[float, Param("focusing exponent; 0 disables it", low=0)] = 2.0,
    alpha: Annotated[
        float | None, Param("weight of positives; negatives get 1 - alpha; -1 disables it", low=-1, high=1, off=-1)
    ] = 0.25,
) -> Tensor:
    """PolyLoss, per element: focal loss plus a polynomial term; nothing is detached.

    Formula:
        L = (t alpha + (1-t) (1-alpha)) (1-p_t)^gamma BCE + epsilon (1-p_t)^(gamma + 1)

    Args:
        logits: any shape.
        targets: same shape, in [0, 1].
        epsilon: coefficient of the polynomial term, at least -1.
        gamma: focusing exponent on `1 - p_t`, at least 0.
        alpha: weight of positives in the focal term, in [0, 1]; negatives get 1 - alpha. Below 0 or `None`: no
            balancing.

    Returns:
        At least 0 for an epsilon of at least 0. With soft targets it is not 0 at `p = t`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import poly_focal_loss
        >>> logits = torch.tensor([[2.0, -1.0, 0.5]])
        >>> targets = torch.tensor([[1.0, 0.0, 0.0]])
        >>> poly_focal_loss(logits, targets)
        tensor([[0.0021, 0.0364, 0.5242]])

    Source:
        Leng et al., arXiv 2204.12511. The polynomial term has no alpha; some ports apply it there too.

    See also:
        focal: without the polynomial term
    """
    focal: Tensor = focal_loss(logits, targets, gamma, alpha)
    one_minus_p_t = targets * (-logits).sigmoid() + (1 - targets) * logits.sigmoid()
    return focal + epsilon * power(one_minus_p_t, gamma + 1)


@register_cls_loss(
    "poly",
    aliases=("polyloss", "poly_loss", "poly_focal", "polyfocal"),
    source="arXiv 2204.12511",
)
class PolyLoss(ClassificationLoss):
    """PolyLoss: focal loss plus epsilon (1 - p_t)^(gamma + 1)."""

    formula: ClassVar[Formula] = staticmethod(poly_focal_loss)
    epsilon: float
    gamma: float
    alpha: float

    def closed_form(self, logits: Tensor, targets: Tensor | None, **supplied: Any) -> tuple[Tensor, Tensor]:
        """Return the loss and its derivative per element."""
        return modulated(logits, targets, self.gamma, self.alpha, self.epsilon)
