"""The class term of a whole batch: what it is given, and how a closed form goes through it in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from yolo_losses.losses._reduction import upcast

CHUNK = 2**17  # elements: a few temporaries of this size fit the second-level cache
CHUNK_ON_GPU = 2**23  # few launches, and temporaries that are small beside the batch

ClosedForm = Callable[..., tuple[Tensor, Tensor]]


class Batch:
    """Logits of a batch and their targets, of all elements or of the rows (anchors) that have any.

    Args:
        positive_mask: the positive elements, shape as `targets`, or what computes them: those with a target, and
            positives of target 0. `None`: those with a target.

    Attributes:
        logits: shape `(..., C)`.
        targets: of the logits' shape, in [0, 1]; with `rows`, those of these rows, shape `(N, C)`, and 0 elsewhere.
        rows: numbers of the rows with targets or positives, shape `(N,)`; `None`: all of them.
    """

    def __init__(
        self,
        logits: Tensor,
        targets: Tensor,
        positive_mask: Tensor | Callable[[], Tensor] | None = None,
        rows: Tensor | None = None,
    ) -> None:
        self.logits = logits
        self.targets = targets
        self.rows = rows
        self._positive_mask = positive_mask

    @cached_property
    def positive_mask(self) -> Tensor:
        """The positive elements, shape as `targets`."""
        if self._positive_mask is None:
            return self.targets > 0
        return self._positive_mask if isinstance(self._positive_mask, Tensor) else self._positive_mask()

    def dense(self, of_rows: Tensor) -> Tensor:
        """Return a tensor of the shape of `targets` in that of the logits, 0 where there is no target."""
        if self.rows is None:
            return of_rows
        whole = of_rows.new_zeros(self.logits.shape).view(-1, of_rows.shape[-1])
        return whole.index_copy_(0, self.rows, of_rows).view(self.logits.shape)

    def chunks(self) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        """Yield which rows, their logits in float32 or more, and their targets, which are `None` (0) with `rows`.

        A batch of one chunk keeps its shape, others come as matrices.
        """
        if self.rows is None and fits_one_chunk(self.logits):
            logits, targets = upcast(self.logits.detach(), self.targets)
            yield slice(None), logits, targets
            return
        classes = self.logits.shape[-1]
        logits, targets = self.logits.detach().reshape(-1, classes), self.targets.reshape(-1, classes)
        step = rows_in_a_chunk(logits)
        for first in range(0, len(logits), step):
            part = slice(first, first + step)
            yield part, *(upcast(logits[part], targets[part]) if self.rows is None else (upcast(logits[part])[0], None))

    def selected(self) -> tuple[Tensor, Tensor]:
        """Return the logits, float32 or more, and the targets of `rows`."""
        assert self.rows is not None
        logits, targets = upcast(self.logits.detach().reshape(-1, self.logits.shape[-1])[self.rows], self.targets)
        return logits, targets


def rows_in_a_chunk(logits: Tensor) -> int:
    """Return how many rows of a matrix, shape `(..., C)`, are evaluated at once on its device."""
    return max(1, (CHUNK if logits.device.type == "cpu" else CHUNK_ON_GPU) // max(logits.shape[-1], 1))


def fits_one_chunk(logits: Tensor) -> bool:
    """Return whether a batch of shape `(..., C)` is evaluated at once."""
    return logits.numel() <= rows_in_a_chunk(logits) * logits.shape[-1]


@torch.no_grad()
def evaluate(form: ClosedForm, batch: Batch, with_mask: bool, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """Return value and derivative per element, in the logits' shape, float32 or more; the derivative where wanted.

    A batch with `rows` is first evaluated at target 0 everywhere, which takes fewer operations, and then at its rows.

    Args:
        form: value and derivative of logits and targets (`None`: 0), of the same shape.
        batch: the logits and targets.
        with_mask: whether the form is given the `positive_mask` of what it evaluates.
        with_gradient: whether the derivative is wanted.
    """
    if batch.rows is None and fits_one_chunk(batch.logits):
        given = {"positive_mask": batch.positive_mask} if with_mask else {}
        value, gradient = form(*upcast(batch.logits, batch.targets), **given)
        return value, gradient if with_gradient else None
    shape, dtype = batch.logits.shape, torch.promote_types(batch.logits.dtype, torch.float32)
    whole = [batch.logits.new_empty(shape, dtype=dtype) for _ in range(1 + with_gradient)]
    classes = shape[-1]

    def store(where: Any, found: tuple[Tensor, Tensor]) -> None:
        for output, each in zip(whole, found, strict=False):
            output.view(-1, classes)[where] = each

    mask = batch.positive_mask.view(-1, classes) if with_mask else None
    for part, logits, targets in batch.chunks():
        given = {"positive_mask": mask[part]} if mask is not None and targets is not None else {}
        store(part, form(logits, targets, **given))
    if batch.rows is not None:
        given = {} if mask is None else {"positive_mask": mask}
        store(batch.rows, form(*batch.selected(), **given))
    return whole[0], whole[1] if with_gradient else None


def differentiable(
    logits: Tensor, value: Tensor, gradient: Tensor | None, formula: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return a loss per element that was evaluated without autograd, with its gradient at the logits.

    Args:
        logits: of any shape and precision.
        value: the loss, of the same shape; a new tensor, since it is returned.
        gradient: derivative of each element of the loss by its logit; `None`: not wanted.
        formula: the loss of the logits, differentiable, for second derivatives.
    """
    loss: Tensor = _Differentiable.apply(logits, (value, gradient, formula))
    return loss


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, evaluated: tuple[Tensor, Tensor | None, Any]) -> Tensor:
        value, gradient, ctx.formula = evaluated
        ctx.save_for_backward(logits, gradient)
        return value

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        logits, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # `create_graph`: only the formula has a second derivative
            loss = ctx.formula(logits.to(grad_output.dtype))
            return torch.autograd.grad(loss, logits, grad_output, create_graph=True)[0], None
        return (gradient * grad_output).to(logits.dtype), None
