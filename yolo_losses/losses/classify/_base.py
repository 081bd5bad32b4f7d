"""Base of the losses of the task classify: a softmax over classes, labels or probabilities as targets."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from yolo_losses.losses._function import Family
from yolo_losses.losses._module import LossModule


def check_images(first: str, logits: Tensor, second: str, targets: Tensor) -> None:
    """Raise a `ValueError` if two tensors are not logits `(N, C)` and labels `(N,)` or probabilities `(N, C)`."""
    if logits.dim() != 2 or targets.shape not in (logits.shape, logits.shape[:1]):
        raise ValueError(
            f"'{second}' of shape {tuple(targets.shape)} does not fit '{first}' of shape {tuple(logits.shape)}:"
            " allowed are logits (N, C), and labels (N,) or probabilities (N, C)"
        )


def check_labels(first: str, logits: Tensor, second: str, targets: Tensor) -> None:
    """Raise a `ValueError` if two tensors are not logits `(N, C)` and labels `(N,)`."""
    if logits.dim() != 2 or targets.shape != logits.shape[:1]:
        raise ValueError(
            f"'{second}' of shape {tuple(targets.shape)} does not fit '{first}' of shape {tuple(logits.shape)}:"
            " allowed are logits (N, C), and labels (N,)"
        )


IMAGES = Family("images", "per image.", check_images)
LABELS = Family("images", "per image.", check_labels)


class ClassifyLoss(LossModule):
    """Base class of losses of the task classify; see `LossModule` for its arguments."""

    family: ClassVar[Family] = IMAGES
    supplied_arguments: ClassVar[frozenset[str]] = frozenset({"smoothing", "class_weights"})

    def images(self, logits: Tensor, targets: Tensor, **supplied: Any) -> Tensor:
        """Return the loss per image, shape `(N,)`, in float32 or float64; `supplied`: `smoothing`, `class_weights`."""
        return self.unreduced(*self.inputs(logits, targets), **supplied)

    def mean_over_images(self, loss: Tensor, targets: Tensor, class_weights: Tensor | None) -> Tensor:
        """Return the mean of a loss per image, with class weights a weighted one as in torch's cross-entropy.

        Args:
            loss: shape `(N,)`, the weights included.
            targets: labels, shape `(N,)`, or probabilities, shape `(N, C)`.
            class_weights: one for each class, shape `(C,)`.
        """
        if class_weights is None:
            return loss.sum() / max(len(loss), 1)
        of_images = class_weights[targets.long()] if targets.dim() == 1 else (targets * class_weights).sum(-1)
        return loss.sum() / of_images.sum().clamp_min(torch.finfo(loss.dtype).tiny)


def as_probabilities(targets: Tensor, logits: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return targets as probabilities over the classes, shape `(N, C)`, in the logits' type.

    Args:
        targets: labels, shape `(N,)`, or probabilities, shape `(N, C)`.
        logits: shape `(N, C)`.
        smoothing: the share of each target that is spread evenly over all classes, in [0, 1).
    """
    if targets.shape != logits.shape:
        targets = nn.functional.one_hot(targets.long(), logits.shape[1])
    targets = targets.to(logits.dtype)
    return targets if smoothing == 0 else targets * (1 - smoothing) + smoothing / logits.shape[1]


def sum_over_classes(loss: Tensor, class_weights: Tensor | None) -> Tensor:
    """Return the sum over classes of a loss per class, shape `(N, C)`, times the classes' weights."""
    return (loss if class_weights is None else loss * class_weights.to(loss)).sum(-1)
