"""Base of the classification losses: the module, and the class term of a whole batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from yolo_losses.losses._declaration import declares
from yolo_losses.losses._function import Formula, formula_arguments
from yolo_losses.losses._module import LossModule
from yolo_losses.losses._reduction import upcast
from yolo_losses.losses._step import Step
from yolo_losses.losses.classification._batch import Batch, differentiable, evaluate


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
    attributes. A loss may also set or override:

    `default_target`: what `cls_target=auto` means for it, `tal` or `iou`.
    `own_divisor`: whether the loss is a mean over all elements; the criterion then cancels Ultralytics' division by the
    sum of the target scores.
    `closed_form`: value and derivative of the formula, which makes the class term faster.
    `prepare`: what the formula is supplied with in a step; state is updated there.

    Args:
        *values: the declared parameters in order.
        activated: whether `pred` are probabilities rather than logits.
        **options: the declared parameters by name, `reduction` and `loss_weight`.

    Raises:
        TypeError: if a parameter is not declared.
        ValueError: if a parameter is out of range, or the reduction is unknown.
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

    def step_statistics(self, step: Step) -> dict[str, Tensor]:
        """Return scalars of this step, as it was prepared, that `loss_stats` writes the mean of, by column."""
        return {}

    def set_classes(self, classes: int) -> None:
        """Prepare state that is by class; the criterion calls this when it is equipped."""

    def closed_form(self, logits: Tensor, targets: Tensor | None, **supplied: Any) -> tuple[Tensor, Tensor]:
        """Return value and derivative of the formula per element, both new tensors; a subclass may define it.

        Over 99 % of the elements of a batch have target 0. With a closed form the class term is evaluated in chunks
        without autograd, and first as if all targets were 0; without one the formula sees the whole batch, through
        autograd.

        Args:
            logits: float32 or float64, shape `(..., C)`; not to be changed.
            targets: same shape and type, not to be changed; `None`: 0 everywhere, and no positives.
            **supplied: what `prepare` returned, and `positive_mask` where the formula takes it and there are targets.
        """
        raise NotImplementedError

    def per_element(self, batch: Batch, step: Step) -> tuple[Tensor, Tensor | None]:
        """Return the class term of a batch per element.

        Args:
            batch: logits, of shape `(b, anchors, C)`, and targets.
            step: the positives' IoU and the mode, from the criterion.

        Returns:
            The loss, of the logits' shape, a new tensor in float32 or more; and the gradient of its sum at the
            logits, `None` where it is not known yet: without gradients, or without a closed form.
        """
        return self.evaluate(batch, self.prepare(step))

    def evaluate(self, batch: Batch, supplied: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Return the same, given what the formula is supplied with."""
        with_mask = "positive_mask" in self._taken

        def formula(logits: Tensor) -> Tensor:
            logits, targets = upcast(logits, batch.dense(batch.targets))
            mask = {"positive_mask": batch.dense(batch.positive_mask)} if with_mask else {}
            return self.elementwise(logits, targets, **mask, **supplied)

        if type(self).closed_form is ClassificationLoss.closed_form:
            # A copy: the criterion multiplies by class weights in place, and a formula may need its own result.
            return formula(batch.logits).clone(), None
        wanted = torch.is_grad_enabled() and batch.logits.requires_grad
        form = functools.partial(self.closed_form, **supplied)
        value, gradient = evaluate(form, batch, with_mask=with_mask, with_gradient=wanted)
        return differentiable(batch.logits, value, gradient, formula), gradient


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
