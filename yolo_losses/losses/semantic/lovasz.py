"""Lovász softmax: the convex extension of the Jaccard loss to the errors of a softmax."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.masks.lovasz import jaccard_steps
from yolo_losses.losses.semantic._base import CLASSES, RegionLoss


@loss_function(CLASSES)
def lovasz_softmax_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Lovász softmax, per class, over all pixels of a batch; 0 for a class that has no pixel.

    The error `e` of a pixel is the distance of the class's probability from `t`, which is 1 in the pixels of the class
    and 0 elsewhere. The errors, largest first, are weighted by what each adds to the Jaccard loss. `J(i)` is the
    Jaccard loss of a class that is wrong in the `i` pixels with the largest errors; it misses `k_i` of its `P` pixels.

    Formula:
        L = sum(e_i (J(i) - J(i-1)))
        e = |t - p|
        J(i) = 1 - (P - k_i)/(P + i - k_i)

    Args:
        logits: of the valid pixels, shape `(P, C)`.
        targets: labels, shape `(P,)`.

    Returns:
        In [0, 1], shape `(C,)`.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import lovasz_softmax_loss
        >>> lovasz_softmax_loss(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]))
        tensor([0.3096, 0.5000])

    Source:
        Berman et al., arXiv 1705.08790, its `lovasz_softmax` with `classes="present"`.

    See also:
        dice_dice: another measure of overlap
    """
    classes = torch.arange(logits.shape[1], device=logits.device)
    foreground = targets.long() == classes.unsqueeze(1)
    p = logits.softmax(-1).T
    errors = torch.where(foreground, 1 - p, p)
    with torch.no_grad():
        weights = torch.empty_like(errors)
        # A class at a time: sorting all of them at once takes several times the memory of the errors.
        for weight, error, inside in zip(weights, errors, foreground, strict=True):
            order = error.argsort(descending=True, stable=True)
            weight[order] = jaccard_steps(inside[order].to(error.dtype).unsqueeze(0)).squeeze(0)
    return torch.where(foreground.any(1), (errors * weights).sum(1), 0)


@declares(
    "dice",
    RegionLoss,
    "lovasz",
    summary="Lovász softmax per class: a convex stand-in for the Jaccard loss, which mean IoU is measured by",
    aliases=("lovasz_softmax", "lovaszloss", "lovasz_loss"),
    source="arXiv 1705.08790; bermanmaxim/LovaszSoftmax",
)
class LovaszSoftmaxLoss(RegionLoss):
    """Lovász softmax, the mean over the classes that have a pixel in the batch."""

    formula: ClassVar[Formula] = staticmethod(lovasz_softmax_loss)

    def mean_over_classes(self, loss: Tensor, targets: Tensor) -> Tensor:
        """Return the mean of a loss per class over the classes that have a pixel; 0 where none has."""
        present = torch.zeros_like(loss).index_fill_(0, targets.long(), 1)
        return loss.sum() / present.sum().clamp_min(1)
