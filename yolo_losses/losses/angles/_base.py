"""Base of the angle losses of rotated boxes: the module."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._function import Family
from yolo_losses.losses._module import LossModule
from yolo_losses.losses.boxes._base import ROTATED_BOXES


class AngleLoss(LossModule):
    """Base class of angle losses; see `LossModule` for its arguments. The criterion supplies `lambda_`."""

    family: ClassVar[Family] = ROTATED_BOXES
    supplied_arguments: ClassVar[frozenset[str]] = frozenset({"lambda_"})
    note: ClassVar[str] = ""  # its note in the start line

    def pairs(self, pred: Tensor, target: Tensor, **supplied: Any) -> Tensor:
        """Return the loss per pair, in float32 or float64."""
        return self.unreduced(*self.inputs(pred, target), **supplied)


def aspect_weight(target: Tensor, lambda_: float) -> Tensor:
    """Return the weight of an object's angle: 1 for a square, falling with the logarithm of its aspect ratio.

    Args:
        target: boxes `xywhr`, shape `(..., 5)`.
        lambda_: the logarithm of the ratio at which it has fallen to 1/e, above 0.
    """
    log_ratio = ((target[..., 2] + 1e-9) / (target[..., 3] + 1e-9)).log()
    return torch.exp(-((log_ratio / lambda_) ** 2))
