"""Classification losses by name, and elements to compare them on."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from yolo_losses import registry
from yolo_losses.losses.build import make_cls_loss
from yolo_losses.registry import LossSpec

SPECS = registry.specs("cls")
MEAN_IOU = 0.45


@functools.cache
def variants(spec: LossSpec) -> list[dict[str, float]]:
    """The defaults, and each declared parameter in turn at values across its range."""
    found: list[dict[str, float]] = [{}]
    for parameter in spec.parameters:
        for value in (parameter.limits.low, 0, 0.15, 0.5, 1, 2.5, 3, 7, parameter.limits.high):
            try:
                make_cls_loss(spec.name, **{parameter.key: value})
            except ValueError:
                continue
            if {parameter.key: value} not in found:
                found.append({parameter.key: value})
    return found


def elements(count: int = 60, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Logits of a usual size, and targets of which a half are background, some 1 and the rest between."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 5, generator=generator, dtype=torch.float64) * 2
    targets = torch.rand(count, 5, generator=generator, dtype=torch.float64) * 0.98 + 0.01
    kind = torch.rand(count, 5, generator=generator)
    targets = torch.where(kind < 0.5, 0, torch.where(kind < 0.6, 1, targets))
    return logits.to(dtype).requires_grad_(), targets.to(dtype)


def make(spec: LossSpec, reduction: str = "none", **keys: float) -> Callable[..., Tensor]:
    """The module, its state not moving, given what it may need of the step."""
    loss = make_cls_loss(spec.name, reduction=reduction, **keys).eval()
    return functools.partial(loss, mean_iou=MEAN_IOU)


def gradient_of(value: Tensor, by: Tensor) -> Tensor:
    return torch.autograd.grad(value.sum(), by)[0]
