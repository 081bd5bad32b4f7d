"""Cross-entropy of the hard pixels: online hard example mining."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.semantic._base import PIXELS, PixelLoss, log_probability, weighted
from yolo_losses.registry.parameters import Param


@loss_function(PIXELS)
def ohem_cross_entropy_loss(
    logits: Tensor,
    targets: Tensor,
    threshold: Annotated[float, Param("pixels whose label has a lower probability are hard", above=0, high=1)] = 0.7,
    keep: Annotated[float, Param("the least share of the pixels that is kept", low=0, high=1)] = 1 / 16,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the hard pixels, per pixel; 0 for the others.

    A pixel is hard if the probability of its label is below `threshold`. If that is less than the share `keep` of all
    pixels, those with the lowest probabilities are hard.

    Formula:
        L = -w log(p_y) if p_y < threshold, 0 otherwise

    Args:
        logits: of the valid pixels, shape `(P, C)`.
        targets: labels, shape `(P,)`.
        threshold: in (0, 1].
        keep: in [0, 1].
        class_weights: one for each class, shape `(C,)`.

    Returns:
        At least 0, shape `(P,)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import ohem_cross_entropy_loss
        >>> ohem_cross_entropy_loss(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]))
        tensor([0.0000, 0.6931])

    Source:
        Shrivastava et al., arXiv 1604.03540, for pixels as mmsegmentation's `OHEMPixelSampler` with a threshold.

    See also:
        ce_ce: all pixels
        ce_focal: easy pixels weighted down
    """
    loss = -log_probability(logits, targets)
    return weighted(torch.where(hard_pixels(loss, threshold, keep), loss, 0), targets, class_weights)


@torch.no_grad()
def hard_pixels(loss: Tensor, threshold: float, keep: float) -> Tensor:
    """Return which pixels are hard, by their cross-entropy: boolean, of its shape."""
    hard = loss > -math.log(threshold)
    least = math.ceil(keep * len(loss))
    # By index: of pixels with the same loss, such as 0 where p has rounded to 1, no more than are needed.
    return hard.index_fill_(0, loss.topk(least, sorted=False).indices, True)


@declares(
    "ce",
    PixelLoss,
    "ohem",
    summary="Cross-entropy of the hard pixels alone: online hard example mining",
    aliases=("ohem_ce", "ohem_cross_entropy", "bootstrapped_ce"),
    source="arXiv 1604.03540; mmsegmentation",
)
class OHEMCrossEntropyLoss(PixelLoss):
    """Cross-entropy of the hard pixels; the mean is over these pixels only."""

    formula: ClassVar[Formula] = staticmethod(ohem_cross_entropy_loss)
    threshold: float
    keep: float

    def counted(self, loss: Tensor) -> Tensor:
        """Return which pixels are hard: those whose loss was not set to 0, and others up to the share `keep`."""
        return hard_pixels(loss, self.threshold, self.keep)
