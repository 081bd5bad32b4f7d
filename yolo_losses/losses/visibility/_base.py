"""Base of the losses of the keypoints' visibility."""

from __future__ import annotations

from typing import ClassVar

from yolo_losses.losses._module import LossModule


class VisibilityLoss(LossModule):
    """A loss of the keypoints' visibility as a module, with MMDetection's calling convention.

    It is called with one logit per keypoint, of any shape, and with targets of the same shape, 1 where the keypoint is
    visible and 0 where it is not.

    Args:
        *values: the declared parameters in order.
        reduction: `mean`, `sum` or `none`.
        loss_weight: factor on the loss.
        **parameters: the declared parameters by name.

    Raises:
        TypeError: on an undeclared parameter.
        ValueError: on a parameter out of range, or an unknown reduction.
    """

    supplied_arguments: ClassVar[frozenset[str]] = frozenset({"pos_weight"})
