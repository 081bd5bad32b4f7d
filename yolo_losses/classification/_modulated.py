"""Closed forms of the background loss, value and derivative, that several losses share.

On the CPU each operation is a pass over a chunk in the cache, so there are as few as possible: tensors are overwritten
in place, and factors are fused into other operations (`alpha=`, `value=`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from yolo_losses.numerics import power_without_gradient, sigmoid_and_softplus


def modulated_background(
    logits: Tensor,
    gamma: float,
    scale: float = 1.0,
    detached: bool = False,
    epsilon: float = 0.0,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return `scale p^gamma softplus(z) + epsilon p^(gamma+1)` and its derivative, written to `out` if given.

    With `detached` the weight `p^gamma` is detached.
    """
    p, value = sigmoid_and_softplus(logits)
    weight = power_without_gradient(p, gamma)
    slope = p
    if epsilon and gamma:
        # The derivative is p^gamma (p + gamma (1-p) (softplus + (gamma+1)/gamma ratio p)).
        scale = scale or 1e-12  # factored out of both terms
        ratio = epsilon / scale
        steep = torch.add(value, p, alpha=ratio * (gamma + 1) / gamma)
        slope = torch.add(p, steep.addcmul_(p, steep, value=-1), alpha=gamma)
        value.add_(p, alpha=ratio)
    elif epsilon:
        value = value.mul_(scale).add_(p, alpha=epsilon)
        slope = torch.add(p * scale, torch.addcmul(p, p, p, value=-1), alpha=epsilon)
        scale = 1.0
    elif gamma and not detached:
        # The derivative is p^gamma (p + gamma (1-p) softplus).
        steep = torch.addcmul(value, p, value, value=-1)
        slope = torch.add(p, steep, alpha=gamma)
    if scale != 1:
        weight = weight.mul_(scale) if weight is not p else weight * scale
    return value.mul_(weight), torch.mul(slope, weight, out=out)


def bce_background(logits: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return `softplus(z)` and its derivative, p, written to `out` if given."""
    p, value = sigmoid_and_softplus(logits, out)
    return value, p
