"""Bases of the losses of semantic segmentation, on the valid pixels of a batch."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._function import Family
from yolo_losses.losses._module import LossModule
from yolo_losses.losses.classify._base import check_labels

PIXELS = Family("pixels", "per pixel.", check_labels)
CLASSES = Family("classes", "per class.", check_labels)


class PixelLoss(LossModule):
    """Base class of losses per pixel in semantic segmentation; see `LossModule` for its arguments."""

    family: ClassVar[Family] = PIXELS
    supplied_arguments: ClassVar[frozenset[str]] = frozenset({"class_weights"})

    def pixels(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss per pixel, shape `(P,)`, in float32 or float64."""
        return self.unreduced(*self.inputs(logits, targets))

    def counted(self, loss: Tensor) -> Tensor | None:
        """Return which pixels a mean is over, shape `(P,)`; `None`: all of them."""
        return None

    def mean_over_pixels(self, loss: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Return the mean of a loss per pixel, with class weights a weighted one; its divisor is at least 1.

        Args:
            loss: without the weights, shape `(P,)`.
            targets: labels, shape `(P,)`.
            class_weights: one for each class, shape `(C,)`.
        """
        weights = weighted(torch.ones_like(loss), targets, class_weights)
        counted = self.counted(loss)
        divisor = weights.sum() if counted is None else (weights * counted).sum()
        return (loss * weights).sum() / divisor.clamp_min(1)


class RegionLoss(LossModule):
    """Base class of losses per class in semantic segmentation; see `LossModule` for its arguments."""

    family: ClassVar[Family] = CLASSES

    def classes(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss per class, shape `(C,)`, in float32 or float64."""
        return self.unreduced(*self.inputs(logits, targets))

    def mean_over_classes(self, loss: Tensor, targets: Tensor) -> Tensor:
        """Return the mean of a loss per class over all classes, those without a pixel included.

        Args:
            loss: shape `(C,)`.
            targets: labels, shape `(P,)`.
        """
        return loss.mean()


def log_probability(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the logarithm of the probability of each pixel's label, shape `(P,)`.

    Args:
        logits: shape `(P, C)`.
        targets: labels, shape `(P,)`.
    """
    return logits.log_softmax(-1).gather(1, targets.long().unsqueeze(1)).squeeze(1)


def weighted(loss: Tensor, targets: Tensor, class_weights: Tensor | None) -> Tensor:
    """Return a loss per pixel times the weight of the pixel's label."""
    return loss if class_weights is None else loss * class_weights.to(loss)[targets.long()]


def overlaps(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return, by class, the sum of its probabilities at its pixels, at all pixels, and the number of its pixels.

    Args:
        logits: of the valid pixels, shape `(P, C)`.
        targets: labels, shape `(P,)`.

    Returns:
        Each of shape `(C,)`.
    """
    p = logits.softmax(-1)
    labels = targets.long()
    at_label = p.gather(1, labels.unsqueeze(1)).squeeze(1)
    hit = p.new_zeros(p.shape[1]).index_add(0, labels, at_label)
    size = torch.zeros_like(hit).index_add_(0, labels, torch.ones_like(at_label))
    return hit, p.sum(0), size
