"""Weighting and averaging, the same for every loss."""

from __future__ import annotations

import torch
from torch import Tensor

REDUCTIONS = ("none", "mean", "sum")


class ReductionError(ValueError, AssertionError):
    """An unknown reduction: torchvision's callers expect a `ValueError` there, MMDetection's an `AssertionError`."""


def check_reduction(reduction: str, override: str | None = None) -> str:
    """Return the reduction to use, `override` where it is given.

    Raises:
        ReductionError: where it is none of the allowed ones, which it names.
    """
    chosen = reduction if override is None else override
    if chosen not in REDUCTIONS:
        raise ReductionError(f"Invalid reduction '{chosen}': it must be one of {', '.join(REDUCTIONS)}")
    return chosen


def upcast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors in one floating type, at least float32: a half-precision sum or power overflows."""
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    return tuple(t.to(dtype) for t in tensors)


def reduce_loss(
    loss: Tensor,
    weight: Tensor | float | None = None,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """Weight a loss and reduce it, with MMDetection's meaning of the arguments.

    Args:
        loss: one value an element.
        weight: of the loss's shape, of its leading dimensions (`(N,)` on `(N, C)`), flat (`(N * C,)`), or of a shape
            that broadcasts to the loss's, such as one a class. Where a shape can be read both ways, as `(N,)` on
            `(N, N)`, it goes by the leading dimensions.
        reduction: `none`, `mean` or `sum`.
        avg_factor: what `mean` divides by in place of the number of elements; `none` ignores it.

    Raises:
        ValueError: on an unknown reduction, an `avg_factor` with `sum`, or a weight whose shape does not fit.
    """
    check_reduction(reduction)
    if avg_factor is not None and reduction == "sum":
        raise ValueError("avg_factor goes with reduction 'mean' or 'none', not with 'sum'")
    if weight is not None:
        loss = loss * _aligned(torch.as_tensor(weight, dtype=loss.dtype, device=loss.device), loss)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if avg_factor is None:
        # The mean of nothing is a zero that stays in the graph, so that a batch without boxes can go backward.
        return loss.mean() if loss.numel() else loss.sum()
    # An average factor of zero goes with a sum of zero; the smallest float32 keeps that quotient at zero.
    return loss.sum() / (avg_factor + torch.finfo(torch.float32).eps)


def _aligned(weight: Tensor, loss: Tensor) -> Tensor:
    """Return `weight` in a shape that multiplies `loss`."""
    if weight.dim() == 0 or weight.shape == loss.shape:
        return weight
    if weight.shape == loss.shape[: weight.dim()]:
        return weight.reshape(*weight.shape, *[1] * (loss.dim() - weight.dim()))
    if weight.numel() == loss.numel():
        return weight.reshape(loss.shape)
    sizes = zip(reversed(weight.shape), reversed(loss.shape), strict=False)
    if weight.dim() <= loss.dim() and all(size in (1, whole) for size, whole in sizes):
        return weight  # as BCEWithLogitsLoss has it
    raise ValueError(f"a weight of shape {tuple(weight.shape)} does not fit a loss of shape {tuple(loss.shape)}")
