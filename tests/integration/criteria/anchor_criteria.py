"""Criteria with anchors with chosen losses, for the tests of what happens inside them."""

from __future__ import annotations

from typing import Any

import torch
from conftest import criterion_of
from torch import Tensor

import yolo_losses
from yolo_losses import registry
from yolo_losses.integration.criteria import parts

CLS_LOSSES = [spec.name for spec in registry.specs("cls")]
BOX_LOSSES = [spec.name for spec in registry.specs("box") if not spec.rotated]


def equipped(name: str, **keys: Any) -> tuple[Any, dict[str, parts.Branch]]:
    """Return a fresh criterion of a head with the chosen losses, and its branches."""
    criterion = criterion_of(name)
    return criterion, yolo_losses.equip(criterion, keys)


def leaves(criterion: Any) -> list[Any]:
    """Return the criteria that a criterion is made of."""
    return [criterion.one2many, criterion.one2one] if hasattr(criterion, "one2many") else [criterion]


def assert_close(got: float | Tensor, wanted: float | Tensor, relative: float = 1e-6) -> None:
    got, wanted = torch.as_tensor(got), torch.as_tensor(wanted)
    assert (got - wanted).abs().max() <= relative * wanted.abs().max(), (got, wanted)
