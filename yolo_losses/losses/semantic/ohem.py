"""Cross-entropy of the pixels that are hard: online hard example mining."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from yolo_losses.losses._function import loss_function
from yolo_losses.losses.semantic._base import PIXELS
from yolo_losses.registry.parameters import Param


@loss_function(PIXELS)
def ohem_cross_entropy_loss(
    logits: Tensor,
    targets: Tensor,
    threshold: Annotated[float, Param("pixels are hard whose probability is below it", above=0, high=1)] = 0.7,
    keep: Annotated[float, Param("the least share of the pixels that is kept", low=0, high=1)] = 1 / 16,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy, per pixel, of those that are hard; 0 at the others.

    A pixel is hard if the probability of its label is below `threshold`, or among the lowest of the share `keep` of all
    pixels.

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
        >>> from yolo_losses.losses.semantic.ohem import ohem_cross_entropy_loss
        >>> ohem_cross_entropy_loss(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]))
        tensor([0.0000, 0.6931])

    Source:
        Shrivastava et al., arXiv 1604.03540, for pixels as mmsegmentation's `OHEMPixelSampler` with a threshold.
    """
    labels = targets.long()
    loss = -logits.log_softmax(-1).gather(1, labels.unsqueeze(1)).squeeze(1)
    with torch.no_grad():
        hard = loss > -math.log(threshold)
        least = math.ceil(keep * len(loss))
        if least:
            hard |= loss >= loss.topk(least, sorted=False).values.min()
    loss = torch.where(hard, loss, 0)
    return loss if class_weights is None else loss * class_weights.to(loss)[labels]
