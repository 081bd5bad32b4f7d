"""Poly-1 cross-entropy of a softmax over classes."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.classify._base import IMAGES, ClassifyLoss, as_probabilities, sum_over_classes
from yolo_losses.registry.parameters import Param


@loss_function(IMAGES)
def softmax_poly_loss(
    logits: Tensor,
    targets: Tensor,
    epsilon: Annotated[float, Param("coefficient of the polynomial term; 0 disables it", low=-1)] = 1.0,
    smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Poly-1 loss of a softmax over classes, per image: cross-entropy plus a multiple of its first polynomial term.

    Formula:
        L = sum(w t (epsilon (1-p) - log(p)))

    Args:
        logits: shape `(N, C)`.
        targets: labels, shape `(N,)`, or probabilities, shape `(N, C)`.
        epsilon: factor on the first term, at least -1. At 0 it is cross-entropy.
        smoothing: the share of each target that is spread evenly over all classes, in [0, 1).
        class_weights: one for each class, shape `(C,)`.

    Returns:
        At least 0 for `epsilon >= 0`, shape `(N,)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import softmax_poly_loss
        >>> softmax_poly_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor([0.2461])

    Source:
        Leng et al., arXiv 2204.12511, its Poly-1 cross-entropy; class weights act on both terms.

    See also:
        classify_ce: the stock loss
    """
    log_p = logits.log_softmax(-1)
    per_class = as_probabilities(targets, logits, smoothing) * (-epsilon * log_p.expm1() - log_p)
    return sum_over_classes(per_class, class_weights)


@declares(
    "classify",
    ClassifyLoss,
    "poly",
    summary="Poly-1 cross-entropy: adds a multiple of 1 - p to cross-entropy",
    aliases=("poly1", "polyloss", "poly_loss"),
    source="arXiv 2204.12511",
)
class SoftmaxPolyLoss(ClassifyLoss):
    """Poly-1 cross-entropy of a softmax over classes."""

    formula: ClassVar[Formula] = staticmethod(softmax_poly_loss)
    epsilon: float
