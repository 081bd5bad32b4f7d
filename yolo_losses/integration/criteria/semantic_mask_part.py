"""The term of YOLO26's auxiliary masks, one per image and class: a part that replaces `bcedice_loss`.

Ultralytics trains an auxiliary layer, which is discarded after training, to classify each pixel, and multiplies the
term by the gain `box`. The one-to-one branch sees its predictions detached, so the term has no gradient there.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from ultralytics.nn import tasks

from yolo_losses.config.settings import LossSettings
from yolo_losses.integration.criteria.branch import Branch
from yolo_losses.integration.criteria.parts import Part, check_term, full_precision, missing_term, put_back

NAME = "bcedice_loss"


def check_head(model: Any, settings: LossSettings) -> None:
    """Raise a `ValueError` if the term is chosen and a model predicts no auxiliary masks; its criterion cannot know.

    Args:
        model: a model of Ultralytics; any other is not checked.
        settings: the parsed keys.
    """
    layers = getattr(model, "model", None)
    if "sem" not in settings.terms or not isinstance(layers, nn.Sequential):
        return
    predicted = getattr(getattr(layers[-1], "proto", None), "semseg", None)
    # YOLOE has the layer but does not use it.
    if predicted is None or isinstance(model, getattr(tasks, "YOLOEModel", ())):
        raise missing_term(type(layers[-1]).__name__, settings, "sem")


def check(criterion: Any, settings: LossSettings) -> None:
    """Raise a `ValueError` if the term is chosen and the criterion has none."""
    check_term(criterion, settings, "sem", NAME)


def put(criterion: Any, branch: Branch) -> None:
    """Put the part in place, if the term is chosen."""
    if "sem" in branch.expected:
        setattr(criterion, NAME, SemanticMaskPart(getattr(criterion, NAME), branch))


def restore(criterion: Any) -> None:
    """Restore the stock part."""
    put_back(criterion, NAME)


class SemanticMaskPart(Part):
    """Replaces `bcedice_loss`, the term of the auxiliary masks."""

    def __call__(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the mean over images and classes, a scalar.

        Args:
            pred: logits, shape `(N, C, H, W)`.
            target: 1 where a pixel belongs to an object of the class, else 0, shape `(N, C, H', W')`.
        """
        settings, loss = self.branch.settings, self.branch.losses.get("sem")
        if settings.sem_loss == "off":
            return self.record("sem", pred[..., :0].sum())
        if loss is None:
            term = self.stock(pred, target)
        else:
            with full_precision(pred):
                target = nn.functional.interpolate(target, pred.shape[-2:], mode="nearest")
                term = loss(pred.flatten(0, 1), target.flatten(0, 1))
        return self.record("sem", term * settings.sem_scale)
