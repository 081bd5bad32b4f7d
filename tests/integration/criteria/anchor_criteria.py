"""Criteria with anchors with chosen losses, for the tests of what happens inside them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import criterion_of, tensors
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


def assert_same_run(ours: tuple[dict[str, float], list[Tensor]], stock: tuple[dict[str, float], list[Tensor]]) -> None:
    """Compare logged terms and gradients, those of each output relative to its largest."""
    assert ours[0] == pytest.approx(stock[0], rel=1e-6, abs=1e-9)
    for one, other in zip(ours[1], stock[1], strict=True):
        assert_close(one, other)


def terms_and_gradients(
    criterion: Any, outputs: Any, batch: dict[str, Any]
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """Return the logged terms in their order, the loss, and its gradients by the head's outputs."""
    loss, items = criterion(outputs, {key: value.clone() for key, value in batch.items()})
    terms = torch.stack(list(items.values())) if isinstance(items, dict) else items
    return terms, loss.detach(), list(torch.autograd.grad(loss.sum(), tensors(outputs), allow_unused=True))


def assert_equal(ours: Any, stock: Any) -> None:
    """Compare what `terms_and_gradients` returns."""
    torch.testing.assert_close(ours[0], stock[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours[1], stock[1], rtol=1e-6, atol=1e-6)
    for one, other in zip(ours[2], stock[2], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
