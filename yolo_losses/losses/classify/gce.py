"""Generalized cross-entropy: between cross-entropy and mean absolute error, for noisy labels."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Family, Formula, loss_function
from yolo_losses.losses.classify._base import LABELS, ClassifyLoss
from yolo_losses.registry.parameters import Param


@loss_function(LABELS)
def generalized_cross_entropy_loss(
    logits: Tensor,
    targets: Tensor,
    q: Annotated[float, Param("0 tends to cross-entropy, 1 is the absolute error", above=0, high=1)] = 0.7,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Generalized cross-entropy, per image: bounded, so that images with a wrong label have less weight.

    Formula:
        L = w (1 - p_y^q) / q

    Args:
        logits: shape `(N, C)`.
        targets: labels, shape `(N,)`.
        q: in (0, 1]. Toward 0 it tends to cross-entropy; at 1 it is `1 - p`, half the mean absolute error.
        class_weights: one for each class, shape `(C,)`.

    Returns:
        In [0, 1/q] without class weights, shape `(N,)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import generalized_cross_entropy_loss
        >>> generalized_cross_entropy_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
        tensor([0.1215])

    Source:
        Zhang and Sabuncu, arXiv 1805.07836, its loss without truncation.

    See also:
        classify_ce: not bounded
    """
    labels = targets.long()
    log_p = logits.log_softmax(-1).gather(1, labels.unsqueeze(1)).squeeze(1)
    loss = -(q * log_p).expm1() / q
    return loss if class_weights is None else loss * class_weights.to(loss)[labels]


@declares(
    "classify",
    ClassifyLoss,
    "gce",
    summary="Generalized cross-entropy, bounded, for noisy labels",
    aliases=("generalized_cross_entropy", "generalizedcrossentropy"),
    source="arXiv 1805.07836",
)
class GeneralizedCrossEntropyLoss(ClassifyLoss):
    """Generalized cross-entropy: between cross-entropy and mean absolute error, for noisy labels."""

    family: ClassVar[Family] = LABELS
    formula: ClassVar[Formula] = staticmethod(generalized_cross_entropy_loss)
    q: float
