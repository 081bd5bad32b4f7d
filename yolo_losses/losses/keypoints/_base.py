"""Base of the keypoint losses: the module, and the shapes."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from yolo_losses.losses._function import Family
from yolo_losses.losses._module import LossModule


def check_keypoints(first: str, a: Tensor, second: str, b: Tensor) -> None:
    """Raise a `ValueError` if two tensors are not keypoints `(N, K, 2)` or wider, in pairs."""
    for name, points in ((first, a), (second, b)):
        if points.dim() != 3 or points.shape[-1] < 2:
            raise ValueError(
                f"'{name}' of shape {tuple(points.shape)} is not valid: allowed are keypoints of shape (N, K, 2)"
            )
    if a.shape[:2] != b.shape[:2]:
        raise ValueError(
            f"'{second}' of shape {tuple(b.shape)} does not fit '{first}' of shape {tuple(a.shape)}:"
            " both must have as many objects and keypoints"
        )


KEYPOINTS = Family("keypoints", "per keypoint, shape `(N, K)`, or per object.", check_keypoints)


class KeypointLoss(LossModule):
    """Base class of keypoint losses; see `LossModule` for its arguments.

    `in_pixels`: whether the formula is in pixels; the criterion's unit is the stride of each object's anchor.
    """

    family: ClassVar[Family] = KEYPOINTS
    supplied_arguments: ClassVar[frozenset[str]] = frozenset({"area", "sigmas"})
    in_pixels: ClassVar[bool] = False

    def keypoints(self, pred: Tensor, target: Tensor, **supplied: Any) -> Tensor:
        """Return the loss per keypoint, shape `(N, K)`, in float32 or float64."""
        return self.unreduced(*self.inputs(pred, target), **supplied)
