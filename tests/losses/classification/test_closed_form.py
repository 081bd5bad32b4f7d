"""The closed forms of the class losses equal their formulas, value and derivative, for hard, soft and no targets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from yolo_losses import registry
from yolo_losses.losses import build as factory
from yolo_losses.losses.classification._base import ClassificationLoss

WITH = [s.name for s in registry.specs("cls") if s.module.closed_form is not ClassificationLoss.closed_form]
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "focal": [{}, {"focal_gamma": 0.0}, {"focal_gamma": 0.5}, {"focal_gamma": 2.7, "focal_alpha": -1}],
    "poly": [{}, {"poly_epsilon": -0.5, "poly_gamma": 1.0}, {"poly_gamma": 0.0}, {"poly_alpha": -1, "poly_gamma": 0.5}],
    "qfl": [{}, {"qfl_beta": 1.0}, {"qfl_beta": 1.5, "qfl_alpha": 0.3}, {"qfl_beta": 0.0}],
    "vfl": [{}, {"vfl_iou_weighted": False, "vfl_gamma": 1.0}, {"vfl_detach_weight": True}, {"vfl_gamma": 0.0}],
    "asl": [{}, {"asl_shift": 0.0}, {"asl_detach_weight": False}, {"asl_detach_weight": False, "asl_shift": 0.0}],
    "mal": [{}, {"mal_gamma": 1.0}, {"mal_gamma": 2.0}],
    "efl": [{}, {"efl_gamma": 0.6, "efl_alpha": -1}],
    "eqfl": [{}, {"eqfl_gamma": 1.5}],
    "slide": [{}, {"slide_min_iou": 0.6, "slide_delta": 0.3}],
}


def cases() -> list[Any]:
    return [pytest.param(name, keys, id=f"{name}-{keys}") for name in WITH for keys in SETTINGS.get(name, [{}])]


def inputs() -> tuple[Tensor, Tensor]:
    """Return logits and targets, of which some are saturated."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(64, 5, generator=generator, dtype=torch.float64) * 4
    targets = torch.rand(64, 5, generator=generator, dtype=torch.float64)
    targets = torch.where(torch.rand(64, 5, generator=generator) < 0.5, 0, targets)
    targets[:8] = torch.randint(2, (8, 5), generator=generator).double()
    logits[8:12] = torch.tensor([-100.0, -30, 0, 30, 100], dtype=torch.float64)
    return logits, targets


@pytest.mark.parametrize(("name", "keys"), cases())
def test_value_and_derivative_are_those_of_the_formula(name: str, keys: dict[str, Any]) -> None:
    logits, targets = inputs()
    loss = factory.make_cls_loss(name, **keys)
    supplied: dict[str, Any] = {"positive_mask": targets > 0, "mean_iou": torch.tensor(0.45, dtype=torch.float64)}
    z = logits.clone().requires_grad_()
    wanted = loss.elementwise(z, targets, **supplied)
    (slope,) = torch.autograd.grad(wanted.sum(), z)
    value, found = loss.closed_form(logits.clone(), targets.clone(), **supplied)
    torch.testing.assert_close(value, wanted.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found, slope, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("name", "keys"), cases())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_it_is_finite_at_saturated_logits_and_leaves_its_input_alone(
    name: str, keys: dict[str, Any], dtype: Any
) -> None:
    loss = factory.make_cls_loss(name, **keys)
    logits = torch.tensor([-100.0, -20, 0, 20, 100]).repeat(3, 1).to(dtype).requires_grad_()
    targets = torch.tensor([0.0, 0.4, 1.0])[:, None].expand(3, 5).contiguous()
    before = logits.detach().clone(), targets.clone()
    value = loss.per_element(logits, targets, positive_mask=targets > 0, mean_iou=torch.tensor(0.5))
    value.sum().backward()
    assert value.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert torch.equal(logits.detach(), before[0])
    assert torch.equal(targets, before[1])


@pytest.mark.parametrize("name", WITH)
def test_a_second_derivative_is_that_of_the_formula(name: str) -> None:
    logits, targets = inputs()
    loss = factory.make_cls_loss(name)
    supplied: dict[str, Any] = {"positive_mask": targets > 0, "mean_iou": torch.tensor(0.45, dtype=torch.float64)}
    found = []
    for call in (loss.per_element, loss.elementwise):
        z = logits[12:].clone().requires_grad_()
        given = {k: v[12:] if k == "positive_mask" else v for k, v in supplied.items()}
        (slope,) = torch.autograd.grad(call(z, targets[12:], **given).sum(), z, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), z)[0])
    torch.testing.assert_close(found[0], found[1])
