"""Closed forms, value and derivative, that several losses share.

On the CPU each operation is a pass over a chunk in the cache, so there are as few as possible: tensors are overwritten
in place, and factors are fused into other operations (`alpha=`, `value=`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from yolo_losses.losses._math import balance, negative_weight, power_without_gradient, sigmoid_and_softplus


def weighted_negatives(
    logits: Tensor, gamma: float = 0.0, scale: float = 1.0, detached: bool = False
) -> tuple[Tensor, Tensor]:
    """Return `scale p^gamma softplus(z)`, a weighted BCE at target 0, and its derivative.

    Args:
        logits: z, any shape.
        gamma: exponent of the weight.
        scale: factor on it.
        detached: whether the weight is detached.
    """
    p, value = sigmoid_and_softplus(logits)
    if not gamma:
        return (value, p) if scale == 1 else (value.mul_(scale), p.mul_(scale))
    gradient = p
    weight = power_without_gradient(p, gamma)
    if not detached:
        # The derivative is p^gamma (p + gamma (1-p) softplus).
        gradient = torch.add(p, torch.addcmul(value, p, value, value=-1), alpha=gamma)
    if scale != 1:
        weight = weight * scale if weight is p else weight.mul_(scale)
    return value.mul_(weight), gradient * weight if gradient is p else gradient.mul_(weight)


def modulated(
    logits: Tensor, targets: Tensor | None, gamma: float, alpha: float, epsilon: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return `w m^gamma BCE + epsilon m^(gamma+1)` with `m = 1 - p_t` and `w` the balancing weight, and its derivative.

    Args:
        logits: any shape.
        targets: same shape, in [0, 1]; `None`: 0.
        gamma: focusing exponent.
        alpha: weight of positives; negatives get 1 - alpha. Below 0: no balancing.
        epsilon: weight of the added term.
    """
    if targets is None:
        if not epsilon:
            return weighted_negatives(logits, gamma, negative_weight(alpha))
        p, value = sigmoid_and_softplus(logits)
        one_minus_p_t, relative = p, 1 - p
        focus = power_without_gradient(p, gamma)
        weight = focus * negative_weight(alpha)
        value.mul_(weight)
        gradient = p * weight
    else:
        p = logits.sigmoid()
        one_minus_p_t, relative = one_minus_p_t_and_gradient(logits, p, targets)
        focus = power_without_gradient(one_minus_p_t, gamma)
        weight = focus if alpha < 0 else focus * balance(targets, alpha)
        value = nn.functional.binary_cross_entropy_with_logits(logits, targets, weight, reduction="none")
        gradient = p.sub_(targets).mul_(weight)
    gradient.addcmul_(value, relative, value=gamma)
    if epsilon:
        extra = focus * one_minus_p_t
        value.add_(extra, alpha=epsilon)
        gradient.addcmul_(extra, relative, value=epsilon * (gamma + 1))
    return value, gradient


def one_minus_p_t_and_gradient(logits: Tensor, p: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return `m = 1 - p_t`, above 0, and the derivative of its logarithm, `(1 - 2t) p (1-p) / m`."""
    one_minus_p = logits.neg().sigmoid_()
    one_minus_p_t = torch.lerp(p, one_minus_p, targets).clamp_min_(torch.finfo(p.dtype).tiny)
    return one_minus_p_t, torch.rsub(targets, 1, alpha=2).mul_(p).mul_(one_minus_p).div_(one_minus_p_t)
