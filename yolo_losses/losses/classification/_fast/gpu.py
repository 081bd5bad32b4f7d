"""The class term of a large batch on a GPU: one pass, compiled into one kernel where that is switched on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from yolo_losses.losses.classification._fast import compiled
from yolo_losses.losses.classification._fast.cpu import map_sum

if TYPE_CHECKING:
    from yolo_losses.losses.classification._fast.autograd import Background, Positives


def pass_over(
    rows: Tensor,
    background: Background,
    positives: Positives,
    value: Tensor,
    slope: Tensor | None,
    extras: tuple[Tensor, ...],
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor | None]:
    """Return sums and gradient in one pass: each row knows the class, value and derivative of its positive.

    Adding the positives to the sums afterwards would need atomics, whose order is not fixed.
    """
    count, classes = rows.shape
    row, label = positives.index // max(classes, 1), positives.index % max(classes, 1)
    if positives.valid is not None:
        label = torch.where(positives.valid, label, -1)
    labels = torch.full((count,), -1, dtype=label.dtype, device=rows.device).index_copy_(0, row, label)
    values, slopes = (
        torch.zeros(count, dtype=dtype, device=rows.device).index_copy_(0, row, each)
        for each in (value, value if slope is None else slope)
    )
    # What differentiates within cannot be compiled as one graph.
    plain = not getattr(background, "differentiates", False)
    if slope is not None and plain and compiled.compiling(rows.device):
        result: tuple[Tensor, Tensor] = compiled.fused(_pass_with(background), rows, labels, values, slopes, *extras)
        return result
    gradient = None if slope is None else torch.empty(rows.shape, dtype=dtype, device=rows.device)

    def piece_sums(piece: Tensor, part: slice) -> Tensor:
        total, piece_slope = _pass(background, piece, labels[part], values[part], slopes[part], *extras)
        if gradient is not None:
            gradient[part] = piece_slope
        return total

    return map_sum(rows, piece_sums), gradient


def _pass(
    background: Background, rows: Tensor, labels: Tensor, values: Tensor, slopes: Tensor, *extras: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the per-class sums and the derivative of rows whose positives are given by class, value, derivative."""
    value, slope = background(rows.to(values.dtype), *extras)
    here = labels[:, None] == torch.arange(rows.shape[1], device=rows.device)
    return torch.where(here, values[:, None], value).sum(0), torch.where(here, slopes[:, None], slope)


@functools.lru_cache(maxsize=32)
def _pass_with(background: Background) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return the pass with its background: one object for each background, by which its kernel is found again."""
    return functools.partial(_pass, background)
