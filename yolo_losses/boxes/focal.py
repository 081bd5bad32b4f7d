"""Focal-IoU: the whole loss by the overlap, so that good boxes weigh more."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.boxes._base import BoxModifier, register_modifier
from yolo_losses.numerics import power
from yolo_losses.parameters import Param


@register_modifier("focal", source="arXiv 2101.08158")
class FocalModifier(BoxModifier):
    """Focal-IoU, of Focal-EIoU: the loss times `I^iou_gamma`, through which no gradient flows.

    Boxes that do not meet their object weigh nothing.

    Source:
        Zhang et al., arXiv 2101.08158, whose gamma is 0.5.
    """

    # `focal_gamma` is the classification loss's key: hence the name.
    position: ClassVar[int] = 0
    iou_gamma: Annotated[float, Param("how much more boxes that fit well weigh; 0: not at all", low=0)] = 0.5

    def result(self, loss: Tensor, iou: Tensor) -> Tensor:
        """Return the weighted loss."""
        return power(iou.detach(), self.iou_gamma) * loss
