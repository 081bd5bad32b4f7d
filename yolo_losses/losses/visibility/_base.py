"""Base of the losses of the keypoints' visibility."""

from __future__ import annotations

from typing import ClassVar

from yolo_losses.losses._module import LossModule


class VisibilityLoss(LossModule):
    """Base class of losses of the keypoints' visibility; see `LossModule` for its arguments.

    It is called with one logit per keypoint, of any shape, and with targets of the same shape, 1 where the keypoint is
    visible and 0 where it is not.
    """

    supplied_arguments: ClassVar[frozenset[str]] = frozenset({"pos_weight"})
