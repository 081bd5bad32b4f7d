"""The class term with its gradient written in the forward pass.

Away from the positives the target is 0, so all but under 1 % of the elements need the logits alone, and value and
derivative of the formula there have a closed form. The derivative is written in the forward pass into the one tensor
that is kept beside the logits; at the positives, both come from the formula itself. Small batches, where operations
cost more than arithmetic, are worked through as whole tensors instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from yolo_losses.losses._reduction import upcast
from yolo_losses.losses.classification._fast import cpu, gpu

Background = Callable[..., tuple[Tensor, Tensor]]
Foreground = Callable[..., Tensor]
ClosedForm = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Positives:
    """The positive elements of a batch: anchor i (flat over the batch) with its class.

    Attributes:
        index: their positions in the flattened logits, shape `(N,)`, at most one per anchor.
        target: the target of each, shape `(N,)`.
        valid: which of them count, shape `(N,)`; `None`: all. (On a GPU all anchors are listed and masked, since
            selecting some synchronises.)
    """

    index: Tensor
    target: Tensor
    valid: Tensor | None = None


def scattered(logits: Tensor, positives: Positives) -> tuple[Tensor, Tensor]:
    """Return dense targets in float32 or more, and the mask of the positives, both of the logits' shape."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    valid = positives.valid if positives.valid is not None else torch.ones_like(positives.index, dtype=torch.bool)
    targets = torch.zeros(logits.numel(), dtype=dtype, device=logits.device)
    mask = torch.zeros(logits.numel(), dtype=torch.bool, device=logits.device)
    targets.index_copy_(0, positives.index, torch.where(valid, positives.target.to(dtype), 0))
    mask.index_copy_(0, positives.index, valid)
    return targets.view_as(logits), mask.view_as(logits)


def class_sums(
    background: Background,
    foreground: Foreground,
    logits: Tensor,
    positives: Positives,
    *extras: Tensor,
    closed: ClosedForm | None = None,
) -> Tensor:
    """Return the loss summed over batch and anchors, shape `(1, 1, C)`.

    Args:
        background: value and derivative at target 0, given logits, the extras, and `out` to write the derivative to.
        foreground: the formula: the loss of logits and targets, given `positive_mask`.
        logits: shape `(b, anchors, C)`.
        positives: the elements whose target is not that of the background.
        *extras: tensors of this step that the background needs.
        closed: the formula's value and derivative, given the same; `None`: the formula is differentiated.
    """
    sums: Tensor = _ClassSums.apply(logits, background, foreground, positives, extras, closed)
    return sums


def kept_gradient(term: Tensor) -> Tensor | None:
    """Return the gradient of the sum by the logits that `class_sums` or `elementwise` keeps until its backward pass.

    `None`: none is kept.
    """
    node: Any = term.grad_fn
    if getattr(type(node), "_forward_cls", None) is _Elementwise:
        slope: Tensor = node.saved_tensors[1]
        return slope
    gradient: Tensor | None = getattr(node, "gradient", None)
    return gradient


class _ClassSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        background: Background,
        foreground: Foreground,
        positives: Positives,
        extras: tuple[Tensor, ...],
        closed: ClosedForm | None,
    ) -> Tensor:
        ctx.save_for_backward(logits)
        ctx.again = background, foreground, positives, extras, closed
        sums, ctx.gradient = _sums_and_gradient(logits, *ctx.again, wanted=ctx.needs_input_grad[0])
        return sums

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (logits,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # `create_graph`: a second derivative is wanted, which only the formula has
            _, foreground, positives, _, _ = ctx.again
            targets, mask = scattered(logits, positives)
            sums = foreground(logits.to(targets.dtype), targets, positive_mask=mask).sum((0, 1), keepdim=True)
            return torch.autograd.grad(sums, logits, grad_output, create_graph=True)[0], *[None] * 5
        # The kept tensor is scaled in place, which saves a copy of it; a second backward works it out anew.
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            gradient = _sums_and_gradient(logits, *ctx.again, wanted=True)[1]
        return gradient.mul_(grad_output).to(logits.dtype), *[None] * 5


def _sums_and_gradient(
    logits: Tensor,
    background: Background,
    foreground: Foreground,
    positives: Positives,
    extras: tuple[Tensor, ...],
    closed: ClosedForm | None,
    *,
    wanted: bool,
) -> tuple[Tensor, Tensor | None]:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    rows = logits.detach().reshape(-1, logits.shape[-1])
    z, target = rows.reshape(-1)[positives.index].to(dtype), positives.target.to(dtype)
    if closed is None:
        value, slope = _at_positives(foreground, z, target, wanted)
    else:
        value, slope = closed(z, target, positive_mask=torch.ones_like(target, dtype=torch.bool))
        slope = slope if wanted else None
    if rows.device.type == "cpu":
        sums, gradient = cpu.pass_over(rows, background, positives, value, slope, extras, dtype)
    else:
        sums, gradient = gpu.pass_over(rows, background, positives, value, slope, extras, dtype)
    # A copy: the criterion multiplies the result by class weights in place, which a view does not allow here.
    return sums.view(1, 1, -1).to(dtype, copy=True), gradient if gradient is None else gradient.view(logits.shape)


def _at_positives(foreground: Foreground, z: Tensor, target: Tensor, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """Return the formula's value and, where wanted, its derivative at the positives."""
    with torch.inference_mode(False), torch.enable_grad():
        # A copy: logits of a validation step may belong to inference mode, which allows no gradient.
        z, target = z.clone().requires_grad_(wanted), target.clone()
        value = foreground(z, target, positive_mask=torch.ones_like(target, dtype=torch.bool))
        return value.detach(), torch.autograd.grad(value.sum(), z)[0] if wanted else None


def by_autograd(formula: Foreground) -> Background:
    """Return the background of a formula without a closed form: differentiated piece by piece."""

    def background(logits: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            z = logits.clone().requires_grad_()
            value = formula(z, torch.zeros_like(z), positive_mask=torch.zeros_like(z, dtype=torch.bool))
            (slope,) = torch.autograd.grad(value.sum(), z)
        return value.detach(), slope

    background.differentiates = True  # type: ignore[attr-defined]
    return background


def elementwise(closed_form: ClosedForm, formula: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """Return the loss per element of whole tensors.

    Args:
        closed_form: value and derivative, given logits in float32 or more.
        formula: the value alone, differentiable, for a second derivative.
        logits: any shape.
    """
    loss: Tensor = _Elementwise.apply(logits, closed_form, formula)
    return loss


class _Elementwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, closed_form: Any, formula: Any) -> Tensor:
        value, slope = closed_form(*upcast(logits))
        ctx.save_for_backward(logits, slope)
        ctx.formula = formula
        result: Tensor = value
        return result

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        logits, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # `create_graph`: a second derivative is wanted, which only the formula has
            loss = ctx.formula(logits.to(slope.dtype))
            return torch.autograd.grad(loss, logits, grad_output, create_graph=True)[0], None, None
        return (slope * grad_output).to(logits.dtype), None, None
