"""Distribution focal loss: cross entropy with the two bins adjacent to the target, linearly weighted."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._function import Family, Formula, loss_function
from yolo_losses.losses._module import LossModule


def check_distributions(first: str, a: Tensor, second: str, b: Tensor) -> None:
    """Raise a `ValueError` if two tensors are not distributions over bins and their targets."""
    if a.dim() == 0 or a.shape[-1] < 2:
        raise ValueError(
            f"'{first}' of shape {tuple(a.shape)} is not valid: allowed are logits of shape (..., bins), bins >= 2"
        )
    if b.shape != a.shape[:-1]:
        raise ValueError(
            f"'{second}' of shape {tuple(b.shape)} does not fit '{first}' of shape {tuple(a.shape)}:"
            f" its shape must be {tuple(a.shape[:-1])}"
        )


SIDES = Family("sides", "per side.", check_distributions)


@loss_function(SIDES)
def distribution_focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Distribution focal loss, per side: cross entropy with the two bins adjacent to the target, linearly weighted.

    `P` is the softmax of the logits over the bins.

    Formula:
        L = -(1-u) log(P_k) - u log(P_l)
        k = floor(t)
        l = k + 1
        u = t - k

    Args:
        logits: shape `(..., bins)`, at least 2 bins.
        target: in bins, shape `(...)`; clamped to `[0, bins - 1]`, not in place.

    Returns:
        At least the entropy of the two weights, which is 0 for targets on a bin; shape `(...)`.

    Raises:
        ValueError: if there are fewer than 2 bins, or the targets' shape is not that of the logits' leading dimensions.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import distribution_focal_loss
        >>> logits = torch.tensor([[0.0, 2.0, 1.0, 0.0], [0.0, 0.0, 0.0, 3.0]])
        >>> target = torch.tensor([1.25, 3.0])
        >>> distribution_focal_loss(logits, target)
        tensor([0.7438, 0.1392])
        >>> distribution_focal_loss(logits, target, reduction="mean")
        tensor(0.4415)

    Source:
        Li et al., arXiv 2006.04388, equal to MMDetection's, which needs `target < bins - 1`, and to Ultralytics'
        before its mean over the four sides. Ultralytics clamps the target in place to `bins - 1.01`; here the target
        can be the last bin itself. Clamp beforehand to reproduce its values there.
    """
    bins = logits.shape[-1]
    target = target.clamp(0, bins - 1)
    left = target.detach().floor().clamp_max(bins - 2)
    share = target - left
    index = left.long().unsqueeze(-1)
    log_p = logits.log_softmax(-1).gather(-1, torch.cat((index, index + 1), -1))
    return -(log_p[..., 0] * (1 - share) + log_p[..., 1] * share)


class DistributionFocalLoss(LossModule):
    """Distribution focal loss as a module, with MMDetection's calling convention.

    Args:
        reduction: `mean`, `sum` or `none`.
        loss_weight: factor on the loss.

    Raises:
        ValueError: if the reduction is unknown.
    """

    formula: ClassVar[Formula] = staticmethod(distribution_focal_loss)
    family: ClassVar[Family] = SIDES
