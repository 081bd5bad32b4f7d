"""Lovász hinge: the convex extension of the Jaccard loss to the hinge errors of the pixels."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._function import Formula, loss_function
from yolo_losses.losses.masks._base import MASKS, MaskLoss, register_seg_loss


@loss_function(MASKS)
def lovasz_hinge_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Lovász hinge of each mask: the pixels' hinge errors, largest first, each times what it adds to the Jaccard loss.

    The hinge error of a pixel is `e`; `s` is 1 in the foreground and -1 in the background. `J(i)` is the Jaccard loss
    of a mask that is wrong in the `i` pixels with the largest errors; it misses `k_i` of the `P` foreground pixels.
    Where errors are equal the loss has a kink, and the gradient depends on the order of the pixels.

    Formula:
        L = sum(e_i (J(i) - J(i-1)))
        e = max(0, 1 - s z)
        J(i) = 1 - (P - k_i)/(P + i - k_i)

    Args:
        logits: shape `(N, H, W)`.
        targets: same shape; above 0.5 is foreground.

    Returns:
        At least 0, shape `(N,)`; not bounded above. With an empty target it is the largest hinge error.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import lovasz_hinge_loss
        >>> logits = torch.tensor([[[4.0, -4.0], [1.0, -4.0]]])
        >>> targets = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
        >>> lovasz_hinge_loss(logits, targets)
        tensor([1.])

    Source:
        Berman et al., arXiv 1705.08790, and Yu and Blaschko, arXiv 1512.07797, as `lovasz_hinge` with `per_image=True`.
        The steps of the Jaccard loss are computed directly rather than as differences, which in float32 keep only
        three digits on a mask of 160 x 160.

    See also:
        seg_dice: another measure of overlap
    """
    z, t = logits.flatten(1), targets.flatten(1)
    t = (t > 0.5).to(z.dtype)
    errors = (1 - z * (2 * t - 1)).relu()
    with torch.no_grad():
        order = errors.argsort(dim=1, descending=True, stable=True)
        t = t.gather(1, order)
        steps = jaccard_steps(t)
    return (errors.gather(1, order) * steps).sum(1)


def jaccard_steps(foreground: Tensor) -> Tensor:
    """Return what each pixel adds to the Jaccard loss when the pixels are misclassified one after another.

    Args:
        foreground: 1 or 0, in that order, shape `(N, pixels)`.
    """
    false_negatives = foreground.cumsum(1)
    size = false_negatives[:, -1:]
    union = torch.arange(1, foreground.shape[1] + 1, device=foreground.device) - false_negatives + size
    # A pixel of the foreground takes 1 from the intersection; one of the background adds 1 to the union.
    steps = torch.where(
        foreground > 0, 1 / union.clamp_min(1), (size - false_negatives) / (union * (union - 1)).clamp_min(1)
    )
    # Of an empty foreground the first pixel takes the loss from 0 to 1.
    steps[:, :1] = torch.where(size > 0, steps[:, :1], 1)
    return steps


@register_seg_loss(
    "lovasz",
    summary="Lovász hinge loss: convex surrogate of the Jaccard (IoU) loss",
    aliases=("lovasz_hinge", "lovaszhinge", "lovaszloss"),
    source="arXiv 1705.08790; bermanmaxim/LovaszSoftmax",
)
class LovaszHingeLoss(MaskLoss):
    """Lovász hinge: the convex extension of the Jaccard loss to the hinge errors of the pixels."""

    formula: ClassVar[Formula] = staticmethod(lovasz_hinge_loss)
