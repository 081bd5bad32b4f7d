"""The angle term of rotated heads: a loss in place of `v8OBBLoss.calculate_angle_loss`.

Upstream calls that where a batch has positives, and multiplies what it returns by the gain `angle`. What stands in for
it keeps upstream's weights, the sums of the targets' scores, and its divisor.
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
        InvalidValueError: one line with the key.
        RuntimeError: if the method in place takes other arguments than are known.
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
    """Put the angle part of a branch in place, where its term is swapped."""
    if "angle" in branch.expected:
        setattr(criterion, METHOD, AnglePart(getattr(criterion, METHOD), branch))


def restore(criterion: Any) -> None:
    """Put the stock method back."""
    put_back(criterion, METHOD)


class AnglePart(Part):
    """The angle term in place of `calculate_angle_loss`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the weighted sum of the losses of the positives over the divisor, a scalar.

        Args:
            *args: predicted and target boxes `xywhr`, shape `(b, anchors, 5)`; which of them are positives, shape
                `(b, anchors)`; the weights of these, shape `(N,)`; the divisor; lambda.
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
