"""Focal-EIoU's weighting: loss multiplied by IoU^gamma, detached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from torch import Tensor

from yolo_losses.losses._math import power
from yolo_losses.losses.boxes._base import BoxModifier, register_modifier
from yolo_losses.registry.parameters import Param


@register_modifier(
    "focal",
    source="arXiv 2101.08158",
)
class FocalModifier(BoxModifier):
    """Focal-EIoU's weighting: loss multiplied by IoU^gamma, detached.

    Disjoint boxes have weight 0.

    Formula:
        L = IoU^gamma L_base

    Example:
        >>> import torch
        >>> from yolo_losses import make_box_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [1.0, 1.0, 11.0, 11.0]])
        >>> make_box_loss("focal_eiou", focal_iou_gamma=0.5)(pred, target)
        tensor([0.4417, 0.2703])

    Source:
        Zhang et al., arXiv 2101.08158, whose gamma is 0.5.

    See also:
        eiou: the base of the paper, `focal_eiou`
        wise: weights by the IoU relative to a running mean
    """

    # Not `gamma`: `focal_gamma` is a key of the classification loss.
    position: ClassVar[int] = 0
    rotated_bases: ClassVar[tuple[str, ...]] = ("rotated_iou",)
    iou_gamma: Annotated[float, Param("focusing exponent on the IoU; 0 disables it", low=0)] = 0.5

    def result(
        self, loss: Tensor, iou: Tensor, pred: Tensor, target: Tensor, base: str, supplied: Mapping[str, Any]
    ) -> Tensor:
        """Return the weighted loss."""
        return power(iou.detach(), self.iou_gamma) * loss
