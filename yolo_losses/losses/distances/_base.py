"""Base of the losses of box distances: the module."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from yolo_losses.losses._function import Family, check_same_shape
from yolo_losses.losses._module import LossModule

DISTANCES = Family("sides", "per side, or per box.", check_same_shape)


class DistanceLoss(LossModule):
    """Base class of losses of box distances; see `LossModule` for its arguments."""

    family: ClassVar[Family] = DISTANCES

    def sides(self, pred: Tensor, target: Tensor, **supplied: Any) -> Tensor:
        """Return the loss per side, in float32 or float64."""
        return self.unreduced(*self.inputs(pred, target), **supplied)
