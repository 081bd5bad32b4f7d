"""Base of the classification losses: the module, and the per-class sum over a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._module import Formula, LossModule, formula_arguments
from yolo_losses.losses._reduction import upcast
from yolo_losses.losses._step import Step
from yolo_losses.losses.classification._fast.autograd import Positives, by_autograd, class_sums, elementwise, scattered


def register_cls_loss(
    name: str, *, aliases: tuple[str, ...] = (), source: str = "", summary: str = ""
) -> Callable[[Any], Any]:
    """Register a classification loss under `name`; a decorator for a formula or for a `ClassificationLoss`.

    A formula is a function `(logits, targets, ...) -> loss per element`, all of the same shape. Its further arguments
    are the loss's parameters and become the training keys `{name}_{argument}`; `mean_iou` and `positive_mask` are
    supplied by the criterion. The decorated formula also takes `weight`, `reduction` and `avg_factor`. `summary` is one
    line on the loss for listings and tables, the first line of the docstring by default.

    Raises:
        ValueError: if the name is taken or is not an identifier, or a parameter's declaration is invalid.
    """
    return declares("cls", ClassificationLoss, name, aliases, source, summary)


class ClassificationLoss(LossModule):
    """A classification loss as a module, with MMDetection's calling convention.

    It is called with logits of shape `(..., C)`, or probabilities if it is `activated`, and with targets of the same
    shape, in [0, 1]; or with integer labels of shape `(...)`, where C means background; or with a pair of labels and
    scores, as MMDetection's `QualityFocalLoss`.

    A subclass sets `formula`, and declares parameters beyond the formula's (such as those of state) as annotated
    attributes. What a loss may set or override beside:

    `default_target`: what `cls_target=auto` means for it, `tal` or `iou`.
    `own_divisor`: whether `class_sums` is already normalised; the criterion then cancels Ultralytics' division by the
    sum of the target scores.
    `background`: value and derivative of the formula at target 0 in closed form, which makes the class term faster.
    `prepare`: what the formula is supplied with in a step; state is updated there.

    Args:
        *values: the declared parameters in order.
        activated: whether `pred` are probabilities rather than logits.
        **options: the declared parameters by name, `reduction` and `loss_weight`.

    Raises:
        TypeError: on an undeclared parameter.
        ValueError: on a parameter out of range, or an unknown reduction.
    """

    formula: ClassVar[Formula]
    supplied_arguments: ClassVar[frozenset[str]] = frozenset({"mean_iou", "positive_mask"})
    default_target: ClassVar[str] = "tal"
    own_divisor: ClassVar[bool] = False

    def __init__(self, *values: Any, activated: bool = False, **options: Any) -> None:
        super().__init__(*values, **options)
        self.activated = activated

    def inputs(self, pred: Tensor, target: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Return logits and targets of one shape, in float32 or float64."""
        (logits,) = upcast(pred)
        if self.activated:
            logits = as_logits(logits)
        return logits, as_targets(target, logits)

    def unreduced(self, pred: Tensor, target: Tensor, **supplied: Any) -> Tensor:
        """Return the loss per element."""
        return self.elementwise(pred, target, **supplied)

    def elementwise(self, logits: Tensor, targets: Tensor, **supplied: Any) -> Tensor:
        """Return the loss per element, in float32 or float64."""
        return super().unreduced(logits, targets, **supplied)

    def prepare(self, step: Step) -> dict[str, Any]:
        """Return what the formula is supplied with in this step; state is updated here, in training only."""
        return {"mean_iou": step.mean_iou} if "mean_iou" in formula_arguments(type(self).formula) else {}

    def shown(self, step: Step) -> dict[str, Tensor]:
        """Return scalars of this step, as it was prepared, that `loss_stats` writes the mean of, by column."""
        return {}

    def set_classes(self, classes: int) -> None:
        """Prepare state that is by class; the criterion calls this when it is equipped."""

    def background(self, logits: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
        """Return value and derivative of the formula at target 0, or `None` if there is no closed form.

        The derivative may be written to `out`, which saves a copy.

        With a closed form the background is processed without autograd, in chunks that fit the cache, see `_fast`;
        without one the class term goes through `elementwise` and autograd.
        """
        return None

    def has_closed_form(self) -> bool:
        """Return whether `background` gives the whole loss of elements with target 0, in every class."""
        return type(self).background is not ClassificationLoss.background

    def closed_form(self, logits: Tensor, targets: Tensor, **supplied: Any) -> tuple[Tensor, Tensor] | None:
        """Return value and derivative of the formula per element, or `None` if there is no closed form.

        Args:
            logits: float32 or float64, without gradient.
            targets: same shape and type.
            **supplied: what the formula needs from the step.
        """
        return None

    def per_element(self, logits: Tensor, targets: Tensor, **supplied: Any) -> Tensor:
        """Return the loss per element as `elementwise` does, its gradient in closed form if there is one."""
        if not self._has_closed_form_of_any_target():
            # A copy: the criterion multiplies by class weights in place, and a formula may need its own result.
            return self.elementwise(logits, targets, **supplied).clone()
        closed = functools.partial(self._closed_form, targets=targets, **supplied)
        return elementwise(closed, functools.partial(self.elementwise, targets=targets, **supplied), logits)

    def _has_closed_form_of_any_target(self) -> bool:
        return type(self).closed_form is not ClassificationLoss.closed_form

    def _closed_form(self, logits: Tensor, targets: Tensor, **supplied: Any) -> tuple[Tensor, Tensor]:
        pair = self.closed_form(logits, targets, **supplied)
        assert pair is not None
        return pair

    @classmethod
    def sums_a_batch(cls) -> bool:
        """Return whether a small batch, too, goes through `class_sums`: it is overridden and `per_element` is not."""
        overridden = cls.class_sums is not ClassificationLoss.class_sums
        return overridden and cls.per_element is ClassificationLoss.per_element

    def class_sums(self, logits: Tensor, positives: Positives, step: Step) -> Tensor:
        """Return the loss of a whole batch, summed per class.

        Args:
            logits: shape `(b, anchors, C)`.
            positives: the positive elements and their targets; all others have target 0.
            step: the positives' IoU and the mode, from the criterion.

        Returns:
            Shape `(1, 1, C)`, float32 or float64.
        """
        supplied = self.prepare(step)
        # An overridden `elementwise` may know more than one element, such as its class.
        plain = type(self).elementwise is ClassificationLoss.elementwise
        if self.has_closed_form() or plain:
            foreground = functools.partial(self.elementwise, **supplied)
            background = self._background if self.has_closed_form() else by_autograd(foreground)
            closed = functools.partial(self._closed_form, **supplied) if self._has_closed_form_of_any_target() else None
            return class_sums(background, foreground, logits, positives, closed=closed)
        targets, positive_mask = scattered(logits, positives)
        return self.elementwise(logits, targets, positive_mask=positive_mask, **supplied).sum((0, 1), keepdim=True)

    def _background(self, logits: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        pair = self.background(logits, out)
        assert pair is not None
        return pair


def as_logits(probabilities: Tensor) -> Tensor:
    """Return the logits of probabilities; 0 and 1 become -100 and 100, with gradient 0 rather than infinite."""
    limits = torch.finfo(probabilities.dtype)
    inside = probabilities.clamp(limits.tiny, 1 - limits.eps / 2).logit()
    return torch.where(probabilities <= 0, -100.0, torch.where(probabilities >= 1, 100.0, inside))


def as_targets(target: Tensor | tuple[Tensor, Tensor], logits: Tensor) -> Tensor:
    """Return targets in the logits' shape and type.

    Integer labels become one-hot rows, label C (background) a row of zeros; a pair of labels and scores gives one-hot
    rows times the scores.
    """
    if not isinstance(target, Tensor):
        labels, score = target
        return as_targets(labels, logits) * score.to(logits.dtype).unsqueeze(-1)
    if target.shape == logits.shape:
        return target.to(logits.dtype)
    if target.shape == logits.shape[:-1] and not target.is_floating_point():
        classes = logits.shape[-1]
        if target.numel() and not 0 <= int(target.min()) <= int(target.max()) <= classes:
            raise ValueError(f"labels must lie in 0..{classes}, where {classes} means background")
        return nn.functional.one_hot(target.long(), classes + 1)[..., :classes].to(logits.dtype)
    raise ValueError(f"targets of shape {tuple(target.shape)} do not fit logits of shape {tuple(logits.shape)}")
