"""Comparison of the class term of a batch with the stock one on the same predictions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


def ratios_to_stock(pairs: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Return the ratios of pairs of a chosen loss and the stock one, by name; empty if the batch overflowed.

    A ratio is NaN where the stock one alone is 0, as cross-entropy over a single class always is.
    """
    if not all(map(math.isfinite, itertools.chain(*pairs.values()))):
        return {}
    return {name: own / stock if stock else math.nan if own else 0.0 for name, (own, stock) in pairs.items()}


@dataclass(frozen=True)
class Against:
    """Values and gradients of two losses on the same predictions.

    Attributes:
        value: of the chosen loss, a detached scalar.
        gradient: its gradient by the logits.
        reference: the value of the stock loss.
        reference_gradient: its gradient, of the same shape.
    """

    value: Tensor
    gradient: Tensor
    reference: Tensor
    reference_gradient: Tensor

    @property
    def ratios(self) -> dict[str, float]:
        """The ratios of the values and of the gradient norms, as `ratios_to_stock` has them. This synchronizes."""
        pairs = {"value": (float(self.value), float(self.reference))}
        if self.gradient.any():
            pairs["gradient"] = (float(self.gradient.norm()), float(self.reference_gradient.norm()))
        return ratios_to_stock(pairs)

    @torch.no_grad()
    def sums(self, positive: Tensor) -> Tensor:
        """Return the sums for `loss_stats`, shape `(6,)`.

        They are the two values, the two sums of squared gradients, and the same at the labels' logits.

        Args:
            positive: mask of the labels' logits, of the gradients' shape.
        """
        own, stock = self.gradient.square(), self.reference_gradient.square()
        sums = (self.value, self.reference, own.sum(), stock.sum(), own[positive].sum(), stock[positive].sum())
        return torch.stack([each.float() for each in sums])
