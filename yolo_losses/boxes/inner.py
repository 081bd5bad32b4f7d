"""Inner-IoU: the overlap of the boxes' cores, or of boxes grown, in place of theirs."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.boxes._base import BoxModifier, register_modifier
from yolo_losses.boxes._geometry import Corners, corners, overlap_and_union
from yolo_losses.parameters import Param


def scaled(boxes: Tensor, ratio: float) -> Corners:
    """Return the corners of boxes with the same centres and sides `ratio` times as long."""
    top_left, bottom_right = corners(boxes)
    margin = (bottom_right - top_left) * ((1 - ratio) / 2)
    return top_left + margin, bottom_right - margin


@register_modifier("inner", source="arXiv 2311.02877, its authors' code")
class InnerModifier(BoxModifier):
    """Inner-IoU: the IoU of both boxes scaled by `ratio` about their centres, in place of the IoU.

    Below 1 boxes must meet more closely to overlap at all; above 1 boxes that do not meet can. At 1 the loss is the
    base loss itself.

    Source:
        Zhang et al., arXiv 2311.02877; the authors' code, whose ratios are 0.5 to 1.5, has eps on the union alone.
    """

    position: ClassVar[int] = 3
    ratio: Annotated[float, Param("size of the boxes that must overlap, by their own", above=0)] = 0.7

    def overlap(self, iou: Tensor, pred: Tensor, target: Tensor) -> Tensor:
        """Return the IoU of the scaled boxes."""
        if self.ratio == 1:
            return iou
        return overlap_and_union(scaled(pred, self.ratio), scaled(target, self.ratio))[0]
