"""Inner-IoU: IoU of auxiliary boxes scaled by a ratio about their centres."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from yolo_losses.losses.boxes._base import BoxModifier, register_modifier
from yolo_losses.losses.boxes._geometry import Corners, corners, overlap_and_union
from yolo_losses.losses.boxes._polygon import in_own_unit, rotated_overlap
from yolo_losses.registry.parameters import Param


def scaled(boxes: Tensor, ratio: float) -> Corners:
    """Return the corners of boxes with the same centres and sides `ratio` times as long."""
    top_left, bottom_right = corners(boxes)
    margin = (1 - ratio) / 2
    return top_left.lerp(bottom_right, margin), bottom_right.lerp(top_left, margin)


def _scaled_rotated(boxes: Tensor, ratio: float) -> Tensor:
    """Return rotated boxes `xywhr` with the same centres and angles and sides `ratio` times as long."""
    return torch.cat((boxes[..., :2], boxes[..., 2:4] * ratio, boxes[..., 4:]), -1)


@register_modifier(
    "inner",
    source="arXiv 2311.02877, its authors' code",
)
class InnerModifier(BoxModifier):
    """Inner-IoU: IoU of auxiliary boxes scaled by a ratio about their centres.

    The right-hand side replaces the IoU of the base loss; `S` is the intersection of the scaled boxes. According to
    the paper, ratios below 1 speed up the regression of high-IoU boxes, and ratios above 1, where disjoint boxes can
    overlap too, that of low-IoU boxes. At 1 the loss equals the base loss. `x` is the centre, `w` and `h` are the sides
    of the predicted box, `x_1` and `x_2` the edges of the auxiliary one; `y_1` and `y_2` follow; a prime marks the
    target's.

    Formula:
        IoU <- S/(ratio^2 (w h + w' h') - S)
        S = max(min(x_2,x'_2) - max(x_1,x'_1), 0) max(min(y_2,y'_2) - max(y_1,y'_1), 0)
        x_1 = x - ratio w/2
        x_2 = x + ratio w/2

    Example:
        >>> import torch
        >>> from yolo_losses import make_box_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [1.0, 1.0, 11.0, 11.0]])
        >>> make_box_loss("inner_siou", inner_ratio=0.7)(pred, target)
        tensor([0.8886, 0.4276])

    Source:
        Zhang et al., arXiv 2311.02877; the authors' code, with ratios from 0.5 to 1.5, has eps on the union only.

    See also:
        focaler: another replacement of the IoU; both together are `focaler_inner_ciou`
    """

    position: ClassVar[int] = 3
    rotated_bases: ClassVar[tuple[str, ...]] = ("rotated_iou",)
    ratio: Annotated[float, Param("scale of the auxiliary boxes; 1 gives the base loss", above=0)] = 0.7

    def overlap(self, iou: Tensor, pred: Tensor, target: Tensor) -> Tensor:
        """Return the IoU of the auxiliary boxes."""
        if self.ratio == 1:
            return iou
        if pred.shape[-1] == 5:
            return rotated_overlap(in_own_unit(*(_scaled_rotated(boxes, self.ratio) for boxes in (pred, target))))
        return overlap_and_union(scaled(pred, self.ratio), scaled(target, self.ratio))[0]
