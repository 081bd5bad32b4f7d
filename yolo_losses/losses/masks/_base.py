"""Base of the mask losses: the module, cropping to a box, and the mean over a mask's pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Family, check_same_shape
from yolo_losses.losses._module import LossModule

# The logit of a pixel outside the box. With target 0 its loss is exactly 0 in every precision.
OUTSIDE = -1e4


def register_seg_loss(
    name: str, *, aliases: tuple[str, ...] = (), source: str = "", summary: str = ""
) -> Callable[[Any], Any]:
    """Register a mask loss under `name`; a decorator for a formula or for a `MaskLoss`.

    A formula is a function `(logits, targets, ...) -> loss per mask`, of shape `(N, H, W)` and `(N,)`. Its further
    arguments are the loss's parameters and become the training keys `seg_{name}_{argument}`; `area` is supplied by the
    criterion. The decorated formula also takes `weight`, `reduction` and `avg_factor`.

    Raises:
        ValueError: if the name is taken or is not an identifier, or a parameter's declaration is invalid.
    """
    return declares("seg", MaskLoss, name, aliases, source, summary)


def check_masks(first: str, a: Tensor, second: str, b: Tensor) -> None:
    """Raise a `ValueError` if two tensors are not masks of one shape."""
    if a.dim() != 3:
        raise ValueError(f"'{first}' of shape {tuple(a.shape)} is not valid: allowed are masks of shape (N, H, W)")
    check_same_shape(first, a, second, b)


MASKS = Family("masks", "per mask.", check_masks)


class MaskLoss(LossModule):
    """Base class of mask losses; see `LossModule` for its arguments."""

    family: ClassVar[Family] = MASKS
    supplied_arguments: ClassVar[frozenset[str]] = frozenset({"area"})

    def unreduced(self, pred: Tensor, target: Tensor, **supplied: Any) -> Tensor:
        """Return the loss per mask."""
        return self.masks(pred, target, **supplied)

    def masks(self, logits: Tensor, targets: Tensor, **supplied: Any) -> Tensor:
        """Return the loss per mask, in float32 or float64."""
        return super().unreduced(logits, targets, **supplied)


def cropped(logits: Tensor, targets: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits and targets whose pixels outside the boxes are correctly predicted background.

    Args:
        logits: shape `(N, H, W)`, float32 or float64.
        targets: same shape.
        inside: which pixels are inside each mask's box, same shape.
    """
    return torch.where(inside, logits, OUTSIDE), targets * inside


def pixel_mean(loss: Tensor, area: Tensor | None) -> Tensor:
    """Return the mean of a loss per pixel over each mask, shape `(N,)`.

    Args:
        loss: shape `(N, H * W)`.
        area: the share of the grid that each mask's box covers, shape `(N,)`, if the loss is 0 outside the box; the
            mean divided by it is the mean over the box. `None`: the mean over the grid.
    """
    mean = loss.sum(1) / max(loss.shape[1], 1)
    # A box without area has no pixels: the quotient is 0.
    return mean if area is None else ratio(mean, area.to(mean.dtype))


def foreground(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sum of the probabilities over the foreground, that over all pixels, and the size of the foreground.

    Each has shape `(N,)`, per mask.
    """
    t = targets.flatten(1)
    p = logits.flatten(1).sigmoid()
    return (p * t).sum(1), p.sum(1), t.sum(1)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return the quotient of two sums that are at least 0; it is 0 where both are 0."""
    return numerator / denominator.clamp_min(torch.finfo(denominator.dtype).tiny)
