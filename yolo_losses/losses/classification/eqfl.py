"""Equalized quality focal loss: quality focal loss with a larger exponent on rarer classes."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from yolo_losses.losses._function import ELEMENTS, Formula, loss_function
from yolo_losses.losses.classification._base import register_cls_loss
from yolo_losses.losses.classification._equalized import EqualizedLoss, equalized
from yolo_losses.registry.parameters import Param


@loss_function(ELEMENTS)
def equalized_quality_focal_loss(
    logits: Tensor,
    targets: Tensor,
    pos_neg_ratio: Tensor,
    gamma: Annotated[float, Param("focusing exponent of a balanced class", low=0.1)] = 2.0,
    scale: Annotated[float, Param("added to the exponent of a class without positive gradients", low=0)] = 8.0,
    positive_mask: Tensor | None = None,
) -> Tensor:
    """Equalized quality focal loss, per element: quality focal loss whose exponent grows with the rarity of the class.

    For class `j`, `q_j` in [0, 1] is the ratio of the accumulated gradients of positives to those of negatives. The
    exponent `gamma_j` and the factor `gamma_j/gamma` are detached.

    Formula:
        L = gamma_j/gamma |t - p|^gamma_j BCE
        gamma_j = gamma + scale (1 - q_j)

    Args:
        logits: shape `(..., C)`.
        targets: same shape, in [0, 1]: the quality at the positives, 0 elsewhere.
        pos_neg_ratio: `q`, the accumulated gradients of each class's positives over those of its negatives, shape
            `(C,)`, clamped to [0, 1]. At 1 the loss of the class is quality focal loss.
        gamma: focusing exponent of a class whose `q` is 1, at least 0.1.
        scale: increase of the exponent at `q = 0`, at least 0.
        positive_mask: positive elements; the targets of all others are set to 0. `None`: those with a target above 0.

    Returns:
        At least 0; 0 at `p = t`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import equalized_quality_focal_loss
        >>> logits = torch.tensor([[2.0, -1.0, 0.5]])
        >>> targets = torch.tensor([[0.7, 0.0, 0.0]])
        >>> equalized_quality_focal_loss(logits, targets, pos_neg_ratio=torch.tensor([1.0, 0.5, 0.1]))
        tensor([[0.0238, 0.0004, 0.0572]])

    Source:
        Li et al., arXiv 2201.02593, and the authors' United-Perception, whose YOLOX configs have a scale of 4. Their
        code returns no loss per element.

    See also:
        qfl: the same exponent for every class
        efl: the same for hard labels
    """
    if positive_mask is not None:
        targets = torch.where(positive_mask, targets, 0)
    bce = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return equalized((targets - logits.sigmoid()).abs(), bce, pos_neg_ratio, gamma, scale)


@register_cls_loss(
    "eqfl",
    aliases=("equalized_quality_focal", "equalizedqualityfocal", "equalized_quality_focal_loss"),
    source="arXiv 2201.02593; ModelTC/United-Perception",
)
class EqualizedQualityFocalLoss(EqualizedLoss):
    """Equalized quality focal loss: quality focal loss with a larger exponent on rarer classes.

    The exponent follows the ratio of the accumulated gradients of positives and negatives, see `EqualizedLoss`.

    The authors train it with `cls_target=iou`. IoU and assigner score are small while the boxes are poor:
    in a training from scratch the positives of a rare class may then have almost no gradient, and its ratio stays at 0.
    Start from pretrained weights, or take `efl` with `cls_target=hard`.
    """

    formula: ClassVar[Formula] = staticmethod(equalized_quality_focal_loss)
    tal_warning: ClassVar[str] = (
        "eqfl's authors train it toward the IoU, cls_target=iou: toward the assigner's scores a rare class may learn"
        " next to nothing from scratch"
    )
    gamma: float
    scale: float

    def distance(self, logits: Tensor, p: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return `|t - p|` and the derivative of its logarithm, 0 where they are equal."""
        gap = p - targets
        distance = gap.abs().clamp_min_(torch.finfo(p.dtype).tiny)
        return distance, torch.addcmul(p, p, p, value=-1).mul_(gap.sign_()).div_(distance)
