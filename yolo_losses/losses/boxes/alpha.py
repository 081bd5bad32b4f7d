"""Alpha-IoU: IoU and penalties raised to a power."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.losses._math import power as to_power
from yolo_losses.losses.boxes._base import BoxModifier, register_modifier
from yolo_losses.registry.parameters import Param


@register_modifier(
    "alpha",
    source="arXiv 2110.13675",
)
class AlphaModifier(BoxModifier):
    """Alpha-IoU: IoU and penalties raised to a power.

    CIoU's `a v` is one penalty. Powers above 1 give high-IoU boxes larger weights.

    Formula:
        L = 1 - IoU^power + penalty^power

    Example:
        >>> import torch
        >>> from yolo_losses import make_box_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [1.0, 1.0, 11.0, 11.0]])
        >>> make_box_loss("alpha_ciou", alpha_power=3.0)(pred, target)
        tensor([0.9572, 0.6846])

    Source:
        He et al., arXiv 2110.13675. The authors' code adds eps to the IoU before taking the power, which differs by
        1e-8 on ordinary boxes, and is NaN for identical boxes in float32. Ports that raise dx and dy to the
        power separately, `dx^2p + dy^2p`, compute a different loss.

    See also:
        focaler: maps the IoU linearly
    """

    position: ClassVar[int] = 1
    bases: ClassVar[tuple[str, ...] | None] = ("iou", "giou", "diou", "ciou")
    rotated_bases: ClassVar[tuple[str, ...]] = ("rotated_iou",)
    power: Annotated[float, Param("exponent of the IoU and of the penalties", above=0)] = 3.0

    def overlap(self, iou: Tensor, pred: Tensor, target: Tensor) -> Tensor:
        """Return the IoU raised to the power."""
        return to_power(iou, self.power)

    def penalty(self, term: Tensor) -> Tensor:
        """Return a penalty raised to the power; clamped to [0, 1], which only rounding and inverted boxes exceed."""
        return to_power(term.clamp(0, 1), self.power)
