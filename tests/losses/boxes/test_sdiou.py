"""SDIoU loss."""

from __future__ import annotations

import pytest
import torch
from conftest import TIED, golden, gradient
from torch import Tensor

from yolo_losses import make_box_loss
from yolo_losses.losses.boxes.ciou import ciou_loss, ciou_terms
from yolo_losses.losses.boxes.sdiou import sdiou_loss


@pytest.mark.parametrize(("case", "divisor"), [("sdiou_xyxy_delta0.5", 1), ("sdiou_xyxy_delta0.5_boxes_div8", 8)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_value_and_gradient_are_the_authors(case: str, divisor: int, dtype: torch.dtype) -> None:
    arrays, cases, groups = golden("boxes2")
    result = cases[case]["results"]["float64"]
    pred, target = (arrays[f"inputs/{k}"].to(dtype) for k in ("pred", "target"))
    out, slope = (arrays[result[k]].to(dtype) for k in ("out", "grad"))
    value, grad = gradient(lambda p, t: sdiou_loss(p / divisor, t / divisor), pred, target)
    exact = dtype == torch.float64
    torch.testing.assert_close(value, 1 - out.reshape(-1), rtol=1e-6, atol=1e-12 if exact else 1e-6)
    tied = torch.zeros(64, dtype=torch.bool)
    for group in (*TIED, "zero_area") if exact else (*TIED, "zero_area", "tiny"):
        tied[slice(*groups[group])] = True
    scale = slope.abs().amax(-1, keepdim=True).clamp_min(1e-3)
    torch.testing.assert_close((grad / scale)[~tied], (-slope / scale)[~tied], rtol=0, atol=1e-6 if exact else 1e-4)


def boxes(side: float, count: int = 50) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    target = torch.rand(count, 2, generator=g, dtype=torch.float64) * 20
    target = torch.cat((target, target + side), 1)
    return target + torch.randn(count, 4, generator=g, dtype=torch.float64) * side / 8, target


def test_it_is_ciou_from_9_by_9_pixels_on() -> None:
    for side in (9.0, 9.1, 50.0):
        torch.testing.assert_close(sdiou_loss(*boxes(side)), ciou_loss(*boxes(side)), rtol=1e-7, atol=1e-9)
    assert not torch.allclose(sdiou_loss(*boxes(8.0)), ciou_loss(*boxes(8.0)), rtol=1e-3)
    torch.testing.assert_close(sdiou_loss(*boxes(3.0), delta=0.0), ciou_loss(*boxes(3.0)), rtol=1e-7, atol=1e-9)


def test_the_smallest_objects_have_half_the_overlap_and_half_more_of_the_distance() -> None:
    pred, target = boxes(0.01)
    iou, distance, aspect = ciou_terms(pred, target)
    torch.testing.assert_close(
        sdiou_loss(pred, target), 0.5 * (1 - iou + aspect) + 1.5 * distance, rtol=1e-5, atol=1e-6
    )


def test_it_counts_pixels_by_the_stride_in_any_shape() -> None:
    pred, target = boxes(5.0)
    expected = sdiou_loss(pred, target)
    torch.testing.assert_close(sdiou_loss(pred / 8, target / 8, 8.0), expected)
    stride = torch.tensor([[8.0], [32.0]]).repeat(25, 1).double()
    torch.testing.assert_close(sdiou_loss(pred / stride, target / stride, stride), expected)
    module = make_box_loss("sdiou")
    assert module.wanted == {"stride"}
    torch.testing.assert_close(module.pairs(pred / stride, target / stride, stride=stride), expected)
    torch.testing.assert_close(module(pred, target), expected)
    inner = make_box_loss("inner_sdiou")
    assert inner.wanted == {"stride"}
    torch.testing.assert_close(inner.pairs(pred / 8, target / 8, stride=torch.tensor(8.0)), inner(pred, target))
    assert not torch.allclose(sdiou_loss(pred / 8, target / 8), expected, rtol=1e-3)
