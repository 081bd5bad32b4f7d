"""Elementary functions whose value and gradient stay finite where the textbook form's do not."""

from __future__ import annotations

import torch
from torch import Tensor


def power(base: Tensor, exponent: float) -> Tensor:
    """Return `base ** exponent` for a base in [0, 1], with a finite gradient at 0 for every exponent >= 0.

    Integer and half-integer exponents up to 4 are made of products and one square root: `pow` costs several times
    as much. Below 1 the slope at 0 is infinite; there the base is held at the smallest normal number, and the
    gradient is 0.
    """
    if exponent == 0:
        return torch.ones_like(base)
    if exponent % 1 and exponent < 1:
        base = base.clamp_min(torch.finfo(base.dtype).tiny)
    if exponent > 4 or exponent % 0.5:
        return base**exponent
    result = base.clamp_min(torch.finfo(base.dtype).tiny).sqrt() if exponent % 1 else None
    for _ in range(int(exponent)):
        result = base if result is None else result * base
    assert result is not None
    return result


def power_without_gradient(base: Tensor, exponent: float) -> Tensor:
    """Return `base ** exponent` for a base in [0, 1] in fewer and cheaper steps; no gradient is to flow through it."""
    if exponent == 0:
        return torch.ones_like(base)
    if exponent > 4 or exponent % 0.5:
        return base**exponent
    whole = int(exponent)
    result = base if whole < 2 else base * base
    if whole >= 3:
        result = result.mul_(result if whole == 4 else base)
    if exponent % 1 == 0:
        return result
    # Over rsqrt rather than times sqrt: on the CPU, torch wakes its thread pool for sqrt however short the tensor. At a
    # base of 0 rsqrt is infinite and the quotient 0.
    root = base.rsqrt()
    return root.reciprocal_() if whole == 0 else result / root
