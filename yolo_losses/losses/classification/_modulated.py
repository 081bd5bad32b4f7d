"""Closed forms, value and derivative, that several losses share: of the background, and of any target.

On the CPU each operation is a pass over a chunk in the cache, so there are as few as possible: tensors are overwritten
in place, and factors are fused into other operations (`alpha=`, `value=`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from yolo_losses.losses._math import balance, power_without_gradient, sigmoid_and_softplus


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


def modulated(
    logits: Tensor, targets: Tensor, gamma: float, alpha: float | None, epsilon: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return `w m^gamma BCE + epsilon m^(gamma+1)` with `m = 1 - p_t` and `w` the balancing weight, and its derivative.

    Args:
        logits: any shape.
        targets: same shape, in [0, 1].
        gamma: focusing exponent.
        alpha: weight of positives; negatives get 1 - alpha. Below 0 or `None`: no balancing.
        epsilon: weight of the added term.
    """
    p = logits.sigmoid()
    miss, relative = missed(logits, p, targets)
    focus = power_without_gradient(miss, gamma)
    weight = focus if alpha is None or alpha < 0 else focus * balance(targets, alpha)
    value = nn.functional.binary_cross_entropy_with_logits(logits, targets, weight, reduction="none")
    slope = p.sub_(targets).mul_(weight).addcmul_(value, relative, value=gamma)
    if epsilon:
        extra = focus * miss
        value.add_(extra, alpha=epsilon)
        slope.addcmul_(extra, relative, value=epsilon * (gamma + 1))
    return value, slope


def missed(logits: Tensor, p: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return `m = 1 - p_t`, above 0, and its derivative over itself, `(1 - 2t) p (1-p) / m`."""
    rest = logits.neg().sigmoid_()
    miss = torch.lerp(p, rest, targets).clamp_min_(torch.finfo(p.dtype).tiny)
    return miss, torch.rsub(targets, 1, alpha=2).mul_(p).mul_(rest).div_(miss)
