"""Properties of the box losses, their modifiers and the distribution loss, and their equality with the originals."""

from __future__ import annotations

import copy
import functools
import itertools
import math
import pickle

import pytest
import torch
from conftest import TIED, golden, gradient
from torch import Tensor

from yolo_losses import registry
from yolo_losses.losses._state import commit_collected
from yolo_losses.losses._step import Step
from yolo_losses.losses.boxes._base import BoxLoss, ModifiedBoxLoss
from yolo_losses.losses.boxes._geometry import overlap_and_union
from yolo_losses.losses.boxes.inner import scaled
from yolo_losses.losses.boxes.mpdiou import mpdiou_loss
from yolo_losses.losses.boxes.nwd import nwd_loss
from yolo_losses.losses.boxes.piou2 import piou2_loss
from yolo_losses.losses.boxes.probiou import probiou_loss
from yolo_losses.losses.boxes.shape_iou import shape_iou_loss
from yolo_losses.losses.boxes.siou import siou_loss
from yolo_losses.losses.boxes.wiou import WIoULoss, wiou_loss
from yolo_losses.losses.build import make_box_loss
from yolo_losses.losses.distribution.dfl import DistributionFocalLoss, distribution_focal_loss

AXIS_ALIGNED = [spec.name for spec in registry.specs("box") if not spec.rotated]
ROTATED = [spec.name for spec in registry.specs("box") if spec.rotated]
NAMES = [*AXIS_ALIGNED, *ROTATED]
MODIFIED = [
    "inner_siou",
    "focaler_inner_ciou",
    "alpha_ciou",
    "alpha_giou",
    "focal_eiou",
    "focal_alpha_focaler_inner_diou",
    "inner_wiou",
    "focaler_nwd",
    "focal_piou2",
    "inner_mpdiou",
    "focaler_shape_iou",
    "wise_iou",
    "wise_ciou",
    "wise_inner_siou",
    "wise_nwd",
    "inner_rotated_iou",
    "focaler_rotated_iou",
    "focal_alpha_focaler_inner_rotated_iou",
]
IMAGE = torch.tensor([640.0, 480.0], dtype=torch.float64)
DTYPES = [torch.float64, torch.float32]


def formula(name: str):
    spec = registry.find("box", name)
    assert spec is not None
    return spec.module.formula


def loss_of(name: str, **keys) -> BoxLoss:
    """The module, its state not moving."""
    return functools.partial(make_box_loss(name, **keys).eval(), image_wh=IMAGE)  # type: ignore[return-value]


def boxes(
    count: int, seed: int = 0, rotated: bool = False, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Pairs of boxes of 5 to 45, most of which meet."""
    g = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=g, dtype=torch.float64) * 100 + 50
    size = torch.rand(count, 2, generator=g, dtype=torch.float64) * 40 + 5
    moved = centre + torch.randn(count, 2, generator=g, dtype=torch.float64) * 8
    grown = size * torch.exp(torch.randn(count, 2, generator=g, dtype=torch.float64) * 0.3)
    if rotated:
        angle, turned = torch.rand(2, count, 1, generator=g, dtype=torch.float64) * 3
        return torch.cat((moved, grown, turned), 1).to(dtype), torch.cat((centre, size, angle), 1).to(dtype)
    return (
        torch.cat((moved - grown / 2, moved + grown / 2), 1).to(dtype),
        torch.cat((centre - size / 2, centre + size / 2), 1).to(dtype),
    )


def is_rotated(name: str) -> bool:
    return registry.split_box_name(name)[1].rotated


def pairs_for(name: str, count: int, **options) -> tuple[Tensor, Tensor]:
    return boxes(count, rotated=is_rotated(name), **options)


# ----------------------------------------------------------------------------------------------- the originals' numbers


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


# ------------------------------------------------------------------------------------------------------ any loss at all


# What is detached on purpose has no derivative to compare with: CIoU's a, the focus of WIoU, focal's weight, the share
# of Dynamic InterpIoU.
DETACHED = ("ciou", "sdiou", "wiou", "wise_", "focal_", "d_interp")


@pytest.mark.parametrize("name", [n for n in NAMES + MODIFIED if not any(part in n for part in DETACHED)])
def test_gradient_is_the_derivative(name: str) -> None:
    pred, target = pairs_for(name, 6, seed=3)
    keys = {"nwd_ratio": 1.0} if "nwd" in name else {}
    assert torch.autograd.gradcheck(lambda p: loss_of(name, **keys)(p, target), pred.requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("name", NAMES + MODIFIED)
def test_loss_and_gradient_are_finite_for_every_odd_box(name: str) -> None:
    values = [-1e4, -1.0, 0.0, 1e-7, 1e-3, 1.0, 1e4]
    preds = torch.tensor(list(itertools.product(values, repeat=4)))
    targets = [
        [0, 0, 0, 0],
        [0, 0, 1, 1],
        [0, 0, 0, 1],
        [-1e4, -1e4, 1e4, 1e4],
        [1e4] * 4,
        [3, 1, 3, 1.001],
        [0, 0, 1e-3, 1e-3],
    ]
    if is_rotated(name):
        preds = torch.cat((preds, preds[:, :1] % 3), 1)
        targets = [[*target, 0.7] for target in targets]
    loss = loss_of(name)
    for dtype, target in itertools.product(DTYPES, targets):
        value, grad = gradient(loss, preds.to(dtype), torch.tensor(target, dtype=dtype).expand(len(preds), -1))
        assert value.isfinite().all(), (dtype, target)
        assert grad.isfinite().all(), (dtype, target)


@pytest.mark.parametrize("name", NAMES + MODIFIED)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_boxes_are_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    pred, target = pairs_for(name, 8)
    value = loss_of(name)(pred.to(dtype), target.to(dtype))
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss_of(name)(pred.to(dtype).float(), target.to(dtype).float()))


@pytest.mark.parametrize("name", NAMES + MODIFIED)
def test_no_boxes_are_a_zero_in_the_graph(name: str) -> None:
    pred = torch.zeros(0, 5 if is_rotated(name) else 4, requires_grad=True)
    module = make_box_loss(name, reduction="mean")
    loss = module(pred, pred.detach(), image_wh=IMAGE)
    loss.backward()
    assert loss == 0
    assert module(pred, pred.detach(), image_wh=IMAGE, reduction_override="none").shape == (0,)


@pytest.mark.parametrize("name", NAMES + MODIFIED)
def test_equal_boxes_cost_nothing(name: str) -> None:
    _, target = pairs_for(name, 20)
    # The eps of a square root; KFIoU is at most 1/3.
    floor = {"probiou": 5e-4, "gwd": 1e-4, "kfiou": 0.67}.get(name, 2e-5 if name.endswith("nwd") else 1e-6)
    assert loss_of(name)(target, target).abs().max() < floor


@pytest.mark.parametrize("name", NAMES + MODIFIED)
def test_loss_is_never_negative(name: str) -> None:
    pred, target = pairs_for(name, 2000, seed=5)
    assert loss_of(name)(pred, target).min() >= 0


@pytest.mark.parametrize(
    "name",
    [n for n in NAMES + MODIFIED if not any(p in n for p in ("piou2", "wiou", "wise_", "focal_", "d_interp"))],
)
def test_loss_falls_as_a_box_moves_onto_its_object(name: str) -> None:
    target = torch.tensor([[100.0, 100, 30, 20, 0.3]] if is_rotated(name) else [[100.0, 100, 130, 120]])
    way = torch.linspace(1, 0, 30).double()[:, None]
    start = torch.tensor([[9.0, 5, 0, 0, 0]] if is_rotated(name) else [[9.0, 5, 9, 5]]).double()
    value = loss_of(name)(target + way * start, target.double().expand(30, -1))
    assert (value.diff() <= 1e-12).all()
    assert value[0] > value[-1]


@pytest.mark.parametrize("name", NAMES + MODIFIED)
def test_moving_both_boxes_changes_nothing(name: str) -> None:
    pred, target = pairs_for(name, 50)
    shift = torch.zeros(pred.shape[-1], dtype=pred.dtype)
    shift[:2] = torch.tensor([17.0, -5.0])
    if not is_rotated(name):
        shift[2:] = shift[:2]
    torch.testing.assert_close(loss_of(name)(pred + shift, target + shift), loss_of(name)(pred, target))


# SDIoU counts pixels, and ProbIoU has an eps in the square of the boxes' unit.
@pytest.mark.parametrize(
    "name", [n for n in NAMES + MODIFIED if not any(part in n for part in ("mpdiou", "nwd", "sdiou", "probiou"))]
)
def test_scaling_both_boxes_changes_nothing(name: str) -> None:
    pred, target = pairs_for(name, 50)
    factor = torch.ones(pred.shape[-1], dtype=pred.dtype)
    factor[:4] = 8
    torch.testing.assert_close(
        loss_of(name)(pred * factor, target * factor), loss_of(name)(pred, target), rtol=1e-6, atol=1e-7
    )


def mirrored(boxes: Tensor) -> Tensor:
    """The same boxes with x and y swapped."""
    if boxes.shape[-1] == 4:
        return boxes[..., [1, 0, 3, 2]]
    x, y, w, h, r = boxes.unbind(-1)
    return torch.stack((y, x, w, h, math.pi / 2 - r), -1)


@pytest.mark.parametrize("name", [n for n in NAMES + MODIFIED if "mpdiou" not in n])
def test_swapping_x_and_y_changes_nothing(name: str) -> None:
    pred, target = pairs_for(name, 50)
    torch.testing.assert_close(
        loss_of(name)(mirrored(pred), mirrored(target)), loss_of(name)(pred, target), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("name", NAMES + MODIFIED)
def test_pairs_do_not_see_each_other(name: str) -> None:
    pred, target = pairs_for(name, 20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loss_of(name)(pred[order], target[order]), loss_of(name)(pred, target)[order])
    torch.testing.assert_close(
        loss_of(name)(pred.view(4, 5, -1), target.view(4, 5, -1)), loss_of(name)(pred, target).view(4, 5)
    )


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("nwd", "wiou")])
def test_module_is_its_function(name: str) -> None:
    pred, target = pairs_for(name, 20)
    supplied = {"image_wh": IMAGE} if name == "mpdiou" else {}
    value = formula(name)(pred, target, **supplied)
    assert torch.equal(loss_of(name)(pred, target), value)
    for reduction in ("mean", "sum"):
        reduced = formula(name)(pred, target, **supplied, reduction=reduction)
        module = make_box_loss(name, reduction=reduction)
        assert torch.equal(module(pred, target, image_wh=IMAGE), reduced)
        torch.testing.assert_close(reduced, getattr(value, reduction)())


@pytest.mark.parametrize("name", NAMES + MODIFIED)
def test_module_survives_copy_and_pickle(name: str) -> None:
    pred, target = pairs_for(name, 20)
    module = make_box_loss(name).eval()
    for again in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert repr(again) == repr(module)
        assert torch.equal(again(pred, target, image_wh=IMAGE), module(pred, target, image_wh=IMAGE))


@pytest.mark.parametrize("name", NAMES + MODIFIED)
def test_weight_counts_once_a_pair(name: str) -> None:
    pred, target = pairs_for(name, 20)
    weight = torch.rand(20, dtype=torch.float64)
    value = loss_of(name)(pred, target)
    torch.testing.assert_close(loss_of(name)(pred, target, weight=weight), value * weight)
    torch.testing.assert_close(loss_of(name)(pred, target, weight=weight[:, None].expand_as(pred)), value * weight)


@pytest.mark.parametrize("name", NAMES)
def test_registered_names_and_aliases_lead_to_the_loss(name: str) -> None:
    spec = registry.find("box", name)
    assert spec is not None
    assert spec.rotated == (name in ROTATED)
    assert spec.source
    assert spec.summary
    assert spec.module.registered_name == name
    for alias in spec.aliases:
        assert registry.find("box", alias.upper().replace("_", "-")) is spec


def test_parameters_are_the_declared_ones() -> None:
    keys = {p.key: p.default for s in [*registry.specs("box"), *registry.specs("modifier")] for p in s.parameters}
    assert {k: v for k, v in keys.items() if k.split("_")[0] in {"siou", "shape", "piou", "piou2", "wiou", "nwd"}} == {
        "siou_theta": 4.0,
        "shape_iou_scale": 0.0,
        "piou_lambda": 1.3,
        "piou2_lambda": 1.3,
        "wiou_version": 3,
        "wiou_alpha": 1.9,
        "wiou_delta": 3.0,
        "wiou_momentum": 0.01,
        "nwd_constant": 12.8,
        "nwd_ratio": 0.5,
    }
    own = {"inner_ratio": 0.7, "focaler_d": 0.0, "focaler_u": 0.95, "alpha_power": 3.0, "focal_iou_gamma": 0.5}
    assert own.items() <= keys.items()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ciou", "focaler_inner_siou", "rotated_iou", "inner_rotated_iou", "gwd", "kfiou"])
def test_traced_loss_is_the_loss(name: str) -> None:
    compiled_loss_is_the_loss(name, "aot_eager")


@pytest.mark.long
def test_compiled_loss_is_the_loss() -> None:
    compiled_loss_is_the_loss("ciou", "inductor")


def compiled_loss_is_the_loss(name: str, backend: str) -> None:
    pred, target = pairs_for(name, 64, dtype=torch.float32)
    module = make_box_loss(name)
    value, grad = gradient(torch.compile(module, backend=backend, fullgraph=True), pred, target)
    expected, slope = gradient(module, pred, target)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad, slope, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------------------------------------ by itself


def test_hand_drawn_boxes_have_the_values_of_the_papers() -> None:
    a, b = torch.tensor([[0.0, 0, 4, 4]]).double(), torch.tensor([[2.0, 0, 6, 4]]).double()
    iou = 8 / 24
    expected = {
        "iou": 1 - iou,
        "giou": 1 - iou,  # the enclosing box is full
        "diou": 1 - iou + 4 / 52,
        "ciou": 1 - iou + 4 / 52,
        "eiou": 1 - iou + 4 / 52,
        "siou": 1 - iou + (1 - math.exp(-2 * (2 / 6) ** 2)) / 2,
        "mpdiou": 1 - iou + 8 / (640**2 + 480**2),
        "shape_iou": 1 - iou + 4 / 52,
        "piou": 2 - iou - math.exp(-(0.25**2)),
    }
    for name, value in expected.items():
        assert loss_of(name)(a, b).item() == pytest.approx(value, abs=1e-6), name


def test_shape_iou_weighs_by_the_targets_shape() -> None:
    pred, target = torch.tensor([0.0, 0, 5, 9]).double(), torch.tensor([1.0, 2, 9, 4]).double()
    for scale in (0.5, 1.0, 4.0):
        w, h, c2 = 8.0**scale, 2.0**scale, 9**2 + 9**2
        ww, hh = 2 * w / (w + h), 2 * h / (w + h)
        distance = (hh * 2.5**2 + ww * 1.5**2) / c2
        shape = (1 - math.exp(-hh * 3 / 8)) ** 4 + (1 - math.exp(-ww * 7 / 9)) ** 4
        expected = 1 - 8 / 53 + distance + shape / 2
        assert shape_iou_loss(pred, target, scale=scale).item() == pytest.approx(expected, abs=1e-7)
    assert shape_iou_loss(pred.float(), target.float() * 1e3, scale=50.0).isfinite()


@pytest.mark.parametrize("angle", [0.0, 0.2, math.pi / 4, 1.2, math.pi / 2])
def test_siou_counts_the_angle_of_the_way_between_the_centres(angle: float) -> None:
    target = torch.tensor([0.0, 0, 20, 20]).double()
    dx, dy = 4 * math.cos(angle), 4 * math.sin(angle)
    pred = target + torch.tensor([dx, dy, dx, dy]).double()
    g = 2 - abs(math.sin(2 * angle))
    shared = (20 - dx) * (20 - dy)
    distance = 2 - math.exp(-g * (dx / (20 + dx)) ** 2) - math.exp(-g * (dy / (20 + dy)) ** 2)
    expected = 1 - shared / (800 - shared) + distance / 2
    assert siou_loss(pred, target).item() == pytest.approx(expected, abs=1e-6)


def test_siou_theta_weakens_small_differences_of_shape() -> None:
    pred, target = torch.tensor([0.0, 0, 10, 10]), torch.tensor([1.0, 1, 9, 9])
    assert siou_loss(pred, target, theta=2.0) > siou_loss(pred, target, theta=4.0) > siou_loss(pred, target, theta=6.0)


@pytest.mark.parametrize("image", [(640, 480), torch.tensor([640, 480]), torch.tensor([[640.0, 480.0]] * 20)])
def test_mpdiou_takes_the_images_size_in_any_form(image) -> None:
    pred, target = boxes(20)
    d2 = (pred - target).square().sum(-1)
    expected = formula("iou")(pred, target) + d2 / (640**2 + 480**2)
    torch.testing.assert_close(mpdiou_loss(pred, target, image), expected)


def test_piou2_attends_to_boxes_of_middling_quality() -> None:
    target = torch.tensor([[0.0, 0, 10, 10]]).double().expand(200, 4)
    off = torch.linspace(0, 40, 200).double()[:, None]
    value = piou2_loss(target + off, target)
    assert 0 < value.argmax() < 199
    _, grad = gradient(piou2_loss, target + off, target)
    slope = torch.autograd.functional.jacobian(lambda o: piou2_loss(target + o, target).sum(), off)
    torch.testing.assert_close(grad.sum(-1, keepdim=True), slope)  # the attention is not detached


@pytest.mark.parametrize("turned", [math.pi / 2, math.pi, -math.pi])
def test_probiou_knows_the_period_of_the_angle(turned: float) -> None:
    pred, target = boxes(20, rotated=True)
    again = pred.clone()
    again[:, 4] += turned
    if turned == math.pi / 2:
        again[:, [2, 3]] = again[:, [3, 2]]
    torch.testing.assert_close(probiou_loss(again, target), probiou_loss(pred, target))


def test_probiou_is_right_in_float32_for_long_thin_boxes() -> None:
    pred = torch.tensor([[0.0, 0, 5000, 0.01, 0.785]])
    target = torch.tensor([[1.0, 0, 4000, 0.02, 0.785]])
    torch.testing.assert_close(
        probiou_loss(pred, target).double(), probiou_loss(pred.double(), target.double()), rtol=1e-3, atol=0
    )


# ----------------------------------------------------------------------------------------------------------------- WIoU


def test_wiou_versions_focus_as_the_paper_says() -> None:
    pred, target = boxes(30)
    plain = wiou_loss(pred, target, version=1)
    iou = 1 - formula("iou")(pred, target)
    beta = (1 - iou) / 0.4
    torch.testing.assert_close(wiou_loss(pred, target, 0.4, version=2), plain * beta.sqrt(), rtol=1e-6, atol=1e-8)
    focus = beta / (3 * 1.9 ** (beta - 3))
    torch.testing.assert_close(wiou_loss(pred, target, 0.4), plain * focus, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(wiou_loss(pred, target), wiou_loss(pred, target, (1 - iou).mean()), rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match="version"):
        wiou_loss(pred, target, version=4)


def test_wiou_gives_no_gradient_through_focus_and_diagonal() -> None:
    pred, target = boxes(30)
    box = pred.clone().requires_grad_()
    c2 = (torch.maximum(box[:, 2:], target[:, 2:]) - torch.minimum(box[:, :2], target[:, :2])).square().sum(-1).detach()
    r2 = ((box[:, :2] + box[:, 2:] - target[:, :2] - target[:, 2:]) / 2).square().sum(-1)
    by_hand = (r2 / c2).exp() * formula("iou")(box, target)
    (expected,) = torch.autograd.grad(by_hand.sum(), box)
    _, grad = gradient(functools.partial(wiou_loss, version=1), pred, target)
    torch.testing.assert_close(grad, expected, rtol=1e-6, atol=1e-8)
    # Versions 2 and 3 scale each pair's gradient by its focus, and turn it nowhere.
    value, focused = gradient(functools.partial(wiou_loss, mean_loss=0.4), pred, target)
    ratio = value / wiou_loss(pred, target, version=1)
    torch.testing.assert_close(focused, grad * ratio[:, None])


def test_wiou_mean_starts_at_one_and_moves_in_training_alone() -> None:
    pred, target = boxes(30, dtype=torch.float32)
    batch = formula("iou")(pred, target).mean()
    module = make_box_loss("wiou", wiou_momentum=0.25)
    assert module.mean_loss == 1
    module(pred, target)
    torch.testing.assert_close(module.mean_loss, 0.75 + 0.25 * batch)
    module(pred[:0], target[:0])
    module(pred, target, mean_loss=0.3)
    module.eval()(pred, target)
    torch.testing.assert_close(module.mean_loss, 0.75 + 0.25 * batch)
    assert "mean_loss" in module.state_dict()


def step(*ious: float, training: bool = True) -> Step:
    """A step with these IoUs."""
    return Step(torch.tensor(ious), None, training)


def test_wiou_state_follows_the_training_steps() -> None:
    module = make_box_loss("wiou", wiou_momentum=0.5)
    assert module.prepare(step(0.2, 0.6))["mean_loss"] == pytest.approx(0.8)
    assert module.prepare(step(0.2, 0.6, training=False))["mean_loss"] == pytest.approx(0.8)
    assert module.prepare(step())["mean_loss"] == pytest.approx(0.8)
    supplied = module.prepare(step(0.9))
    assert supplied["mean_loss"] == pytest.approx(0.45)
    pred, target = boxes(10)
    assert torch.equal(module.pairs(pred, target, **supplied), wiou_loss(pred, target, module.mean_loss))
    assert module.mean_loss == pytest.approx(0.45)


def test_wiou_deferred_uses_the_mean_that_the_step_leads_to_and_does_not_write_it() -> None:
    module = make_box_loss("wiou", wiou_momentum=0.5)
    module.deferred = True
    for _ in range(2):  # the same batch, computed again
        assert module.prepare(step(0.2, 0.6))["mean_loss"] == pytest.approx(0.8)
        assert module.mean_loss == 1
    commit_collected([module])
    assert module.mean_loss == pytest.approx(0.8)


def test_wiou_keeps_its_state_behind_modifiers() -> None:
    module = make_box_loss("inner_wiou")
    assert isinstance(module, ModifiedBoxLoss)
    assert isinstance(module.base, WIoULoss)
    assert module.prepare(step(0.5))["mean_loss"] == module.base.mean_loss
    assert module.base.mean_loss < 1


def test_wiou_mean_may_move_between_two_losses_and_their_backward() -> None:
    pred, target = boxes(10)
    module = make_box_loss("wiou")
    box = pred.requires_grad_()
    (module(box, target).sum() + module(box, target).sum()).backward()


# ------------------------------------------------------------------------------------------------------------------ NWD


def test_nwd_measures_in_pixels() -> None:
    pred, target = boxes(20)
    stride = torch.tensor([[8.0], [16.0]]).repeat(10, 1).double()
    module = make_box_loss("nwd", nwd_ratio=1.0)
    torch.testing.assert_close(module.pairs(pred / stride, target / stride, stride=stride), nwd_loss(pred, target))
    assert torch.equal(module(pred, target), nwd_loss(pred, target))


def test_nwd_is_mixed_with_ciou_by_its_ratio() -> None:
    pred, target = boxes(20)
    ciou = formula("ciou")(pred, target)
    for ratio in (0.0, 0.25, 0.5, 1.0):
        expected = ratio * nwd_loss(pred, target) + (1 - ratio) * ciou
        torch.testing.assert_close(make_box_loss("nwd", nwd_ratio=ratio)(pred, target), expected)


def test_nwd_draws_boxes_that_do_not_meet() -> None:
    pred, target = torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[100.0, 0, 104, 4]])
    _, grad = gradient(nwd_loss, pred, target)
    assert (grad[:, [0, 2]] < 0).all()


def test_modifiers_of_nwd_act_on_the_ciou_within() -> None:
    pred, target = boxes(20)
    for modifier in ("inner", "focaler"):
        expected = 0.5 * nwd_loss(pred, target) + 0.5 * make_box_loss(f"{modifier}_ciou")(pred, target)
        torch.testing.assert_close(make_box_loss(f"{modifier}_nwd")(pred, target), expected)
        pure = make_box_loss(f"{modifier}_nwd", nwd_ratio=1.0)(pred, target)
        torch.testing.assert_close(pure, nwd_loss(pred, target))


# ------------------------------------------------------------------------------------------------------------ modifiers


@pytest.mark.parametrize("name", AXIS_ALIGNED)
def test_inner_ratio_1_is_the_loss_itself(name: str) -> None:
    pred, target = boxes(50)
    assert torch.equal(loss_of(f"inner_{name}", inner_ratio=1.0)(pred, target), loss_of(name)(pred, target))


@pytest.mark.parametrize("name", [n for n in AXIS_ALIGNED if n != "nwd"])
def test_inner_and_focaler_change_the_iou_alone(name: str) -> None:
    pred, target = boxes(50)
    iou = 1 - formula("iou")(pred, target)
    inner = overlap_and_union(scaled(pred, 0.7), scaled(target, 0.7))[0]
    plain = loss_of(name)(pred, target)
    torch.testing.assert_close(loss_of(f"inner_{name}")(pred, target), plain + iou - inner, rtol=1e-6, atol=1e-7)
    keys = {"focaler_d": 0.2, "focaler_u": 0.8}
    stretched = ((iou - 0.2) / 0.6).clamp(0, 1)
    torch.testing.assert_close(
        loss_of(f"focaler_{name}", **keys)(pred, target), plain + iou - stretched, rtol=1e-6, atol=1e-7
    )
    both = ((inner - 0.2) / 0.6).clamp(0, 1)
    torch.testing.assert_close(
        loss_of(f"inner_focaler_{name}", **keys)(pred, target), plain + iou - both, rtol=1e-6, atol=1e-7
    )


def test_inner_above_1_lets_boxes_overlap_that_do_not_meet() -> None:
    pred, target = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[11.0, 0, 21, 10]])
    assert loss_of("inner_iou", inner_ratio=1.5)(pred, target) < loss_of("iou")(pred, target)


def test_focaler_gives_no_gradient_outside_its_interval() -> None:
    pred, target = boxes(300, seed=2)
    iou = 1 - formula("iou")(pred, target)
    _, grad = gradient(make_box_loss("focaler_iou", focaler_d=0.3, focaler_u=0.6), pred, target)
    outside = (iou < 0.3) | (iou > 0.6)
    assert outside.any()
    assert (grad[outside] == 0).all()
    assert (grad[~outside] != 0).any(-1).all()


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 2.3, 3.0, 5.0])
def test_alpha_powers_the_iou_and_each_penalty(power: float) -> None:
    pred, target = boxes(50)
    iou, giou, diou, ciou = (formula(n)(pred, target) for n in ("iou", "giou", "diou", "ciou"))
    parts = {"iou": [], "giou": [giou - iou], "diou": [diou - iou], "ciou": [diou - iou, ciou - diou]}
    for name, penalties in parts.items():
        expected = 1 - (1 - iou) ** power + sum(p.clamp_min(0) ** power for p in penalties)
        value = make_box_loss(f"alpha_{name}", alpha_power=power)(pred, target)
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4 if power < 1 else 1e-6)


@pytest.mark.parametrize("name", ["iou", "giou", "diou", "ciou"])
def test_alpha_of_power_1_is_the_loss_itself(name: str) -> None:
    pred, target = boxes(50)
    value, grad = gradient(make_box_loss(f"alpha_{name}", alpha_power=1.0), pred, target)
    expected, slope = gradient(make_box_loss(name), pred, target)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, slope)


def test_alpha_powers_what_stands_in_for_the_iou() -> None:
    pred, target = boxes(50)
    inner = overlap_and_union(scaled(pred, 0.7), scaled(target, 0.7))[0]
    torch.testing.assert_close(make_box_loss("alpha_inner_iou")(pred, target), 1 - inner**3)


@pytest.mark.parametrize("name", [*AXIS_ALIGNED, "focaler_inner_ciou"])
def test_focal_weighs_by_the_plain_iou_and_keeps_the_gradients_direction(name: str) -> None:
    pred, target = boxes(50)
    weight = (1 - formula("iou")(pred, target)).sqrt()
    value, grad = gradient(loss_of(name), pred, target)
    focal, slope = gradient(loss_of(f"focal_{name}"), pred, target)
    torch.testing.assert_close(focal, weight * value, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(slope, weight[:, None] * grad, rtol=1e-6, atol=1e-7)


def test_modifiers_in_any_order_have_one_name_and_one_value() -> None:
    pred, target = boxes(20)
    value = make_box_loss("focal_alpha_focaler_inner_ciou")(pred, target)
    for order in itertools.permutations(("focal", "alpha", "focaler", "inner")):
        name = "_".join((*order, "ciou"))
        assert registry.box_name(*registry.split_box_name(name)) == "focal_alpha_focaler_inner_ciou"
        assert torch.equal(make_box_loss(name.upper().replace("_", "-"))(pred, target), value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("inner_inner_ciou", "repeated"),
        ("focaler_inner_focaler_ciou", "repeated"),
        ("alpha_siou", "ciou, diou, giou, iou"),
        ("inner_probiou", "inner_"),
        ("wise_wise_ciou", "repeated"),
        ("wise_rotated_iou", "wise_"),
        ("inner_rotated_diou", "rotated_iou"),
        ("focaler_kld", "rotated_iou"),
        ("alpha_gwd", "rotated_iou"),
        ("focal_kfiou", "rotated_iou"),
        ("inner_nosuch", "nosuch"),
    ],
)
def test_modifiers_that_do_not_fit_are_refused_by_name(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_box_loss(name)


@pytest.mark.parametrize(
    ("base", "modifiers"),
    [("siou", ["alpha"]), ("ciou", ["inner", "inner"]), ("probiou", ["inner"]), ("gwd", ["wise"]), ("wiou", ["wise"])],
)
def test_modifiers_that_do_not_fit_are_refused_by_hand_too(base: str, modifiers: list[str]) -> None:
    parts = [spec.build() for m in modifiers for spec in registry.specs("modifier") if spec.name == m]
    with pytest.raises(ValueError, match=modifiers[0]):
        ModifiedBoxLoss(make_box_loss(base), parts)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("focaler_ciou", {"focaler_d": 0.5, "focaler_u": 0.5}),
        ("focaler_ciou", {"focaler_u": 1.5}),
        ("inner_ciou", {"inner_ratio": 0}),
        ("alpha_ciou", {"alpha_power": 0}),
        ("focal_ciou", {"focal_iou_gamma": -1}),
        ("wiou", {"wiou_version": 4}),
        ("wiou", {"wiou_momentum": 2}),
        ("nwd", {"nwd_ratio": 1.1}),
        ("nwd", {"nwd_constant": 0}),
        ("sdiou", {"sdiou_delta": 1.5}),
        ("gwd", {"gwd_fun": "sine"}),
        ("kld", {"kld_alpha": 0}),
        ("kfiou", {"kfiou_centre": "pixels"}),
        ("wise_ciou", {"wise_version": 0}),
    ],
)
def test_parameters_out_of_range_are_refused_by_their_key(name: str, keys: dict) -> None:
    with pytest.raises(ValueError, match=list(keys)[-1]):
        make_box_loss(name, **keys)


# -------------------------------------------------------------------------------------------------------- distributions


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", ["mmdet_dfl_none", "ultralytics_DFLoss_target"])
def test_distribution_focal_loss_is_its_originals(case: str, dtype: torch.dtype) -> None:
    arrays, cases, _ = golden("dfl")
    result = cases[case]["results"][str(dtype)[6:]]
    pred, target = (arrays[f"inputs/{k}"].to(dtype) for k in ("pred", "target"))
    sides = (-1, 1) if case.startswith("mmdet") else (-1, 4)
    value, grad = gradient(
        lambda p, t: distribution_focal_loss(p, t).view(sides).mean(-1, keepdim=sides[1] == 4), pred, target
    )
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(value, arrays[result["out"]], **tolerance)
    torch.testing.assert_close(grad, arrays[result["grad"]], **tolerance)


def test_distribution_focal_loss_is_least_where_the_weights_are() -> None:
    target = torch.tensor([3.25], dtype=torch.float64)
    logits = torch.full((1, 16), -50.0, dtype=torch.float64)
    logits[0, 3], logits[0, 4] = math.log(0.75), math.log(0.25)
    _, grad = gradient(distribution_focal_loss, logits, target)
    torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-12)


def test_distribution_focal_loss_at_a_bin_is_cross_entropy() -> None:
    logits, bins = torch.randn(16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(16)
    expected = torch.nn.functional.cross_entropy(logits, bins, reduction="none")
    torch.testing.assert_close(distribution_focal_loss(logits, bins.float()), expected)


def test_distribution_focal_loss_takes_targets_beyond_the_ends_and_leaves_them_alone() -> None:
    logits = torch.randn(4, 16, generator=torch.Generator().manual_seed(0)) * 100
    target = torch.tensor([-3.0, 15.0, 15.5, 1e4])
    given = target.clone()
    value, grad = gradient(distribution_focal_loss, logits, target)
    assert torch.equal(target, given)
    assert value.isfinite().all()
    assert grad.isfinite().all()
    torch.testing.assert_close(value, distribution_focal_loss(logits, target.clamp(0, 15)))


def test_distribution_focal_loss_reduces_as_the_others_do() -> None:
    logits, target, weight = torch.randn(8, 16), torch.rand(8) * 14, torch.rand(8)
    value = distribution_focal_loss(logits, target)
    torch.testing.assert_close(DistributionFocalLoss()(logits, target), value.mean())
    module = DistributionFocalLoss(reduction="sum", loss_weight=2.0)
    torch.testing.assert_close(module(logits, target, weight), 2 * (value * weight).sum())
    torch.testing.assert_close(module(logits, target, weight, 5.0, "mean"), 2 * (value * weight).sum() / 5)
    with pytest.raises(ValueError, match="reduction"):
        DistributionFocalLoss(reduction="max")
    with pytest.raises(ValueError, match="shape"):
        distribution_focal_loss(logits, target[:3])
    empty = torch.zeros(0, 16, requires_grad=True)
    DistributionFocalLoss()(empty, torch.zeros(0)).backward()
    assert empty.grad is not None
