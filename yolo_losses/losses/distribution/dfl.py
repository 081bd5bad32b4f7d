"""Distribution focal loss: cross entropy with the two bins adjacent to the target, linearly weighted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from yolo_losses.losses._module import with_reduction
from yolo_losses.losses._reduction import check_reduction


@with_reduction
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
        weight: per side.
        reduction: `none`, `mean` or `sum`.
        avg_factor: divisor of `mean`, in place of the number of sides.

    Returns:
        At least the entropy of the two weights, which is 0 for targets on a bin; shape `(...)`.

    Raises:
        ValueError: on fewer than 2 bins, or if the targets' shape is not that of the logits' leading dimensions.

    Source:
        Li et al., arXiv 2006.04388, equal to MMDetection's, which needs `target < bins - 1`, and to Ultralytics'
        before its mean over the four sides. Ultralytics clamps the target in place to `bins - 1.01`; here the target
        can be the last bin itself. Clamp beforehand to reproduce its values there.
    """
    bins = logits.shape[-1]
    if bins < 2 or target.shape != logits.shape[:-1]:
        raise ValueError(
            f"targets of shape {tuple(target.shape)} do not fit logits of shape {tuple(logits.shape)}: "
            "expected logits (..., bins) with at least 2 bins, and targets (...)"
        )
    target = target.clamp(0, bins - 1)
    left = target.detach().floor().clamp_max(bins - 2)
    share = target - left
    index = left.long().unsqueeze(-1)
    log_p = logits.log_softmax(-1).gather(-1, torch.cat((index, index + 1), -1))
    return -(log_p[..., 0] * (1 - share) + log_p[..., 1] * share)


class DistributionFocalLoss(nn.Module):
    """Distribution focal loss as a module, with MMDetection's calling convention.

    Args:
        reduction: `mean`, `sum` or `none`.
        loss_weight: weight of the loss.

    Raises:
        ValueError: on an unknown reduction.
    """

    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0) -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Return the loss of predicted distributions against targets.

        Args:
            pred: logits, shape `(..., bins)`.
            target: in bins, shape `(...)`.
            weight: per side.
            avg_factor: divisor of `mean`, in place of the number of sides.
            reduction_override: overrides the module's reduction.

        Raises:
            ValueError: on an unknown reduction or shapes that do not fit.
        """
        return self.loss_weight * distribution_focal_loss(
            pred,
            target,
            weight=weight,
            reduction=check_reduction(self.reduction, reduction_override),
            avg_factor=avg_factor,
        )
