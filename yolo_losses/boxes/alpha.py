"""Alpha-IoU: the overlap and every penalty to one power."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.boxes._base import BoxModifier, register_modifier
from yolo_losses.numerics import power as to_power
from yolo_losses.parameters import Param


@register_modifier("alpha", source="arXiv 2110.13675")
class AlphaModifier(BoxModifier):
    """Alpha-IoU: the overlap and every penalty to one power, `1 - I^power + penalty^power`.

    CIoU's `a v` is powered as one. Above 1 boxes that fit well already weigh more.

    Source:
        He et al., arXiv 2110.13675. The authors' code adds eps to the overlap before taking the power, which differs
        by 1e-8 on boxes of usual size, and is NaN at equal boxes in float32. Copies that power dx and dy apart,
        `dx^2p + dy^2p`, are another loss.
    """

    position: ClassVar[int] = 1
    bases: ClassVar[tuple[str, ...] | None] = ("iou", "giou", "diou", "ciou")
    power: Annotated[float, Param("exponent of the overlap and of the penalties", above=0)] = 3.0

    def overlap(self, iou: Tensor, pred: Tensor, target: Tensor) -> Tensor:
        """Return the overlap to the power."""
        return to_power(iou, self.power)

    def penalty(self, term: Tensor) -> Tensor:
        """Return a penalty to the power; they lie in [0, 1] but for rounding and boxes turned inside out."""
        return to_power(term.clamp(0, 1), self.power)
