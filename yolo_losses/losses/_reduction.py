"""Weighting and reduction, shared by all losses."""

from __future__ import annotations

import torch
from torch import Tensor

REDUCTIONS = ("none", "mean", "sum")


class ReductionError(ValueError, AssertionError):
    """Unknown reduction: a `ValueError` as in torchvision, and an `AssertionError` as in MMDetection."""


def check_reduction(reduction: str, override: str | None = None) -> str:
    """Return the reduction to use, `override` if given.

    Raises:
        ReductionError: if it is unknown.
    """
    chosen = reduction if override is None else override
    if chosen not in REDUCTIONS:
        raise ReductionError(f"Invalid reduction '{chosen}': it must be one of {', '.join(REDUCTIONS)}")
    return chosen


def upcast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors in float64 if one of them is, else in float32: half-precision sums and powers overflow."""
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    return tuple(t.to(dtype) for t in tensors)


def reduce_loss(
    loss: Tensor,
    weight: Tensor | float | None = None,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    """Weight a loss and reduce it; the arguments have MMDetection's meaning.

    Args:
        loss: per element.
        weight: of the loss's shape, of its leading dimensions (`(N,)` for `(N, C)`), flat (`(N * C,)`), or of a shape
            that broadcasts to the loss's, such as per class. Ambiguous shapes, as `(N,)` for `(N, N)`, are matched to
            the leading dimensions.
        reduction: `none`, `mean` or `sum`.
        avg_factor: divisor of `mean`, in place of the number of elements; ignored by `none`.

    Raises:
        ValueError: if the reduction is unknown, `avg_factor` is used with `sum`, or the weight's shape does not fit.
    """
    check_reduction(reduction)
    if avg_factor is not None and reduction == "sum":
        raise ValueError("avg_factor cannot be used with reduction 'sum'")
    if weight is not None:
        loss = loss * _aligned(torch.as_tensor(weight, dtype=loss.dtype, device=loss.device), loss)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if avg_factor is None:
        # The mean of an empty tensor is 0 and stays in the graph, so that backward works for a batch without boxes.
        return loss.mean() if loss.numel() else loss.sum()
    # With avg_factor 0 the sum is 0 too; as in MMDetection, eps keeps the quotient at 0.
    return loss.sum() / (avg_factor + torch.finfo(torch.float32).eps)


def _aligned(weight: Tensor, loss: Tensor) -> Tensor:
    """Return `weight` in a shape that broadcasts to `loss`."""
    if weight.dim() == 0 or weight.shape == loss.shape:
        return weight
    if weight.shape == loss.shape[: weight.dim()]:
        return weight.reshape(*weight.shape, *[1] * (loss.dim() - weight.dim()))
    if weight.numel() == loss.numel():
        return weight.reshape(loss.shape)
    sizes = zip(reversed(weight.shape), reversed(loss.shape), strict=False)
    if weight.dim() <= loss.dim() and all(size in (1, whole) for size, whole in sizes):
        return weight  # as in BCEWithLogitsLoss
    raise ValueError(f"a weight of shape {tuple(weight.shape)} does not fit a loss of shape {tuple(loss.shape)}")
