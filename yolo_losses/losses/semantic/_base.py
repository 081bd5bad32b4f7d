"""Base of the losses of semantic segmentation, on the valid pixels of a batch, and counts by class."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._function import Family
from yolo_losses.losses._module import LossModule
from yolo_losses.losses.classify._base import check_labels

PIXELS = Family("pixels", "per pixel.", check_labels)
CLASSES = Family("classes", "per class.", check_labels)


class PixelLoss(LossModule):
    """A loss per pixel as a module, with MMDetection's calling convention; `class_weights` are supplied."""

    family: ClassVar[Family] = PIXELS
    supplied_arguments: ClassVar[frozenset[str]] = frozenset({"smoothing", "class_weights"})

    def pixels(self, logits: Tensor, targets: Tensor, **supplied: Any) -> Tensor:
        """Return the loss per pixel, shape `(P,)`, in float32 or float64."""
        return self.unreduced(*self.inputs(logits, targets), **supplied)


class RegionLoss(LossModule):
    """A loss per class as a module, with MMDetection's calling convention."""

    family: ClassVar[Family] = CLASSES

    def classes(self, logits: Tensor, targets: Tensor, **supplied: Any) -> Tensor:
        """Return the loss per class, shape `(C,)`, in float32 or float64."""
        return self.unreduced(*self.inputs(logits, targets), **supplied)


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
