"""What every classification loss shares: the module, and the sum over a whole batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from yolo_losses.classification import _dense
from yolo_losses.declaration import declares
from yolo_losses.formula import Formula, LossModule, formula_arguments
from yolo_losses.reduction import check_reduction, reduce_loss, upcast
from yolo_losses.step import Step


@dataclass(frozen=True)
class Positives:
    """The positive elements of a batch: anchor i (flat over the batch) with its class.

    Attributes:
        index: their positions in the flattened logits, shape `(N,)`, at most one an anchor.
        target: the target of each, shape `(N,)`.
        valid: which of them count, shape `(N,)`; `None`: all. (On a GPU all anchors are listed and masked, since
            selecting some would make the host wait.)
    """

    index: Tensor
    target: Tensor
    valid: Tensor | None = None


def register_cls_loss(
    name: str, *, aliases: tuple[str, ...] = (), source: str = "", summary: str = ""
) -> Callable[[Any], Any]:
    """Register a classification loss under `name`; a decorator for a formula or for a `ClassificationLoss`.

    A formula is a function `(logits, targets, ...) -> loss per element`, all of one shape. Its further arguments are
    the loss's parameters and become the training keys `{name}_{argument}`; `mean_iou` and `positive_mask` are
    supplied by the criterion. The decorated formula also takes `weight`, `reduction` and `avg_factor`.

    Raises:
        ValueError: if the name is taken or no identifier, or a parameter's declaration is not usable.
    """
    return declares("cls", ClassificationLoss, name, aliases, source, summary)


class ClassificationLoss(LossModule):
    """A classification loss as a module, called as MMDetection's are.

    A subclass names its `formula` and, where it has more than the formula's parameters (state has), declares them as
    annotated attributes. The parameters become attributes of the module.

    Args:
        reduction: `mean`, `sum` or `none`.
        loss_weight: a factor on the result.
        activated: whether `pred` are probabilities rather than logits.
        **parameters: the declared parameters, by name.

    Raises:
        TypeError: on a parameter that is not declared.
        ValueError: on one out of range, or an unknown reduction.
    """

    formula: ClassVar[Formula]
    supplied_arguments: ClassVar[frozenset[str]] = frozenset({"mean_iou", "positive_mask"})
    default_target: ClassVar[str] = "tal"
    own_divisor: ClassVar[bool] = False

    def __init__(
        self, *, reduction: str = "mean", loss_weight: float = 1.0, activated: bool = False, **parameters: Any
    ) -> None:
        super().__init__(**parameters)
        check_reduction(reduction)
        self.reduction = reduction
        self.loss_weight = loss_weight
        self.activated = activated

    def forward(
        self,
        pred: Tensor,
        target: Tensor | tuple[Tensor, Tensor],
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
        **supplied: Any,
    ) -> Tensor:
        """Return the loss of predictions against targets.

        Args:
            pred: logits, shape `(..., C)`; probabilities where the module is `activated`.
            target: of the same shape, in [0, 1]; or integer labels of shape `(...)`, where C means background; or a
                pair of such labels and the score of each.
            weight: of the shape of `pred`, of its leading dimensions, or flat.
            avg_factor: what `mean` divides by in place of the number of elements.
            reduction_override: used in place of the module's reduction.
            **supplied: what the formula needs of the step, `mean_iou` or `positive_mask`.

        Raises:
            ValueError: on an unknown reduction or shapes that do not fit.
        """
        reduction = check_reduction(self.reduction, reduction_override)
        (logits,) = upcast(pred)
        if self.activated:
            logits = as_logits(logits)
        targets = as_targets(target, logits)
        loss = self.elementwise(logits, targets, **supplied)
        return self.loss_weight * reduce_loss(loss, weight, reduction, avg_factor)

    def elementwise(self, logits: Tensor, targets: Tensor, **supplied: Any) -> Tensor:
        """Return the loss of every element, in float32 or more."""
        return type(self).formula(logits, targets, **self.arguments(supplied))

    def prepare(self, step: Step) -> dict[str, Any]:
        """Return what the formula is supplied with in this step; a loss with state updates it here, in training."""
        return {"mean_iou": step.mean_iou} if "mean_iou" in formula_arguments(type(self).formula) else {}

    def background(self, logits: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
        """Return value and derivative of the formula at target 0, or `None` where it has no closed form here.

        The derivative may be written to `out`, which saves a copy.

        With a closed form the loss of a whole batch is worked through in pieces that stay in the cache, see `_dense`;
        without, through `elementwise` and autograd.
        """
        return None

    def has_closed_form(self) -> bool:
        """Return whether `background` tells the whole loss of elements of target 0, whatever their class."""
        return type(self).background is not ClassificationLoss.background

    def class_sums(self, logits: Tensor, positives: Positives, step: Step) -> Tensor:
        """Return the loss of a whole batch summed over all but the classes.

        Args:
            logits: shape `(b, anchors, C)`.
            positives: the elements whose target is not that of the background.
            step: what the criterion knows of the step.

        Returns:
            Shape `(1, 1, C)`, float32 or more.
        """
        supplied = self.prepare(step)
        if self.has_closed_form():
            foreground = functools.partial(self.elementwise, **supplied)
            return _dense.class_sums(self._closed_form, foreground, logits, positives)
        targets, positive_mask = _dense.scattered(logits, positives)
        return self.elementwise(logits, targets, positive_mask=positive_mask, **supplied).sum((0, 1), keepdim=True)

    def _closed_form(self, logits: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        pair = self.background(logits, out)
        assert pair is not None
        return pair


def as_logits(probabilities: Tensor) -> Tensor:
    """Return the logits of probabilities: 100 and -100 at 1 and 0, where the gradient is 0 rather than infinite."""
    limits = torch.finfo(probabilities.dtype)
    inside = probabilities.clamp(limits.tiny, 1 - limits.eps / 2).logit()
    return torch.where(probabilities <= 0, -100.0, torch.where(probabilities >= 1, 100.0, inside))


def as_targets(target: Tensor | tuple[Tensor, Tensor], logits: Tensor) -> Tensor:
    """Return targets of the logits' shape and type.

    Integer labels become one-hot rows, the label C a row of zeros; a pair of labels and scores such rows times their
    score.
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
