"""Elementary functions whose value and gradient stay finite where the textbook form's do not."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def power(base: Tensor, exponent: float) -> Tensor:
    """Return `base ** exponent` for a base in [0, 1], with a finite gradient at 0 for every exponent >= 0.

    Integer and half-integer exponents up to 4 are made of products and one square root: `pow` costs several times
    as much. Below 1 the slope at 0 is infinite; there the base is held at the smallest normal number, and the
    gradient is 0.

    Raises:
        ValueError: on an exponent below 0.
    """
    if exponent < 0:
        raise ValueError(f"an exponent of {exponent} is below 0, where the loss is infinite")
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
    # On the CPU a quotient by rsqrt takes two thirds of the time of a product with sqrt. At a base of 0 rsqrt is
    # infinite and the quotient 0.
    root = base.rsqrt()
    return root.reciprocal_() if whole == 0 else result / root


def sigmoid_and_softplus(logits: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return `p = sigmoid(z)`, written to `out` where given, and `softplus(z)`, without gradient.

    On the CPU softplus costs an exponential and a logarithm. It is `-log(1-p)` too, whose exponential has been paid;
    but for logits above 5, `1-p` has lost too many digits for that (2e-6 relative at 5).
    """
    p = torch.sigmoid(logits, out=out)
    eager = logits.device.type == "cpu" and not torch.compiler.is_compiling()
    if eager and logits.numel() and bool(logits.amax() <= 5):
        return p, p.neg().log1p_().neg_()
    return p, nn.functional.softplus(logits)
