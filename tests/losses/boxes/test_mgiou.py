"""MGIoU of upright and of rotated boxes."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import golden, gradient
from torch import Tensor

from yolo_losses.losses.boxes.mgiou import mgiou_loss
from yolo_losses.losses.boxes.rotated_mgiou import rotated_mgiou_loss


def against(case: str, loss, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    arrays, cases, _ = golden("boxes3")
    result = cases[case]["results"]["float64"]
    pred, target = (arrays[f"inputs/{name}"].to(dtype) for name in cases[case]["inputs"].values())
    out, slope = (arrays[result[k]].to(dtype) for k in ("out", "grad"))
    return *gradient(loss, pred, target), out, slope


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("case", "loss"), [("mgiou", mgiou_loss), ("rotated_mgiou", rotated_mgiou_loss)])
def test_value_and_gradient_are_the_authors(case: str, loss, dtype: torch.dtype) -> None:
    value, grad, out, slope = against(case, loss, dtype)
    exact = dtype == torch.float64
    known = ~out.isnan()
    assert known.sum() >= 60
    torch.testing.assert_close(value[known], out[known], rtol=1e-9 if exact else 1e-5, atol=1e-12 if exact else 1e-5)
    groups = golden("boxes3")[1][case]["groups"]
    for group in ("identical", "touching", "zero_area", "near_identical", "angle_90"):  # on ties of min and max
        if group in groups:
            known[slice(*groups[group])] = False
    assert known.sum() >= 40
    scale = slope.abs().amax(-1, keepdim=True).clamp_min(1e-6)
    torch.testing.assert_close((grad / scale)[known], (slope / scale)[known], rtol=0, atol=1e-6 if exact else 1e-3)


def test_hand_drawn_boxes() -> None:
    pred = torch.tensor([[0.0, 0, 4, 4]]).double()
    overlapping, apart = torch.tensor([[2.0, 0, 6, 4]]).double(), torch.tensor([[6.0, 1, 10, 4]]).double()
    assert mgiou_loss(pred, overlapping).item() == pytest.approx((1 - (2 / 6 + 1) / 2) / 2)
    assert mgiou_loss(pred, apart).item() == pytest.approx((1 - (-2 / 10 + 3 / 4) / 2) / 2)
    # A square and the same one turned by 45 degrees: on each of the four axes the longer reaches sqrt 2 times as far.
    square = torch.tensor([[0.0, 0, 2, 2, 0.0]]).double()
    turned = torch.tensor([[0.0, 0, 2, 2, math.pi / 4]]).double()
    assert rotated_mgiou_loss(turned, square).item() == pytest.approx((1 - 1 / math.sqrt(2)) / 2)


def test_boxes_without_rotation_have_the_loss_of_upright_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    pred, target = (
        torch.cat((torch.rand(50, 2, generator=generator) * 20, torch.rand(50, 2, generator=generator) * 9 + 1), 1)
        for _ in range(2)
    )
    upright = [torch.cat((b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2), 1).double() for b in (pred, target)]
    rotated = [torch.cat((b, torch.zeros(50, 1)), 1).double() for b in (pred, target)]
    torch.testing.assert_close(rotated_mgiou_loss(*rotated), mgiou_loss(*upright), rtol=1e-6, atol=1e-7)


def test_the_angle_of_a_square_and_disjoint_boxes_have_a_gradient() -> None:
    square = torch.tensor([[0.0, 0, 2, 2, 0.2]]).double()
    assert gradient(rotated_mgiou_loss, square, square - torch.tensor([0, 0, 0, 0, 0.2]))[1][0, 4] > 0.1
    far = torch.tensor([[100.0, 0, 2, 2, 0.0]]).double()
    assert gradient(rotated_mgiou_loss, square, far)[1][0, 0] < -1e-5
