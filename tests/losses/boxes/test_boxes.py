"""Properties of every registered box loss."""

from __future__ import annotations

import copy
import inspect
import itertools
import math
import pickle
import re

import pytest
import torch
from box_pairs import AXIS_ALIGNED, DTYPES, IMAGE, boxes, formula, loss_of
from conftest import gradient
from torch import Tensor

from yolo_losses import registry
from yolo_losses.losses.build import make_box_loss

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


def is_rotated(name: str) -> bool:
    return registry.split_box_name(name)[1].rotated


def pairs_for(name: str, count: int, **options) -> tuple[Tensor, Tensor]:
    return boxes(count, rotated=is_rotated(name), **options)


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


@pytest.mark.parametrize("name", [name for name in AXIS_ALIGNED if formula(name).__module__.startswith("yolo_losses.")])
def test_the_range_in_the_docstring_holds_for_the_boxes_that_it_asks_for(name: str) -> None:
    """Among them are points, lines and boxes far apart."""
    text = inspect.getdoc(formula(name)) or ""
    assert "with `x1 <= x2` and `y1 <= y2`" in text
    found = re.search(r"^    In \[0, (\d+)[\])]", text, flags=re.MULTILINE)
    highest = float(found[1]) if found else math.inf
    generator = torch.Generator().manual_seed(0)
    corners = (torch.rand(2, 4000, 2, 2, generator=generator) * 100).round().double()
    corners[:, ::2] *= torch.rand(2, 2000, 1, 1, generator=generator)
    pred, target = torch.cat((corners.amin(2), corners.amax(2)), -1)
    loss = loss_of(name)(pred, target)
    assert -1e-6 <= loss.min() <= loss.max() <= highest + 1e-6


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
