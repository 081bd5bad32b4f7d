"""GCD loss."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import golden, gradient

from yolo_losses import make_box_loss
from yolo_losses.losses.boxes.gcd import gcd_loss


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_value_and_gradient_are_the_authors(dtype: torch.dtype) -> None:
    arrays, cases, _ = golden("boxes2")
    case = cases["gcd_exp_eps1e-06_gamma1"]["results"]["float64"]
    pred, target = (arrays[f"inputs/{k}"].to(dtype) for k in ("pred", "target"))
    out, slope = (arrays[case[k]].to(dtype) for k in ("out", "grad"))
    value, grad = gradient(gcd_loss, pred, target)
    exact = dtype == torch.float64
    torch.testing.assert_close(value, out, rtol=1e-6, atol=1e-12 if exact else 1e-7)
    known = ~slope.isnan().any(-1)  # identical boxes have a root of 0 there
    assert 55 < known.sum() < 64
    assert (grad[~known] == 0).all()
    scale = slope.abs().amax(-1, keepdim=True).clamp_min(1e-6 if exact else 1e-3)
    torch.testing.assert_close((grad / scale)[known], (slope / scale)[known], rtol=0, atol=1e-6 if exact else 1e-4)


def test_distance_of_hand_drawn_boxes() -> None:
    pred, target = torch.tensor([[0.0, 0, 4, 2]]).double(), torch.tensor([[3.0, 1, 5, 7]]).double()
    dx, dy, (w, h), (ww, hh) = 2, 3, (4, 2), (2, 6)
    d = (dx / w) ** 2 + (dy / h) ** 2 + (dx / ww) ** 2 + (dy / hh) ** 2
    d += ((w - ww) ** 2 * (1 / w**2 + 1 / ww**2) + (h - hh) ** 2 * (1 / h**2 + 1 / hh**2)) / 4
    assert gcd_loss(pred, target).item() == pytest.approx(1 - math.exp(-math.sqrt(d / 2)), abs=1e-6)


def test_identical_boxes_have_no_loss_and_a_finite_gradient() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 2], [5, 5, 5, 5], [0, 0, 1e4, 1e-3]])
    for dtype in (torch.float64, torch.float32, torch.float16):
        value, grad = gradient(gcd_loss, boxes.to(dtype), boxes.to(dtype))
        assert value.abs().max() < 1e-18
        assert (grad == 0).all()
    near, _ = gradient(gcd_loss, boxes[:1].double() + 1e-9, boxes[:1].double())
    assert 0 < near.item() < 1e-8


def test_disjoint_boxes_are_drawn_together() -> None:
    pred, target = torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[10.0, 0, 14, 4]])
    assert gradient(gcd_loss, pred, target)[1][:, [0, 2]].sum() < -0.01


def test_modifiers_add_what_they_change_of_the_plain_iou() -> None:
    pred, target = torch.tensor([[0.0, 0, 4, 4]]).double(), torch.tensor([[1.0, 0, 5, 4]]).double()
    plain, inner = make_box_loss("iou")(pred, target), make_box_loss("inner_iou")(pred, target)
    value = make_box_loss("inner_gcd")(pred, target)
    torch.testing.assert_close(value, gcd_loss(pred, target) + inner - plain, rtol=1e-6, atol=1e-7)
