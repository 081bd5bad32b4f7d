"""What every mask loss shares: the module, cropping to a box, and the mean over a mask's pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from yolo_losses.declaration import declares
from yolo_losses.formula import Formula, LossModule
from yolo_losses.reduction import check_reduction, reduce_loss, upcast

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
        ValueError: if the name is taken or no identifier, or a parameter's declaration is not usable.
    """
    return declares("seg", MaskLoss, name, aliases, source, summary)


class MaskLoss(LossModule):
    """A mask loss as a module, called as MMDetection's are.

    A subclass names its `formula` and declares the formula's parameters as annotated attributes; they become
    attributes of the module.

    Args:
        reduction: `mean`, `sum` or `none`.
        loss_weight: a factor on the result.
        **parameters: the declared parameters, by name.

    Raises:
        TypeError: on a parameter that is not declared.
        ValueError: on one out of range, or an unknown reduction.
    """

    formula: ClassVar[Formula]
    supplied_arguments: ClassVar[frozenset[str]] = frozenset({"area"})

    def __init__(self, *, reduction: str = "mean", loss_weight: float = 1.0, **parameters: Any) -> None:
        super().__init__(**parameters)
        check_reduction(reduction)
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
        **supplied: Any,
    ) -> Tensor:
        """Return the loss of predicted masks against targets.

        Args:
            pred: logits, shape `(N, H, W)`.
            target: of the same shape, 0 or 1.
            weight: one per mask.
            avg_factor: what `mean` divides by in place of the number of masks.
            reduction_override: used in place of the module's reduction.
            **supplied: what the formula needs of the scene, `area`.

        Raises:
            ValueError: on an unknown reduction or shapes that do not fit.
        """
        reduction = check_reduction(self.reduction, reduction_override)
        loss = self.masks(*upcast(pred, target), **supplied)
        return self.loss_weight * reduce_loss(loss, weight, reduction, avg_factor)

    def masks(self, logits: Tensor, targets: Tensor, **supplied: Any) -> Tensor:
        """Return the loss of every mask, in float32 or more."""
        return type(self).formula(logits, targets, **self.arguments(supplied))


def cropped(logits: Tensor, targets: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits and targets of which the pixels outside the boxes are correctly predicted background.

    Args:
        logits: shape `(N, H, W)`, float32 or more.
        targets: of the same shape.
        inside: which pixels are inside each mask's box, of the same shape.
    """
    return torch.where(inside, logits, OUTSIDE), targets * inside


def pixels(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the masks as rows of pixels, shape `(N, H * W)`.

    Raises:
        ValueError: where they are not of one shape `(N, H, W)`.
    """
    if logits.dim() != 3 or logits.shape != targets.shape:
        raise ValueError(
            f"targets of shape {tuple(targets.shape)} do not fit logits of shape {tuple(logits.shape)}:"
            " wanted are two of shape (N, H, W)"
        )
    return logits.flatten(1), targets.flatten(1)


def pixel_mean(loss: Tensor, area: Tensor | None) -> Tensor:
    """Return the mean of a loss per pixel over each mask, shape `(N,)`.

    Args:
        loss: shape `(N, H * W)`.
        area: the share of the grid that the box covers, shape `(N,)`, where the loss is 0 outside the box: the mean is
            divided by it, and so is one over the box's pixels. `None`: the mean over the grid.
    """
    mean = loss.sum(1) / max(loss.shape[1], 1)
    # A box without an area has no pixel either: the quotient is 0.
    return mean if area is None else ratio(mean, area.to(mean.dtype))


def foreground(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the probabilities of each mask summed over the foreground and over all pixels, and the foreground's size.

    Each has the shape `(N,)`.
    """
    z, t = pixels(logits, targets)
    p = z.sigmoid()
    return (p * t).sum(1), p.sum(1), t.sum(1)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return a quotient of two sums that are at least 0, and 0 where both are."""
    return numerator / denominator.clamp_min(torch.finfo(denominator.dtype).tiny)
