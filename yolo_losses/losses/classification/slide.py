"""Slide loss: BCE with larger weights for targets around the mean IoU of the batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from yolo_losses.losses._function import ELEMENTS, Formula, loss_function
from yolo_losses.losses._step import Step
from yolo_losses.losses.classification._base import ClassificationLoss, register_cls_loss
from yolo_losses.losses.classification._modulated import weighted_negatives
from yolo_losses.registry.parameters import Param


@loss_function(ELEMENTS)
def slide_loss(
    logits: Tensor,
    targets: Tensor,
    mean_iou: Tensor | float,
    delta: Annotated[float, Param("width of the band of hard samples below the mean IoU", low=0, high=1)] = 0.1,
    min_iou: Annotated[float, Param("lower bound of the mean IoU; must exceed delta", above=0, high=1)] = 0.2,
) -> Tensor:
    """Slide loss, per element: BCE with larger weights for targets near and above the mean IoU.

    With hard 0/1 targets it equals BCE.

    Formula:
        L = w BCE
        w = 1 if t <= m - delta, e^(1-m) if m - delta < t < m, e^(1-t) if t >= m
        m = max(mean_iou, min_iou)

    Args:
        logits: any shape.
        targets: same shape, in [0, 1].
        mean_iou: mean IoU of the positives' predicted boxes with their objects.
        delta: width of the band of hard samples below the mean, at least 0 and below `min_iou`.
        min_iou: lower bound of the mean.

    Returns:
        At least 0, at most e times BCE.

    Example:
        >>> import torch
        >>> from yolo_losses.functional import slide_loss
        >>> logits = torch.tensor([[2.0, -1.0, 0.5]])
        >>> targets = torch.tensor([[0.8, 0.0, 0.0]])
        >>> slide_loss(logits, targets, mean_iou=0.5)
        tensor([[0.6436, 0.3133, 0.9741]])

    Source:
        Yu et al., arXiv 2208.02019, equal to branch v1.0.0 of the authors' YOLO-FaceV2; its master has `e^m` in the
        middle band, an error. The mean is that of the IoU, as in the paper; tutorials use CIoU.

    See also:
        ema_slide: a moving average in place of the batch's mean
    """
    bce = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return slide_weight(targets, mean_iou, delta, min_iou) * bce


def slide_weight(targets: Tensor, mean_iou: Tensor | float, delta: float, min_iou: float) -> Tensor:
    """Return the weight of BCE per element."""
    mean = torch.as_tensor(mean_iou, dtype=targets.dtype, device=targets.device).clamp_min(min_iou)
    weight = (1 - torch.maximum(targets, mean)).exp()
    if weight.dtype == torch.float64:  # the original computes the weight of the middle band in float32
        weight = torch.where(targets < mean, weight.float().double(), weight)
    return weight.masked_fill(targets <= mean - delta, 1)


def mean_of_positives(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of the targets above 0, and whether there are any."""
    count = (targets > 0).sum()
    return targets.sum() / count.clamp_min(1), count > 0


@register_cls_loss(
    "slide",
    aliases=("slideloss", "slide_loss"),
    source="arXiv 2208.02019; YOLO-FaceV2 v1.0.0",
)
class SlideLoss(ClassificationLoss):
    """Slide loss: BCE with larger weights for targets around the mean IoU of the batch.

    Called without `mean_iou`, it uses the mean of the targets above 0, which is the mean IoU if the targets are IoUs.
    """

    formula: ClassVar[Formula] = staticmethod(slide_loss)
    equals_bce_note: ClassVar[str] = (
        "hardly any target is above the mean IoU less delta yet, below which its weight is 1"
    )
    delta: float
    min_iou: float

    @classmethod
    def check_parameters(cls, values: Mapping[str, float], prefix: str = "") -> None:
        """Raise a `ValueError` if delta is not below min_iou: all of the background would be weighted up."""
        delta, minimum = values["delta"], values["min_iou"]
        if delta >= minimum:
            raise ValueError(
                f"'{prefix}delta={delta}' and '{prefix}min_iou={minimum}' do not go together: the first must be smaller"
            )

    def elementwise(self, logits: Tensor, targets: Tensor, **supplied: Any) -> Tensor:
        """Return the loss per element."""
        if supplied.get("mean_iou") is None:
            supplied["mean_iou"] = mean_of_positives(targets)[0]
        return super().elementwise(logits, targets, **supplied)

    def step_statistics(self, step: Step) -> dict[str, Tensor]:
        """Return the mean IoU in use."""
        return {"threshold": self.prepare(step.read_only())["mean_iou"].clamp_min(self.min_iou)}

    def closed_form(self, logits: Tensor, targets: Tensor | None, **supplied: Any) -> tuple[Tensor, Tensor]:
        """Return the loss and its derivative per element."""
        if targets is None:  # weight 1: delta is below the mean
            return weighted_negatives(logits)
        weight = slide_weight(targets, supplied["mean_iou"], self.delta, self.min_iou)
        value = nn.functional.binary_cross_entropy_with_logits(logits, targets, weight, reduction="none")
        return value, logits.sigmoid().sub_(targets).mul_(weight)
