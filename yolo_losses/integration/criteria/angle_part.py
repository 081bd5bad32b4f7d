"""The angle term of rotated heads: a part that replaces `v8OBBLoss.calculate_angle_loss`.

Ultralytics calls this method for batches with positives and multiplies the result by the gain `angle`. The part keeps
Ultralytics' weights, the sums of the target scores, and its divisor.
"""

from __future__ import annotations

import inspect
from typing import Any, cast

from torch import Tensor

from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.criteria.branch import Branch
from yolo_losses.integration.criteria.parts import Part, full_precision, put_back, unknown_release
from yolo_losses.losses.angles._base import AngleLoss
from yolo_losses.registry import InvalidValueError

METHOD = "calculate_angle_loss"
ARGUMENTS = ("pred_bboxes", "target_bboxes", "fg_mask", "weight", "target_scores_sum", "lambda_val")


def check(criterion: Any, settings: LossSettings) -> None:
    """Raise if the angle term is chosen and the criterion has none.

    Args:
        criterion: a criterion, or its class.
        settings: the parsed keys.

    Raises:
        InvalidValueError: if the value is invalid; the message has the key.
        RuntimeError: if the stock method has unknown arguments.
    """
    if "angle" not in settings.terms:
        return
    method = getattr(criterion, METHOD, None)
    if method is None:
        import ultralytics

        key = "angle_loss" if settings.angle_loss != "stock" else "angle_lambda"
        name = criterion.__name__ if isinstance(criterion, type) else type(criterion).__name__
        reason = f"which has no angle term in this Ultralytics ({ultralytics.__version__}): leave {key} at its default"
        raise InvalidValueError(key, getattr(settings, key), f"cannot be used with {name}, {reason}")
    names = inspect.signature(method).parameters
    missing = next((name for name in ARGUMENTS if name not in names), "")
    if missing:
        raise unknown_release(criterion, f"{METHOD}(..., {missing})")


def put(criterion: Any, branch: Branch) -> None:
    """Put the angle part in place, if the term is chosen."""
    if "angle" in branch.expected:
        setattr(criterion, METHOD, AnglePart(getattr(criterion, METHOD), branch))


def restore(criterion: Any) -> None:
    """Restore the stock method."""
    put_back(criterion, METHOD)


class AnglePart(Part):
    """Replaces `calculate_angle_loss`, the angle term."""

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the weighted sum of the losses of the positives, divided by the divisor, a scalar.

        Args:
            *args: predicted and target boxes `xywhr`, shape `(b, anchors, 5)`; mask of the positives, shape
                `(b, anchors)`; their weights, shape `(N,)`; the divisor; lambda.
            **kwargs: the same by name.
        """
        settings: LossSettings = self.branch.settings
        bound = inspect.signature(self.stock).bind(*args, **kwargs).arguments
        boxes, targets, positive, weight, divisor = (bound[name] for name in ARGUMENTS[:-1])
        if settings.angle_loss == "stock":
            term: Tensor = self.stock(**{**bound, "lambda_val": settings.angle_lambda})
        elif settings.angle_loss == "off":
            term = boxes[..., :0].sum()
        else:
            loss = cast(AngleLoss, self.branch.losses["angle"])
            with full_precision(boxes):
                pairs = loss.pairs(boxes[positive], targets[positive], lambda_=settings.angle_lambda)
                term = (pairs * weight).sum() / divisor
        return self.record("angle", term)
