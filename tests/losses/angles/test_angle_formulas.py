"""The angle losses of rotated boxes: Ultralytics' numbers, and what tells the two apart."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from ultralytics.utils.loss import v8OBBLoss

from yolo_losses.losses.angles.cos2 import cos2_angle_loss
from yolo_losses.losses.angles.sin2 import sin2_angle_loss

BOX = torch.tensor([[8.0, 8.0, 6.0, 2.0, 0.2]], dtype=torch.float64)


def turned(by: float) -> torch.Tensor:
    return BOX + torch.tensor([0.0, 0, 0, 0, by], dtype=torch.float64)


@pytest.mark.skipif(not hasattr(v8OBBLoss, "calculate_angle_loss"), reason="this Ultralytics has no angle term")
def test_sin2_is_that_of_ultralytics() -> None:
    pred = torch.rand(2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.rand(2, 6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pred[..., 4] = pred[..., 4] * 9 - 4
    foreground = torch.tensor([[1, 0, 1, 1, 0, 1], [0, 1, 1, 0, 0, 1]], dtype=torch.bool)
    weight = torch.rand(int(foreground.sum()), dtype=torch.float64)
    bound = inspect.unwrap(v8OBBLoss.calculate_angle_loss)
    theirs = bound(None, pred, target, foreground, weight, torch.tensor(3.0))
    ours = (sin2_angle_loss(pred[foreground], target[foreground]) * weight).sum() / 3
    torch.testing.assert_close(ours, theirs)


def test_sin2_is_blind_to_a_quarter_turn_and_cos2_is_not() -> None:
    pred = turned(math.pi / 2).requires_grad_()
    blind, seen = sin2_angle_loss(pred, BOX), cos2_angle_loss(pred, BOX)
    assert float(blind.detach()) == pytest.approx(0, abs=1e-12)
    assert float(torch.autograd.grad(blind.sum(), pred)[0].abs().max()) == pytest.approx(0, abs=1e-12)
    assert float(seen.detach()) == pytest.approx(math.exp(-((math.log(3) / 3) ** 2)))


@pytest.mark.parametrize("loss", [sin2_angle_loss, cos2_angle_loss])
def test_half_a_turn_is_no_error(loss: object) -> None:
    assert float(loss(turned(math.pi), BOX)) == pytest.approx(0, abs=1e-12)  # type: ignore[operator]


def test_cos2_is_half_of_one_minus_the_cosine_of_twice_the_difference() -> None:
    square = BOX.clone()
    square[:, 3] = 6.0
    pred = square + torch.tensor([0.0, 0, 0, 0, 0.4], dtype=torch.float64)
    assert float(cos2_angle_loss(pred, square)) == pytest.approx((1 - math.cos(0.8)) / 2)


@pytest.mark.parametrize("loss", [sin2_angle_loss, cos2_angle_loss])
def test_gradient_equals_finite_differences_and_is_finite_without_area(loss: object) -> None:
    pred = turned(0.7).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: loss(p, BOX), pred)  # type: ignore[operator]
    flat = torch.zeros(1, 5, requires_grad=True)
    value = loss(flat, torch.zeros(1, 5))  # type: ignore[operator]
    assert torch.autograd.grad(value.sum(), flat)[0].isfinite().all()
