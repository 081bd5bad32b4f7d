"""Criteria of the task semantic, on made-up logits and masks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import ultralytics.utils.loss as upstream
from torch import Tensor, nn

import yolo_losses
from yolo_losses import registry

SEED = 4
CHOICES = [
    {key: spec.name} for kind, key in (("ce", "ce_loss"), ("dice", "dice_loss")) for spec in registry.specs(kind)
]
CHOICES.append({"dice_loss": "off"})


def criterion_of(classes: int, data: str = "") -> Any:
    """Return a stock criterion, on Cityscapes with its table of weights."""
    model = nn.Linear(1, 1)
    model.model = [SimpleNamespace(nc=classes)]  # type: ignore[assignment]
    model.args = SimpleNamespace(data=data)  # type: ignore[assignment]
    return upstream.SemanticSegmentationLoss(model)


def made_up(classes: int) -> tuple[tuple[Tensor, Tensor], dict[str, Tensor]]:
    """Return predictions of the head and of the auxiliary head, and masks with pixels that are ignored.

    The last of several classes has no pixel.
    """
    generator = torch.Generator().manual_seed(SEED)
    main, auxiliary = (torch.randn(2, classes, size, size, generator=generator) * 2 for size in (4, 2))
    masks = torch.randint(max(classes - 1, 2), (2, 8, 8), generator=generator).int()
    masks[:, :2] = 255
    return (main.requires_grad_(), auxiliary.requires_grad_()), {"semantic_mask": masks}


def value_of(criterion: Any, preds: tuple[Tensor, ...], batch: dict[str, Tensor]) -> tuple[Tensor, list[Tensor], Any]:
    """Return the value of a criterion, its gradients, and what it logs."""
    value, items = criterion(preds, batch)
    if isinstance(items, Tensor):  # by position, in older releases
        items = dict(zip(("ce_loss", "dice_loss", "aux_loss"), items, strict=True))
    return value, list(torch.autograd.grad(value, preds)), items


def equipped(keys: dict[str, Any], classes: int, data: str = "") -> Any:
    criterion = criterion_of(classes, data)
    yolo_losses.equip(criterion, keys)
    return criterion
