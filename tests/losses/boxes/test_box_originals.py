"""Box losses have the values and gradients of the codes that they name."""

from __future__ import annotations

import functools

import pytest
import torch
from box_pairs import DTYPES, boxes, formula
from conftest import TIED, golden, gradient
from torch import Tensor

from yolo_losses.losses.boxes.mpdiou import mpdiou_loss
from yolo_losses.losses.boxes.nwd import nwd_loss
from yolo_losses.losses.boxes.piou2 import piou2_loss
from yolo_losses.losses.boxes.probiou import probiou_loss
from yolo_losses.losses.boxes.shape_iou import shape_iou_loss
from yolo_losses.losses.boxes.siou import siou_loss
from yolo_losses.losses.build import make_box_loss


def xyxy(boxes: Tensor) -> Tensor:
    return torch.cat((boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2), -1)


def second_call(version: int):
    def loss(pred: Tensor, target: Tensor) -> Tensor:
        module = make_box_loss("wiou", wiou_version=version, wiou_momentum=1 - 0.05 ** (1 / (890 * 34))).to(pred.dtype)
        module(pred, target)
        return module(pred, target)

    return loss


# case: (loss, whether the original returns 1 - loss)
EXACT = {
    "ultralytics_bbox_IoU_xyxy": (lambda p, t: formula("iou")(p, t), True),
    "ultralytics_bbox_CIoU_xyxy": (lambda p, t: formula("ciou")(p, t), True),
    "tv_giou_loss_eps1e-07": (lambda p, t: formula("giou")(p, t), False),
    "tv_diou_loss_eps1e-07": (lambda p, t: formula("diou")(p, t), False),
    "yolov6_siou_loss": (siou_loss, False),
    "ods_mpdiou_hw819200": (lambda p, t: mpdiou_loss(p, t, (640.0, 640.0)), True),
    "shape_iou_s0": (lambda p, t: shape_iou_loss(xyxy(p), xyxy(t)), True),
    "powerful_PIoU_L1.3": (lambda p, t: formula("piou")(p, t), False),
    "powerful_PIoU2_L1.3": (piou2_loss, False),
    "nwd_exp_C12.8": (nwd_loss, False),
    "wiou_v1_WIoU_monoNone": (second_call(1), False),
    "wiou_v1_WIoU_monoFalse": (second_call(3), False),
    "focaler_iou_d0.0_u0.95": (lambda p, t: make_box_loss("focaler_iou")(p, t), True),
}
CLOSE = {
    "ultralytics_bbox_GIoU_xyxy": (lambda p, t: formula("giou")(p, t), True),
    "ultralytics_bbox_DIoU_xyxy": (lambda p, t: formula("diou")(p, t), True),
    "tv_ciou_loss_eps1e-07": (lambda p, t: formula("ciou")(p, t), False),
    "ods_bbox_EIoU": (lambda p, t: formula("eiou")(p, t), True),
    "ods_bbox_Focal_EIoU_loss": (lambda p, t: make_box_loss("focal_eiou")(p, t), False),
    "inner_ciou_r0.7": (lambda p, t: make_box_loss("inner_ciou")(xyxy(p), xyxy(t)), True),
    "alpha3_CIoU": (lambda p, t: make_box_loss("alpha_ciou")(p, t), True),
}


def against(case: str, loss, turned: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    arrays, cases, _ = golden("iou")
    names, result = cases[case]["inputs"], cases[case]["results"][str(dtype)[6:]]
    pred, target = (arrays[f"inputs/{names[k]}"].to(dtype) for k in ("pred", "target"))
    value, grad = gradient(loss, pred, target)
    out, slope = (arrays[result[k]] for k in ("out", "grad"))
    return value, grad, 1 - out if turned else out, -slope if turned else slope


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", EXACT)
def test_value_and_gradient_are_those_of_the_named_source(case: str, dtype: torch.dtype) -> None:
    value, grad, out, slope = against(case, *EXACT[case], dtype)
    assert value.isfinite().all()
    assert grad.isfinite().all()
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 3e-5, "atol": 2e-6}
    known = ~out.isnan()
    torch.testing.assert_close(value[known], out[known], **tolerance)
    # Boxes of no area lie on ties, too.
    groups = golden("iou")[2]
    tied = torch.zeros(len(value), dtype=torch.bool)
    for group in (*TIED, "zero_area"):
        tied[slice(*groups[group])] = True
    scale = slope.abs().amax(-1, keepdim=True).clamp_min(1e-3)
    if dtype == torch.float32:
        # Coordinates of 1 leave a box of 1e-3 four digits.
        tied[slice(*groups["tiny"])] = True
    torch.testing.assert_close((grad / scale)[~tied], (slope / scale)[~tied], **tolerance)


@pytest.mark.parametrize("case", CLOSE)
def test_value_and_gradient_are_near_those_of_other_codes_on_boxes_of_usual_size(case: str) -> None:
    value, grad, out, slope = against(case, *CLOSE[case], torch.float64)
    assert value.isfinite().all()
    assert grad.isfinite().all()
    torch.testing.assert_close(value[:32], out[:32], rtol=1e-7, atol=1e-9)
    scale = slope.abs().amax(-1, keepdim=True).clamp_min(1e-3)
    torch.testing.assert_close((grad / scale)[:32], (slope / scale)[:32], rtol=2e-7, atol=2e-7)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weight_and_average_factor_mean_what_mmdetection_means(dtype: torch.dtype) -> None:
    arrays, cases, _ = golden("iou")
    case = cases["mmdet_GIoULoss_w_mean_avg11"]
    weight = arrays["inputs/w_n"].to(dtype)
    module = make_box_loss("giou", reduction="mean")
    pred, target = (arrays[f"inputs/{k}"].to(dtype) for k in ("pred", "target"))
    value, grad = gradient(lambda p, t: module(p, t, weight=weight, avg_factor=11), pred, target)
    result = case["results"][str(dtype)[6:]]
    # Its eps is 1e-6: the four boxes of 1e-3 differ, and with them the mean.
    torch.testing.assert_close(value, arrays[result["out"]], rtol=1e-3, atol=0)
    slope = arrays[result["grad"]]
    torch.testing.assert_close(grad[:32], slope[:32], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("floor", [0.0, 0.01])
def test_probiou_is_ultralytics_own(floor: float) -> None:
    metrics = pytest.importorskip("ultralytics.utils.metrics")
    pred, target = boxes(200, rotated=True)

    def stock(p: Tensor, t: Tensor) -> Tensor:
        widened = {} if not floor else {"floor": floor}
        return 1 - metrics.probiou(p, t, **widened).squeeze(-1)

    try:
        value, grad = gradient(stock, pred, target)
    except TypeError:
        pytest.skip("this Ultralytics has no floor")
    ours, slope = gradient(functools.partial(probiou_loss, floor=floor), pred, target)
    torch.testing.assert_close(ours, value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(slope, grad, rtol=1e-9, atol=1e-12)
