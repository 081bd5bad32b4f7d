"""The closed forms that the backgrounds of several losses share.

On the CPU each step here is a pass over a piece in the cache, so there are as few as will do: results are overwritten
where they are no longer needed, and factors ride along (`alpha=`, `value=`) rather than cost a step.
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
    """Return `scale p^gamma softplus(z) + epsilon p^(gamma+1)` and its derivative, written to `out` where given.

    With `detached` the weight `p^gamma` is taken as a constant.
    """
    p, value = sigmoid_and_softplus(logits)
    weight = power_without_gradient(p, gamma)
    slope = p
    if epsilon and gamma:
        # The derivative is p^gamma (p + gamma (1-p) (softplus + (gamma+1)/gamma ratio p)).
        scale = scale or 1e-12  # what is taken out of both terms must not be 0
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
    """Return `softplus(z)` and its derivative, p, written to `out` where given."""
    p, value = sigmoid_and_softplus(logits, out)
    return value, p
