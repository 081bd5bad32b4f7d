"""Slide loss: examples near the batch's mean IoU count more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from yolo_losses.classification._base import ClassificationLoss, register_cls_loss
from yolo_losses.classification._modulated import bce_background
from yolo_losses.formula import Formula, with_reduction
from yolo_losses.parameters import Param


@with_reduction
def slide_loss(
    logits: Tensor,
    targets: Tensor,
    mean_iou: Tensor | float,
    delta: Annotated[float, Param("width of the band below the mean that counts as hard", low=0, high=1)] = 0.1,
    min_iou: Annotated[float, Param("the mean is taken no lower than this; must exceed delta", above=0, high=1)] = 0.2,
) -> Tensor:
    """Slide loss, one value an element: BCE, weighted up at targets near and above the mean IoU.

    With `m = max(mean_iou, min_iou)` the weight is 1 for `t <= m - delta`, `e^(1-m)` for `m - delta < t < m`, and
    `e^(1-t)` for `t >= m`. With hard 0/1 targets that is plain BCE.

    Args:
        logits: any shape.
        targets: same shape, in [0, 1].
        mean_iou: mean IoU of the positives' predicted boxes with their objects.
        delta: width of the band below the mean, at least 0 and below `min_iou`.
        min_iou: the mean is taken no lower than this.
        weight: of the logits' shape, of its leading dimensions, or flat.
        reduction: `none`, `mean` or `sum`.
        avg_factor: what `mean` divides by in place of the number of elements.

    Returns:
        At least 0, at most e times BCE.

    Source:
        Yu et al., arXiv 2208.02019, YOLO-FaceV2 branch v1.0.0 (its master has `e^m` in the middle band, a slip). The
        mean is of IoU, as the paper says; tutorials use CIoU there.
    """
    bce = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    mean = torch.as_tensor(mean_iou, dtype=targets.dtype, device=targets.device).clamp_min(min_iou)
    # The original's middle weight is a float32 whatever the logits are; equal to it means equal in this too.
    middle = (1 - mean).exp().float().to(targets.dtype)
    weight = torch.where(targets >= mean, (1 - targets).exp(), torch.where(targets > mean - delta, middle, 1.0))
    return weight * bce


@register_cls_loss("slide", aliases=("slideloss", "slide_loss"), source="arXiv 2208.02019; YOLO-FaceV2 v1.0.0")
class SlideLoss(ClassificationLoss):
    """Slide loss: examples near the batch's mean IoU count more.

    Called by hand without `mean_iou`, it takes the mean of the targets above 0, which is the mean IoU where the
    targets are IoUs.
    """

    formula: ClassVar[Formula] = staticmethod(slide_loss)
    delta: float
    min_iou: float

    @classmethod
    def check_parameters(cls, values: Mapping[str, float]) -> None:
        """Raise a `ValueError` where delta is not the smaller: every background element would be weighted."""
        delta, minimum = (next((k, v) for k, v in values.items() if k.endswith(end)) for end in ("_delta", "_min_iou"))
        if delta[1] >= minimum[1]:
            raise ValueError(
                f"'{delta[0]}={delta[1]}' is not valid: allowed is a number below '{minimum[0]}={minimum[1]}'"
            )

    def elementwise(self, logits: Tensor, targets: Tensor, **supplied: Any) -> Tensor:
        """Return the loss of every element."""
        if supplied.get("mean_iou") is None:
            positive = targets > 0
            supplied["mean_iou"] = targets.sum() / positive.sum().clamp_min(1)
        return super().elementwise(logits, targets, **supplied)

    def background(self, logits: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return those of BCE: delta is below the mean, so a target of 0 has the weight 1."""
        return bce_background(logits, out)
