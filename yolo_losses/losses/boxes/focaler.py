"""Focaler-IoU: IoU mapped linearly from [d, u] to [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from torch import Tensor

from yolo_losses.losses.boxes._base import BoxModifier, register_modifier
from yolo_losses.registry.parameters import Param


@register_modifier(
    "focaler",
    source="arXiv 2401.10525",
)
class FocalerModifier(BoxModifier):
    """Focaler-IoU: IoU mapped linearly from [d, u] to [0, 1].

    The right-hand side replaces the IoU of the base loss; outside (d, u) its gradient is 0.

    Formula:
        IoU <- clamp((IoU - d)/(u - d), 0, 1)

    Raises:
        ValueError: if u is not above d.

    Example:
        >>> import torch
        >>> from yolo_losses import make_box_loss
        >>> pred = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
        >>> target = torch.tensor([[4.0, 0.0, 16.0, 9.0], [1.0, 1.0, 11.0, 11.0]])
        >>> make_box_loss("focaler_iou", focaler_d=0.0, focaler_u=0.95)(pred, target)
        tensor([0.6309, 0.2835])

    Source:
        Zhang and Zhang, arXiv 2401.10525, equal to the authors' code.

    See also:
        alpha: raises the IoU to a power
    """

    position: ClassVar[int] = 2
    rotated_bases: ClassVar[tuple[str, ...]] = ("rotated_iou",)
    d: Annotated[float, Param("IoU that is mapped to 0; must be below u", low=0, high=1)] = 0.0
    u: Annotated[float, Param("IoU that is mapped to 1; must be above d", low=0, high=1)] = 0.95

    @classmethod
    def check_parameters(cls, values: Mapping[str, float], prefix: str = "") -> None:
        """Raise a `ValueError` if the interval is empty."""
        d, u = values["d"], values["u"]
        if d >= u:
            raise ValueError(f"'{prefix}u={u}' is not valid: allowed is a number above '{prefix}d={d}'")

    def overlap(self, iou: Tensor, pred: Tensor, target: Tensor) -> Tensor:
        """Return the mapped IoU."""
        return ((iou - self.d) / (self.u - self.d)).clamp(0, 1)
