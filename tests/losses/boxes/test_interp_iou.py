"""InterpIoU and Dynamic InterpIoU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import TIED, golden, gradient
from torch import Tensor

from yolo_losses import make_box_loss
from yolo_losses.losses.boxes.d_interp_iou import d_interp_iou_loss
from yolo_losses.losses.boxes.interp_iou import interp_iou_loss
from yolo_losses.losses.boxes.iou import iou_loss

CASES: dict[str, Callable[..., Tensor]] = {
    "interp_iou_0.98": interp_iou_loss,
    "d_interp_iou_0.6_0.99": d_interp_iou_loss,
}
LOSSES = list(CASES.values())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_value_and_gradient_are_the_authors(case: str, dtype: torch.dtype) -> None:
    arrays, cases, groups = golden("boxes3")
    result = cases[case]["results"]["float64"]
    pred, target = (arrays[f"inputs/{k}"].to(dtype) for k in ("pred", "target"))
    out, slope = (arrays[result[k]].to(dtype) for k in ("out", "grad"))
    value, grad = gradient(CASES[case], pred, target)
    exact = dtype == torch.float64
    # Their eps, on widths too, shows where a side is 1e-3 or 0.
    left_out = ("tiny", "zero_area")
    known = torch.ones(64, dtype=torch.bool)
    for group in left_out:
        known[slice(*groups[group])] = False
    torch.testing.assert_close(value[known], 1 - out[known], rtol=1e-6, atol=1e-6)
    for group in TIED:
        known[slice(*groups[group])] = False
    scale = slope.abs().amax(-1, keepdim=True).clamp_min(1e-3)
    torch.testing.assert_close((grad / scale)[known], (-slope / scale)[known], rtol=0, atol=1e-6 if exact else 1e-4)


def test_hand_drawn_boxes() -> None:
    pred, target = torch.tensor([0.0, 0, 4, 4]).double(), torch.tensor([2.0, 0, 6, 4]).double()
    # IoU 8/24; half of the way, the box lies 1 off: 12/20; at alpha 1 - 8/24, 2/3 off.
    assert interp_iou_loss(pred, target, alpha=0.5).item() == pytest.approx(2 - 8 / 24 - 12 / 20, abs=1e-6)
    off = 2 * 8 / 24
    expected = 2 - 8 / 24 - (4 - off) / (4 + off)
    assert d_interp_iou_loss(pred, target).item() == pytest.approx(expected, abs=1e-6)
    off = 2 * 0.25
    expected = 2 - 8 / 24 - (4 - off) / (4 + off)
    assert d_interp_iou_loss(pred, target, low=0.75).item() == pytest.approx(expected, abs=1e-6)


def test_the_ends_of_alpha_are_twice_and_once_the_iou_loss() -> None:
    pred, target = torch.tensor([[0.0, 0, 4, 4]]).double(), torch.tensor([[1.0, 1, 7, 5]]).double()
    torch.testing.assert_close(interp_iou_loss(pred, target, alpha=0.0), 2 * iou_loss(pred, target))
    torch.testing.assert_close(interp_iou_loss(pred, target, alpha=1.0), iou_loss(pred, target), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        d_interp_iou_loss(pred, target, low=0.9, high=0.9), interp_iou_loss(pred, target, alpha=0.9)
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_disjoint_boxes_are_drawn_together(loss: Callable[..., Tensor]) -> None:
    pred, target = torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[10.0, 0, 14, 4]])
    assert gradient(loss, pred, target)[1][:, [0, 2]].sum() < -1e-3
    far = torch.tensor([[10_000.0, 0, 10_004, 4]])
    assert (gradient(loss, pred, far)[1] == 0).all()


def test_no_gradient_flows_through_the_dynamic_share() -> None:
    pred, target = torch.tensor([[0.0, 0, 4, 4]]).double(), torch.tensor([[1.0, 1, 5, 5]]).double()
    share = iou_loss(pred, target).item()
    _, grad = gradient(d_interp_iou_loss, pred, target)
    _, expected = gradient(lambda p, t: interp_iou_loss(p, t, alpha=share), pred, target)
    torch.testing.assert_close(grad, expected)


def test_a_modifier_replaces_the_iou_of_the_predicted_box_alone() -> None:
    pred, target = torch.tensor([[0.0, 0, 4, 4]]).double(), torch.tensor([[1.0, 0, 5, 4]]).double()
    plain, inner = make_box_loss("iou")(pred, target), make_box_loss("inner_iou")(pred, target)
    value = make_box_loss("inner_interp_iou")(pred, target)
    torch.testing.assert_close(value, interp_iou_loss(pred, target) + inner - plain, rtol=1e-6, atol=1e-7)


def test_bounds_in_the_wrong_order_are_refused_in_one_line() -> None:
    words = "'d_interp_iou_low=0.8' and 'd_interp_iou_high=0.7' do not go together"
    with pytest.raises(ValueError, match=rf"^{words}[^\n]*$"):
        make_box_loss("d_interp_iou", d_interp_iou_low=0.8, d_interp_iou_high=0.7)
