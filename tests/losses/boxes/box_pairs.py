"""Box losses by name, and pairs of boxes to compare them on."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from yolo_losses import registry
from yolo_losses.losses.boxes._base import BoxLoss
from yolo_losses.losses.build import make_box_loss

AXIS_ALIGNED = [spec.name for spec in registry.specs("box") if not spec.rotated]
IMAGE = torch.tensor([640.0, 480.0], dtype=torch.float64)
DTYPES = [torch.float64, torch.float32]


def formula(name: str):
    spec = registry.find("box", name)
    assert spec is not None
    return spec.module.formula


def loss_of(name: str, **keys) -> BoxLoss:
    """The module, its state not moving."""
    return functools.partial(make_box_loss(name, **keys).eval(), image_wh=IMAGE)  # type: ignore[return-value]


def boxes(
    count: int, seed: int = 0, rotated: bool = False, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Pairs of boxes of 5 to 45, most of which meet."""
    g = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=g, dtype=torch.float64) * 100 + 50
    size = torch.rand(count, 2, generator=g, dtype=torch.float64) * 40 + 5
    moved = centre + torch.randn(count, 2, generator=g, dtype=torch.float64) * 8
    grown = size * torch.exp(torch.randn(count, 2, generator=g, dtype=torch.float64) * 0.3)
    if rotated:
        angle, turned = torch.rand(2, count, 1, generator=g, dtype=torch.float64) * 3
        return torch.cat((moved, grown, turned), 1).to(dtype), torch.cat((centre, size, angle), 1).to(dtype)
    return (
        torch.cat((moved - grown / 2, moved + grown / 2), 1).to(dtype),
        torch.cat((centre - size / 2, centre + size / 2), 1).to(dtype),
    )
